"""Compares a run with a baseline, record by record: what a nightly benchmark fails on.

Both runs hold the same portraits and clips under the same ids (ids follow from the bytes of the photos), so figures are
compared in pairs: the same portrait before and after. A figure has regressed if its mean became worse by more than its
tolerance, and the bootstrap confidence interval of the mean difference (Efron 1979) excludes no change at all. A record
or a figure that the baseline has, and the run has not, is lost, and a loss is a regression whatever the rest says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from galatea.errors import ConfigError
from pipeline.manifest import DONE
from pipeline.plan import STEPS
from pipeline.typed_values import nearest_key

TOLERANCES: Mapping[str, float] = MappingProxyType(
    {
        "identity_similarity": 0.01,
        "psnr": 0.2,
        "ssim": 0.005,
        "ms_ssim": 0.005,
        "landmark_error": 0.002,
        "yaw_error_deg": 0.3,
        "pitch_error_deg": 0.3,
        "expression_error": 0.005,
        "view_landmark_error": 0.001,
        "view_psnr": 0.3,
        "accepted": 0.01,
    }
)
"""How much worse the mean of a figure may be, in the figure's own unit; `accepted` is 1 or 0, by the verdict."""
HIGHER_IS_BETTER = frozenset({"identity_similarity", "psnr", "ssim", "ms_ssim", "view_psnr", "accepted"})
NUM_RESAMPLES, CONFIDENCE = 2000, 0.95
REGRESSED, WORSE, SAME, BETTER = "regressed", "worse", "same", "better"
"""`worse` is certain, but tolerated; `same` cannot be told from no change; only `regressed` fails."""


class Facts(Protocol):
    """The light columns of a run's manifests."""

    def facts(self, stage: str) -> Sequence[Mapping[str, Any]]:
        """Every row of a stage; [] where it has not run."""


@dataclass(frozen=True)
class FigureChange:
    """How one figure of one kind of record changed.

    Attributes:
        kind: portrait or clip.
        figure: column of the evaluation.
        num_pairs: records that have it in both runs.
        before: mean over them in the baseline.
        after: mean over them in the run.
        low: lower end of the confidence interval of the mean difference (after - before).
        high: upper end.
        tolerance: what was allowed.
        verdict: regressed, worse, same or better.
    """

    kind: str
    figure: str
    num_pairs: int
    before: float
    after: float
    low: float
    high: float
    tolerance: float
    verdict: str


@dataclass(frozen=True)
class LostRecord:
    """A record that the baseline has done and the run has not, or whose figure the run does not have."""

    stage: str
    record: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """A run against its baseline."""

    changes: tuple[FigureChange, ...]
    lost: tuple[LostRecord, ...]
    num_gained: int
    """Records that only the run has done."""
    seconds: Mapping[str, tuple[float, float]]
    """Stage -> mean computing seconds a record in the baseline and in the run; for people, it fails nothing."""

    @property
    def has_regressed(self) -> bool:
        """Whether a nightly run should be red."""
        return bool(self.lost) or any(change.verdict == REGRESSED for change in self.changes)


def compare(run: Facts, baseline: Facts, tolerances: Mapping[str, float] | None = None) -> Comparison:
    """Compare two runs of the same photos and drivers.

    Args:
        run: the new run.
        baseline: what it is measured against.
        tolerances: figure -> how much worse its mean may be; the others keep `TOLERANCES`.

    Raises:
        ConfigError: an unknown figure, a negative tolerance, or runs that share no evaluated record.
    """
    allowed = {**TOLERANCES, **_checked(tolerances or {})}
    before, after = ({row["subject_id"]: row for row in _done(side, "evaluate")} for side in (baseline, run))
    shared = [name for name in before if name in after]
    lost, num_gained = _coverage(run, baseline)
    if not shared and not _have_something_in_common(run, baseline):
        raise ConfigError(
            f"compare: expected runs of the same photos, got {len(before)} evaluated records in the baseline and "
            f"{len(after)} in the run, none of them in both; compare runs with the same photos and drivers."
        )
    changes = []
    for kind in sorted({str(before[name]["kind"]) for name in shared}):
        pairs = [(before[name], after[name]) for name in shared if before[name]["kind"] == kind]
        changes += [change for figure in allowed if (change := _change(kind, figure, pairs, allowed[figure]))]
    lost += tuple(loss for name in shared for loss in _lost_figures(before[name], after[name]))
    return Comparison(tuple(changes), lost, num_gained, _seconds(run, baseline))


def read_tolerances(words: Sequence[str]) -> dict[str, float]:
    """Read `figure=value` words.

    Raises:
        ConfigError: a word has another form.
    """
    found = {}
    for word in words:
        figure, _, value = word.partition("=")
        try:
            found[figure] = float(value)
        except ValueError:
            raise ConfigError(f"tolerance: expected FIGURE=VALUE such as psnr=0.5, got '{word}'") from None
    return found


def _checked(tolerances: Mapping[str, float]) -> Mapping[str, float]:
    for figure, value in tolerances.items():
        if figure not in TOLERANCES:
            nearest = nearest_key(figure, TOLERANCES)
            hint = f" Did you mean '{nearest}'?" if nearest else ""
            raise ConfigError(f"tolerance: there is no figure '{figure}', only {', '.join(TOLERANCES)}.{hint}")
        if not value >= 0:
            raise ConfigError(f"tolerance {figure}: expected 0 or more, got {value}")
    return tolerances


def _change(
    kind: str, figure: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], tolerance: float
) -> FigureChange | None:
    """Compare one figure; None if the kind of record does not have it."""
    numbers = [(_figure(a, figure), _figure(b, figure)) for a, b in pairs]
    values = np.array([pair for pair in numbers if None not in pair], dtype=np.float64).reshape(-1, 2)
    if not len(values):
        return None
    low, high = _interval(values[:, 1] - values[:, 0])
    before, after = values.mean(axis=0)
    sign = 1 if figure in HIGHER_IS_BETTER else -1
    gain, sure_gain, sure_loss = sign * (after - before), min(sign * low, sign * high), max(sign * low, sign * high)
    verdict = SAME
    if sure_loss < 0:
        verdict = REGRESSED if -gain > tolerance else WORSE
    elif sure_gain > 0:
        verdict = BETTER
    return FigureChange(kind, figure, len(values), float(before), float(after), low, high, tolerance, verdict)


def _figure(row: Mapping[str, Any], figure: str) -> float | None:
    """Return a figure of a record; None where it has none, or no finite one."""
    if figure == "accepted":
        return float(row["verdict"] == "accepted") if row.get("verdict") else None
    value = row.get(figure)
    return None if value is None or not math.isfinite(value) else float(value)


def _lost_figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[LostRecord]:
    figures = [name for name in TOLERANCES if _figure(before, name) is not None and _figure(after, name) is None]
    return [LostRecord("evaluate", str(after["subject_id"]), f"the run has no {figure}") for figure in figures]


def _have_something_in_common(run: Facts, baseline: Facts) -> bool:
    return any(
        {row["source_id"] for row in run.facts(stage)} & {row["source_id"] for row in baseline.facts(stage)}
        for stage in STEPS
    )


def _interval(differences: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean; the same numbers give the same interval."""
    rng = np.random.default_rng(0)
    means = [rng.choice(differences, len(differences)).mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _coverage(run: Facts, baseline: Facts) -> tuple[tuple[LostRecord, ...], int]:
    """Return what the run lost, by input record of each stage, and how many records only the run has."""
    lost, num_gained = [], 0
    for stage in STEPS:
        before, after = ({row["source_id"] for row in _done(side, stage)} for side in (baseline, run))
        reasons = {row["source_id"]: _reason(row) for row in run.facts(stage) if row["status"] != DONE}
        lost += [LostRecord(stage, name, reasons.get(name, "not in the run")) for name in sorted(before - after)]
        num_gained += len(after - before)
    return tuple(lost), num_gained


def _reason(row: Mapping[str, Any]) -> str:
    return f"{row['status']}: {row.get('error_message') or row.get('error_code') or 'no reason given'}"


def _seconds(run: Facts, baseline: Facts) -> dict[str, tuple[float, float]]:
    found = {}
    for stage in STEPS:
        sides = [
            {row["source_id"]: float(row["run_seconds"] or 0) for row in _done(side, stage)} for side in (baseline, run)
        ]
        shared = sides[0].keys() & sides[1].keys()
        if shared:
            before, after = (float(np.mean([side[name] for name in shared])) for side in sides)
            found[stage] = before, after
    return found


def _done(side: Facts, stage: str) -> list[Mapping[str, Any]]:
    return [row for row in side.facts(stage) if row["status"] == DONE]
