"""The figures of a run as one flat table: what a nightly run compares, and what tracking and DVC show.

They are computed from columns: rows as Python objects would take kilobytes each, and a run may have millions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from pipeline.manifest import DONE
from pipeline.plan import STEPS

QUALITY_COLUMNS = (
    "identity_similarity",
    "psnr",
    "ssim",
    "ms_ssim",
    "landmark_error",
    "yaw_error_deg",
    "pitch_error_deg",
    "expression_error",
    "view_landmark_error",
    "view_psnr",
)
_QUANTILES = (("p05", 0.05), ("p50", 0.5), ("p95", 0.95))


Values: TypeAlias = pa.ChunkedArray | Float[np.ndarray, " n"] | Sequence[float | None]


class RunTables(Protocol):
    """The columns of a run's manifests."""

    def table(self, stage: str, columns: Sequence[str]) -> pa.Table:
        """These columns of every row of a stage, null where the stage lacks one; no rows where it has not run."""


def aggregate(run: RunTables) -> dict[str, float]:
    """Counts, shares and quantiles by dotted name, such as `clip.identity_similarity.p50`."""
    figures = {
        "photos": float(run.table("ingest", ["status"]).num_rows),
        "portraits": float(done(run, "align").num_rows),
        "clips": float(done(run, "animate").num_rows),
    }
    for kind, judged in judged_by_kind(run).items():
        figures[f"{kind}.accepted_share"] = accepted_share(judged)
        for column in QUALITY_COLUMNS:
            quantiles = _quantiles(finite(judged[column]))
            figures.update({f"{kind}.{column}.{name}": value for name, value in quantiles.items()})
    return figures


def distributions(run: RunTables, num_bins: int = 30) -> dict[str, dict[str, list[float]]]:
    """Histograms of the quality figures: name -> {"edges", "counts"}."""
    found = {}
    for kind, judged in judged_by_kind(run).items():
        for column in QUALITY_COLUMNS:
            values = finite(judged[column])
            if len(values):
                counts, edges = np.histogram(values, bins=num_bins)
                found[f"{kind}.{column}"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return found


def quantile_curves(run: RunTables, num_steps: int = 20) -> dict[str, list[dict[str, float]]]:
    """The quality figures by kind of subject, sorted, at even shares: curves that compare runs of different size.

    Returns:
        kind -> rows {"share": 0..1, column: value, ...}.
    """
    shares = np.linspace(0, 1, num_steps + 1)
    curves: dict[str, list[dict[str, float]]] = {}
    for kind, judged in judged_by_kind(run).items():
        values = {column: finite(judged[column]) for column in QUALITY_COLUMNS}
        curves[kind] = [
            {"share": round(float(share), 4)}
            | {column: float(np.quantile(found, share)) for column, found in values.items() if len(found)}
            for share in shares
        ]
    return curves


def stage_seconds(run: RunTables) -> list[dict[str, Any]]:
    """Computing time of each stage: rows {"stage", "seconds", "seconds_per_record"}."""
    found = []
    for stage in ("ingest", *STEPS):
        seconds = record_seconds(run.table(stage, ["source_id", "run_seconds"]))
        if len(seconds):
            total = total_seconds(seconds)
            found.append({"stage": stage, "seconds": total, "seconds_per_record": total / len(seconds)})
    return found


def nested(figures: Mapping[str, float]) -> dict[str, Any]:
    """Dotted names as nested mappings."""
    tree: dict[str, Any] = {}
    for name, value in figures.items():
        *path, leaf = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[leaf] = value
    return tree


def done(run: RunTables, stage: str, columns: Sequence[str] = ()) -> pa.Table:
    """These columns of the rows of a stage that are done."""
    rows = run.table(stage, ["status", *columns])
    return rows.filter(pc.equal(rows["status"], DONE))


def judged_by_kind(run: RunTables) -> dict[str, pa.Table]:
    """Verdicts and quality figures of what was evaluated, by kind of subject."""
    rows = done(run, "evaluate", ["kind", "verdict", *QUALITY_COLUMNS])
    kinds = sorted(pc.drop_null(rows["kind"]).unique().to_pylist())
    return {kind: rows.filter(pc.equal(rows["kind"], kind)) for kind in kinds}


def accepted_share(judged: pa.Table) -> float:
    """The share of the rows whose verdict is good, 0..1."""
    num_accepted = pc.sum(pc.equal(judged["verdict"], "accepted")).as_py() or 0
    return float(num_accepted / judged.num_rows)


def record_seconds(rows: pa.Table) -> Float[np.ndarray, " records"]:
    """Computing time of each input record, NaN where it is not known; all rows of a record carry that of the record."""
    if not rows.num_rows:
        return np.empty(0)
    last = ("run_seconds", "last", pc.ScalarAggregateOptions(skip_nulls=False))
    records = rows.group_by("source_id", use_threads=False).aggregate([last])
    return np.asarray(records["run_seconds_last"], dtype=np.float64)


def total_seconds(seconds: Float[np.ndarray, " records"]) -> float:
    """Their sum; what is not known counts as none."""
    return float(sum(np.nan_to_num(seconds).tolist()))


def finite(values: Values) -> Float[np.ndarray, " n"]:
    """The values that are there and finite."""
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def _quantiles(numbers: Float[np.ndarray, " n"]) -> dict[str, float]:
    if not len(numbers):
        return {}
    return {"mean": float(numbers.mean())} | {name: float(np.quantile(numbers, share)) for name, share in _QUANTILES}
