"""What the page says in words and figures: totals, distributions, failures, provenance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.progress import duration
from pipeline.report.cards import NO_EDIT, Row, RunSource, portrait_name
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
    photos, portraits = source.facts("ingest"), _done(source, "align")
    clips, judged = _done(source, "animate"), _done(source, "evaluate")
    accepted = sum(row.get("verdict") == "accepted" for row in judged)
    found = [
        Total(str(len(photos)), _plural(len(photos), "photo")),
        Total(str(len(portraits)), _plural(len(portraits), "face")),
        Total(str(len(clips)), _plural(len(clips), "clip")),
    ]
    if judged:
        found.append(Total(f"{100 * accepted / len(judged):.0f}%", "accepted"))
    found.append(Total(duration(sum(_seconds(source.facts(stage)) for stage in STAGES)), "computing"))
    return found


def charts(source: RunSource) -> list[Chart]:
    """The distributions of the run's quality figures, and of the time a record takes in each stage."""
    judged = _done(source, "evaluate")
    found: list[Chart] = []
    for kind in sorted({str(row.get("kind")) for row in judged}, reverse=True):
        rows = [row for row in judged if str(row.get("kind")) == kind]
        found += _charts(f"{kind}s", rows, _QUALITY)
    found += _charts("portraits", _done(source, "align"), (_FIT,))
    for stage in STAGES[1:]:
        seconds = Metric("run_seconds", f"Seconds in {stage}", "Computing time of a record", "s")
        found += _charts("records", _first_of_each_source(_done(source, stage)), (seconds,))
    return found


def failures(source: RunSource) -> list[FailureGroup]:
    """What did not work, grouped by reason: errors first, then what the gates refused; the most frequent first."""
    names = {str(row["portrait_id"]): portrait_name(row) for row in _done(source, "align")}
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for stage in STAGES:
        for row in source.facts(stage):
            verdict = row.get("verdict")
            if row["status"] != "done":
                key, reason = (stage, str(row["status"]), str(row["error_code"] or "")), row["error_message"]
            elif verdict == "rejected":
                key, reason = (stage, NOT_ACCEPTED, ""), row.get("verdict_reason")
            else:
                continue
            groups.setdefault(key, []).append((_record_name(row, names), str(reason or "")))
    found = [FailureGroup(*key, len(rows), tuple(rows[:_MAX_EXAMPLES])) for key, rows in groups.items()]
    return sorted(found, key=lambda group: (group.status == NOT_ACCEPTED, -group.count))


def stages(source: RunSource) -> list[StageFacts]:
    """Counts and computing time of each stage that has run."""
    seconds = {stage: _seconds(source.facts(stage)) for stage in STAGES}
    total = sum(seconds.values()) or 1.0
    return [
        StageFacts(stage, Counter(str(row["status"]) for row in rows), duration(seconds[stage]), seconds[stage] / total)
        for stage in STAGES
        if (rows := source.facts(stage))
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
    return sorted({str(row["code_version"]) for stage in STAGES for row in source.facts(stage) if row["code_version"]})


def _charts(about: str, rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Chart]:
    made = [histogram(metric, [row.get(metric.column) for row in rows]) for metric in metrics]
    return [Chart(about, chart) for chart in made if chart is not None]


def _done(source: RunSource, stage: str) -> list[Row]:
    return [row for row in source.facts(stage) if row["status"] == "done"]


def _first_of_each_source(rows: Sequence[Row]) -> list[Row]:
    """One row for each input record: all rows of a record carry the seconds of the record."""
    return list({row.get("source_id"): row for row in rows}.values())


def _seconds(rows: Sequence[Row]) -> float:
    return sum(float(row.get("run_seconds") or 0.0) for row in _first_of_each_source(rows))


def _record_name(row: Row, names: Mapping[str, str]) -> str:
    """The most telling name that a row has: its file, or the portrait that it was made from."""
    if row.get("uri"):
        return str(row["uri"])
    key = str(row.get("clip_id") or row.get("subject_id") or row.get("portrait_id") or row["source_id"])
    portrait, _, rest = key.partition(".")
    if portrait not in names:
        return key
    edit, _, driver = rest.removeprefix(f"{NO_EDIT}.").rpartition(".")
    return ", ".join(word for word in (names[portrait], driver, edit and f"edit {edit}") if word)


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
