from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from galatea.errors import ConfigError
from pipeline.cli import EXIT_RUN_ERROR, EXIT_USAGE, app
from pipeline.compare import BETTER, REGRESSED, SAME, WORSE, Comparison, compare, read_tolerances
from tests.pipeline.made_up_run import write_run

NUM = 40


class Run:
    """Rows by stage, as a report reads them."""

    def __init__(self, evaluated: Sequence[Mapping[str, Any]], others: Mapping[str, Any] | None = None) -> None:
        self._rows = {"evaluate": evaluated, **(others or {})}

    def facts(self, stage: str) -> Sequence[Mapping[str, Any]]:
        return self._rows.get(stage, [])


def evaluated(shift: float = 0.0, noise: float = 0.0, figure: str = "psnr", num: int = NUM) -> Run:
    values = np.random.default_rng(1).normal(26, 3, NUM) + shift
    values = values + noise * np.random.default_rng(2).normal(size=NUM)
    return Run([_row(number, **{figure: values[number]}) for number in range(num)])


def _row(number: int, **figures: float) -> dict[str, Any]:
    name = f"{number:04d}"
    return {"subject_id": name, "source_id": name, "kind": "portrait", "status": "done", "run_seconds": 2.0, **figures}


def verdict(comparison: Comparison, figure: str = "psnr") -> str:
    return next(change.verdict for change in comparison.changes if change.figure == figure)


@pytest.mark.parametrize(
    ("shift", "noise", "expected"),
    [
        (0.0, 0.0, SAME),
        (-1.0, 0.3, REGRESSED),
        (-0.1, 0.01, WORSE),  # certain, but less than the 0.2 dB that are allowed
        (-0.3, 9.0, SAME),  # more than allowed, but lost in the noise of 40 pairs
        (1.0, 0.3, BETTER),
    ],
)
def test_a_figure_regresses_if_the_loss_is_certain_and_larger_than_allowed(
    shift: float, noise: float, expected: str
) -> None:
    comparison = compare(evaluated(shift, noise), evaluated())
    assert verdict(comparison) == expected
    assert comparison.has_regressed == (expected == REGRESSED)


def test_errors_regress_upwards() -> None:
    before, after = evaluated(figure="yaw_error_deg"), evaluated(1.0, figure="yaw_error_deg")
    assert verdict(compare(after, before), "yaw_error_deg") == REGRESSED
    assert verdict(compare(before, after), "yaw_error_deg") == BETTER


def test_records_are_paired_by_id_whatever_their_order_and_those_of_one_run_only_do_not_count() -> None:
    rows = [*evaluated().facts("evaluate")]
    fewer = Run([*reversed(rows[5:]), _row(9999, psnr=1.0)])
    change = compare(fewer, Run(rows)).changes[0]
    assert (change.num_pairs, change.verdict) == (NUM - 5, SAME)
    assert change.low == change.high == 0


def test_a_lost_record_is_a_regression_with_its_reason() -> None:
    failed = {"source_id": "p", "status": "failed", "error_message": "p: no light", "run_seconds": 0.0}
    done = {"source_id": "p", "status": "done", "run_seconds": 1.0}
    rows = evaluated().facts("evaluate")
    comparison = compare(Run(rows, {"invert": [failed]}), Run(rows, {"invert": [done]}))
    assert comparison.has_regressed
    assert [(lost.stage, lost.record, lost.reason) for lost in comparison.lost] == [
        ("invert", "p", "failed: p: no light")
    ]
    assert compare(Run(rows, {"invert": [done]}), Run(rows, {"invert": [failed]})).num_gained == 1


def test_a_figure_that_is_not_a_number_any_more_is_lost() -> None:
    before = evaluated()
    after = Run(
        [dict(row, psnr=float("nan")) if row["subject_id"] == "0003" else row for row in before.facts("evaluate")]
    )
    assert [(lost.record, lost.reason) for lost in compare(after, before).lost] == [("0003", "the run has no psnr")]


def test_records_that_are_rejected_now_are_a_regression() -> None:
    accepted, rejected = (
        Run([{**row, "verdict": verdict} for row in evaluated().facts("evaluate")])
        for verdict in ("accepted", "rejected")
    )
    assert verdict(compare(rejected, accepted), "accepted") == REGRESSED
    assert verdict(compare(accepted, rejected), "accepted") == BETTER


def test_a_run_that_lost_everything_is_a_regression() -> None:
    baseline = evaluated()
    failed = Run([{**row, "status": "failed", "error_message": "no memory"} for row in baseline.facts("evaluate")])
    assert len(compare(failed, baseline).lost) == NUM


def test_computing_times_are_those_of_shared_records() -> None:
    assert compare(evaluated(), evaluated()).seconds == {"evaluate": (2.0, 2.0)}


def test_a_tolerance_of_the_user_counts() -> None:
    assert verdict(compare(evaluated(-1.0), evaluated(), {"psnr": 2.0})) == WORSE


@pytest.mark.parametrize(
    ("tolerances", "said"),
    [({"pnsr": 1.0}, "Did you mean 'psnr'"), ({"psnr": -1.0}, "expected 0 or more"), ({"psnr": float("nan")}, "nan")],
)
def test_a_wrong_tolerance_is_refused(tolerances: Mapping[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compare(evaluated(), evaluated(), tolerances)


def test_a_tolerance_without_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="FIGURE=VALUE"):
        read_tolerances(["psnr"])


def test_runs_of_other_photos_are_refused() -> None:
    with pytest.raises(ConfigError, match="same photos"):
        compare(Run([_row(1, psnr=2.0)]), Run([_row(2, psnr=2.0)]))


def test_the_command_is_green_for_the_same_run_and_red_for_a_worse_one(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", num_photos=4, seed=1)
    same = CliRunner().invoke(app, ["compare", base, base])
    assert same.exit_code == 0, same.output
    assert "No regression" in same.output
    fewer = write_run(tmp_path / "fewer", num_photos=3, seed=1)
    file = tmp_path / "out" / "comparison.json"
    worse = CliRunner().invoke(app, ["compare", fewer, base, "--json", str(file)])
    assert worse.exit_code == EXIT_RUN_ERROR, worse.output
    assert "Lost in align" in worse.output
    facts = json.loads(file.read_text())
    assert facts["has_regressed"]
    assert facts["lost"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base")
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "empty"), base])
    assert result.exit_code == EXIT_USAGE
