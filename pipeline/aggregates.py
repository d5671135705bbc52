"""The figures of a run as one flat table: what a nightly run compares, and what tracking and DVC show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

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


class Facts(Protocol):
    """The light columns of a run's manifests."""

    def facts(self, stage: str) -> Sequence[Mapping[str, Any]]:
        """Every row of a stage; [] where it has not run."""


def aggregate(run: Facts) -> dict[str, float]:
    """Counts, shares and quantiles by dotted name, such as `clip.identity_similarity.p50`."""
    rows = [row for row in run.facts("evaluate") if row["status"] == DONE]
    figures = {
        "photos": float(len(run.facts("ingest"))),
        "portraits": float(sum(row["status"] == DONE for row in run.facts("align"))),
        "clips": float(sum(row["status"] == DONE for row in run.facts("animate"))),
    }
    for kind in sorted({str(row["kind"]) for row in rows}):
        judged = [row for row in rows if row["kind"] == kind]
        figures[f"{kind}.accepted_share"] = float(np.mean([row.get("verdict") == "accepted" for row in judged]))
        for column in QUALITY_COLUMNS:
            quantiles = _quantiles(row.get(column) for row in judged)
            figures.update({f"{kind}.{column}.{name}": value for name, value in quantiles.items()})
    return figures


def distributions(run: Facts, num_bins: int = 30) -> dict[str, dict[str, list[float]]]:
    """Histograms of the quality figures: name -> {"edges", "counts"}."""
    found = {}
    rows = [row for row in run.facts("evaluate") if row["status"] == DONE]
    for kind in sorted({str(row["kind"]) for row in rows}):
        for column in QUALITY_COLUMNS:
            values = _numbers(row.get(column) for row in rows if row["kind"] == kind)
            if len(values):
                counts, edges = np.histogram(values, bins=num_bins)
                found[f"{kind}.{column}"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return found


def quantile_curves(run: Facts, num_steps: int = 20) -> dict[str, list[dict[str, float]]]:
    """The quality figures by kind of subject, sorted, at even shares: curves that compare runs of different size.

    Returns:
        kind -> rows {"share": 0..1, column: value, ...}.
    """
    rows = [row for row in run.facts("evaluate") if row["status"] == DONE]
    shares = np.linspace(0, 1, num_steps + 1)
    curves: dict[str, list[dict[str, float]]] = {}
    for kind in sorted({str(row["kind"]) for row in rows}):
        values = {
            column: _numbers(row.get(column) for row in rows if row["kind"] == kind) for column in QUALITY_COLUMNS
        }
        curves[kind] = [
            {"share": round(float(share), 4)}
            | {column: float(np.quantile(found, share)) for column, found in values.items() if len(found)}
            for share in shares
        ]
    return curves


def stage_seconds(run: Facts) -> list[dict[str, Any]]:
    """Computing time of each stage: rows {"stage", "seconds", "seconds_per_record"}."""
    found = []
    for stage in ("ingest", *STEPS):
        seconds = {row["source_id"]: float(row["run_seconds"] or 0) for row in run.facts(stage)}
        if seconds:
            total = sum(seconds.values())
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


def _quantiles(values: Iterable[Any]) -> dict[str, float]:
    numbers = _numbers(values)
    if not len(numbers):
        return {}
    return {"mean": float(numbers.mean())} | {name: float(np.quantile(numbers, share)) for name, share in _QUANTILES}


def _numbers(values: Iterable[Any]) -> np.ndarray:
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    return numbers[np.isfinite(numbers)]
