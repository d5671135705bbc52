from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.aggregates import aggregate, distributions, quantile_curves, stage_seconds
from pipeline.manifest import build_schema, manifest_path, to_table, write_table
from pipeline.report.source import StoredRun
from pipeline.storage import Store
from stages.base import Column, Kind
from tests.pipeline.made_up_run import write_run

JUDGED = (
    Column("subject_id", Kind.STRING, ""),
    Column("kind", Kind.STRING, ""),
    Column("psnr", Kind.FLOAT, ""),
    Column("verdict", Kind.STRING, ""),
)


def _judged(name: str, psnr: float | None, **changes: Any) -> dict[str, Any]:
    row = {"subject_id": name, "source_id": name, "kind": "clip", "psnr": psnr, "verdict": "accepted"}
    return row | {"status": "done", "run_seconds": 2.0} | changes


@pytest.fixture
def judged(store: Store) -> StoredRun:
    """Five clips: one without a figure, one whose figure is no number, one that failed; and rows of one portrait."""
    rows = [
        _judged("a", 20.0),
        _judged("b", None, verdict="rejected"),
        _judged("c", float("nan")),
        _judged("d", 30.0, verdict=None, run_seconds=None),
        _judged("e", 99.0, status="failed"),
        _judged("p", 10.0, kind="portrait", source_id="p"),
        _judged("q", 10.0, kind="portrait", source_id="p"),
    ]
    schema = build_schema("evaluate", "subject_id", JUDGED)
    write_table(store, manifest_path("evaluate"), [to_table(rows, schema)], schema)
    return StoredRun(store)


def test_figures_are_those_of_finished_rows_that_have_one(judged: StoredRun) -> None:
    figures = aggregate(judged)

    assert figures["clip.psnr.mean"] == 25.0
    assert figures["clip.psnr.p50"] == 25.0
    assert figures["clip.accepted_share"] == 0.5
    assert figures["portrait.accepted_share"] == 1.0
    assert "clip.ssim.mean" not in figures
    assert sum(distributions(judged)["clip.psnr"]["counts"]) == 2
    assert [row["psnr"] for row in quantile_curves(judged, num_steps=2)["clip"]] == [20.0, 25.0, 30.0]


def test_seconds_count_once_for_each_input_record(judged: StoredRun) -> None:
    [evaluate] = stage_seconds(judged)

    assert evaluate == {"stage": "evaluate", "seconds": 10.0, "seconds_per_record": 10.0 / 6}


def test_a_run_that_has_only_begun_has_figures(tmp_path: Path) -> None:
    run = Path(write_run(tmp_path, num_photos=2, num_faces=1))
    for stage in ("invert", "edit", "drive", "animate", "evaluate"):
        (run / stage / "manifest.parquet").unlink()

    assert aggregate(StoredRun(Store(str(run)))) == {"photos": 2.0, "portraits": 1.0, "clips": 0.0}
