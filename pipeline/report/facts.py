"""What the page says in words and figures: totals, distributions, failures, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.aggregates import Values, accepted_share, done, judged_by_kind, record_seconds, total_seconds
from pipeline.manifest import DONE
from pipeline.progress import duration
from pipeline.report.cards import NO_EDIT, Row, RunSource, by_portrait, portrait_name
from pipeline.report.charts import Histogram, Metric, histogram

STAGES = ("ingest", "align", "invert", "edit", "drive", "animate", "evaluate")
NOT_ACCEPTED = "not accepted"
_MAX_EXAMPLES = 40

_QUALITY = (
    Metric("identity_similarity", "Identity similarity", "1 = the same face; higher is better"),
    Metric("psnr", "PSNR", "Reconstruction against the photo; higher is better", "dB", 1),
    Metric("ssim", "SSIM", "Structure of the reconstruction; higher is better"),
    Metric("ms_ssim", "MS-SSIM", "Structure over several scales; higher is better"),
    Metric("landmark_error", "Landmark error", "Relative to the distance of the pupils; lower is better", "", 3),
    Metric("yaw_error_deg", "Yaw error", "Achieved against asked; lower is better", "°", 1),
    Metric("pitch_error_deg", "Pitch error", "Achieved against asked; lower is better", "°", 1),
    Metric("expression_error", "Expression error", "Achieved against asked coefficients; lower is better"),
    Metric("view_landmark_error", "View error", "One head for all frames, in pupil distances; lower is better", "", 4),
    Metric("view_psnr", "View PSNR", "The same points seen from several sides; higher is better", "dB", 1),
)
_FIT = Metric("fit_residual", "Head fit residual", "Median landmark error of the head model, in pupil distances", "", 3)


@dataclass(frozen=True)
class Chart:
    """A histogram and what its values belong to."""

    about: str
    histogram: Histogram


@dataclass(frozen=True)
class FailureGroup:
    """Records that ended in the same way."""

    stage: str
    status: str
    code: str
    count: int
    examples: tuple[tuple[str, str], ...]
    """(record, reason)."""


@dataclass(frozen=True)
class StageFacts:
    """How a stage went."""

    name: str
    counts: Mapping[str, int]
    seconds: str
    share: float
    """Of the computing time of the run, 0..1."""


@dataclass(frozen=True)
class Model:
    """A model that took part."""

    name: str
    version: str
    licence: str
    sha256: str
    is_commercial_use_allowed: bool


@dataclass(frozen=True)
class Total:
    """A big number at the top of the page."""

    value: str
    label: str


def totals(source: RunSource) -> list[Total]:
    """The run in a few numbers."""
    counts = {
        "photo": source.table("ingest", ["status"]).num_rows,
        "face": done(source, "align").num_rows,
        "clip": done(source, "animate").num_rows,
    }
    found = [Total(str(count), noun if count == 1 else f"{noun}s") for noun, count in counts.items()]
    judged = done(source, "evaluate", ["verdict"])
    if judged.num_rows:
        found.append(Total(f"{100 * accepted_share(judged):.0f}%", "accepted"))
    found.append(Total(duration(sum(_seconds(source, stage) for stage in STAGES)), "computing"))
    return found


def charts(source: RunSource) -> list[Chart]:
    """The distributions of the run's quality figures, and of the time a record takes in each stage."""
    found: list[Chart | None] = []
    for kind, judged in reversed(judged_by_kind(source).items()):
        found += [_chart(f"{kind}s", metric, judged[metric.column]) for metric in _QUALITY]
    found.append(_chart("portraits", _FIT, done(source, "align", [_FIT.column])[_FIT.column]))
    for stage in STAGES[1:]:
        metric = Metric("run_seconds", f"Seconds in {stage}", "Computing time of a record", "s")
        found.append(_chart("records", metric, record_seconds(done(source, stage, ["source_id", "run_seconds"]))))
    return [chart for chart in found if chart is not None]


def failures(source: RunSource) -> list[FailureGroup]:
    """What did not work, grouped by reason: errors first, then what the gates refused; the most frequent first."""
    found = [group for stage in STAGES for group in _failures_of(source, stage)]
    return sorted(found, key=lambda group: (group.status == NOT_ACCEPTED, -group.count))


def stages(source: RunSource) -> list[StageFacts]:
    """Counts and computing time of each stage that has run."""
    seconds = {stage: _seconds(source, stage) for stage in STAGES}
    total = sum(seconds.values()) or 1.0
    counts = {stage: _counts(source.table(stage, ["status"])["status"]) for stage in STAGES}
    return [
        StageFacts(stage, counts[stage], duration(seconds[stage]), seconds[stage] / total)
        for stage in STAGES
        if counts[stage]
    ]


def models(source: RunSource) -> list[Model]:
    """Every model that took part in any row, once."""
    texts = {text for stage in STAGES for text in source.models(stage)}
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    for text in sorted(texts):
        parts.update({(part["name"], part["sha256"]): part for part in json.loads(text)})
    names = ("name", "version", "licence", "sha256", "is_commercial_use_allowed")
    return [Model(**{name: part[name] for name in names}) for _, part in sorted(parts.items())]


def versions(source: RunSource) -> list[str]:
    """The versions of the code that made the rows."""
    columns = [source.table(stage, ["code_version"])["code_version"] for stage in STAGES]
    return sorted({version for column in columns for version in column.unique().to_pylist() if version})


def _chart(about: str, metric: Metric, values: Values) -> Chart | None:
    chart = histogram(metric, values)
    return None if chart is None else Chart(about, chart)


def _seconds(source: RunSource, stage: str) -> float:
    return total_seconds(record_seconds(source.table(stage, ["source_id", "run_seconds"])))


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {str(item["values"]): int(item["counts"]) for item in pc.value_counts(values).to_pylist()}


def _failures_of(source: RunSource, stage: str) -> Iterator[FailureGroup]:
    """The groups of a stage; only the rows that are shown are read whole."""
    table = source.table(stage, ["status", "error_code", "verdict"])
    if not table.num_rows:
        return
    is_done = pc.equal(table["status"], DONE)
    is_refused = pc.and_(is_done, pc.fill_null(pc.equal(table["verdict"], "rejected"), False))
    outcomes = pa.table(
        {
            "status": pc.if_else(is_refused, NOT_ACCEPTED, table["status"]),
            "code": pc.if_else(is_refused, "", pc.fill_null(table["error_code"], "")),
            "position": np.arange(table.num_rows),
        }
    )
    bad = outcomes.filter(pc.or_(pc.invert(is_done), is_refused))
    groups = bad.group_by(["status", "code"], use_threads=False)
    found = groups.aggregate([("position", "count"), ("position", "list")])
    for status, code, count, positions in zip(*found.columns, strict=True):
        rows = source.rows(stage, positions.values[:_MAX_EXAMPLES].to_pylist())
        yield FailureGroup(stage, status.as_py(), code.as_py(), count.as_py(), _examples(source, rows))


def _examples(source: RunSource, rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    faces = by_portrait(source, "align", "portrait_id", {_record_key(row).partition(".")[0] for row in rows})
    names = {portrait: portrait_name(found[0][1]) for portrait, found in faces.items()}
    return tuple((_record_name(row, names), _reason(row)) for row in rows)


def _reason(row: Row) -> str:
    return str((row.get("verdict_reason") if row["status"] == DONE else row["error_message"]) or "")


def _record_name(row: Row, names: Mapping[str, str]) -> str:
    """The most telling name that a row has: its file, or the portrait that it was made from."""
    if row.get("uri"):
        return str(row["uri"])
    key = _record_key(row)
    portrait, _, rest = key.partition(".")
    if portrait not in names:
        return key
    edit, _, driver = rest.removeprefix(f"{NO_EDIT}.").rpartition(".")
    return ", ".join(word for word in (names[portrait], driver, edit and f"edit {edit}") if word)


def _record_key(row: Row) -> str:
    return str(row.get("clip_id") or row.get("subject_id") or row.get("portrait_id") or row["source_id"])
