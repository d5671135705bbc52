"""A whole invocation on small stages: results, resume, records."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from galatea.errors import ConfigError
from pipeline.cli import app
from pipeline.config import Config, compose
from pipeline.executor import RunInterruptedError
from pipeline.run_lock import LOCK_FILE, locked
from pipeline.run_stage import Progress
from pipeline.session import Order, carry_out
from pipeline.settings import ReportConfig, TrackingConfig
from pipeline.stage_catalogue import STAGES
from pipeline.storage import Store
from stages.base import Stage
from tests.pipeline.small_chain import CHAIN, SmallConfig, write_photos


def _build(name: str, config: SmallConfig) -> Stage:
    return next(make(config) for make in CHAIN if make.name == name)  # type: ignore[attr-defined]


def _config(**changes: Any) -> Config:
    composed = compose(["executor=local", "tracking=off"])
    return replace(composed, stages={name: SmallConfig() for name in STAGES}, **changes)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return str(write_photos(tmp_path / "photos"))


def _quiet(progress: Progress) -> None:
    """Nobody watches."""


def test_a_run_ends_with_a_report_metrics_and_its_configuration(photos: str, tmp_path: Path) -> None:
    outcome = carry_out(Order((photos,), str(tmp_path / "run"), _config()), _quiet, _build)
    assert outcome.report == str(tmp_path / "run" / "report.html")
    assert set(outcome.stages) == {"ingest", *STAGES}
    assert "nobody is in this landscape" in Path(outcome.report).read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["portraits"] == 4
    assert metrics["clips"] == 16
    assert (tmp_path / "run" / "plots" / "portraits.csv").exists()
    assert "smile" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_run_folder_is_told_by_its_whole_path(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = carry_out(Order((photos,), "runs/tonight", _config()), _quiet, _build)
    assert outcome.report == str(tmp_path / "runs" / "tonight" / "report.html")
    again = carry_out(Order((photos,), str(tmp_path / "runs" / "tonight"), _config()), _quiet, _build)
    assert again.num_computed == 0
    with pytest.raises(ConfigError, match="an empty one"):
        carry_out(Order((photos,), "", _config()), _quiet, _build)


def test_the_second_run_computes_nothing_and_leaves_the_report_alone(photos: str, tmp_path: Path) -> None:
    order = Order((photos,), str(tmp_path / "run"), _config())
    first = carry_out(order, _quiet, _build)
    written = Path(first.report).stat().st_mtime_ns
    again = carry_out(order, _quiet, _build)
    assert again.num_computed == 0
    assert Path(again.report).stat().st_mtime_ns == written


def test_an_interrupted_run_resumes_and_its_report_is_current(photos: str, tmp_path: Path) -> None:
    order = Order((photos,), str(tmp_path / "run"), _config())

    def stop(progress: Progress) -> None:
        if progress.stage == "animate" and progress.done >= 2:
            raise RunInterruptedError("stopped by SIGINT")

    with pytest.raises(RunInterruptedError):
        carry_out(order, stop, _build)
    outcome = carry_out(order, _quiet, _build)
    assert outcome.stages["invert"].num_reused == 4
    assert 0 < outcome.stages["animate"].num_reused < 16
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["clips"] == 16


def test_a_signal_during_the_last_batch_of_a_stage_ends_the_run_there(photos: str, tmp_path: Path) -> None:
    order = Order((f"{photos}/ann.png",), str(tmp_path / "run"), _config())

    def interrupt(progress: Progress) -> None:
        if progress.stage == "align" and progress.done == progress.total:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterruptedError, match="SIGINT"):
        carry_out(order, interrupt, _build)
    assert not (tmp_path / "run" / "invert").exists()
    assert carry_out(order, _quiet, _build).stages["align"].num_reused == 1


def test_a_refused_run_leaves_the_configuration_of_the_results_that_are_there(photos: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    carry_out(Order((photos,), run, _config()), _quiet, _build)
    before = (tmp_path / "run" / "config.yaml").read_text()
    for order in (
        Order((f"{photos}/ann.png",), run, _config()),
        Order((photos,), run, _config(drivers=("turn", "nod"))),
        Order((), run, _config(drivers=("nod",)), ("drive",)),
    ):
        changed = replace(order.config, executor=replace(order.config.executor, batch_size=7))
        with pytest.raises(ConfigError, match=r"storage\.prune=true"):
            carry_out(replace(order, config=changed), _quiet, _build)
        assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_a_second_run_in_a_folder_that_is_in_use_is_refused_and_touches_nothing(photos: str, tmp_path: Path) -> None:
    order = Order((photos,), str(tmp_path / "run"), _config())

    with locked(Store(order.out)), pytest.raises(ConfigError, match="in use by another run"):
        carry_out(order, _quiet, _build)

    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]
    assert carry_out(order, _quiet, _build).num_computed > 0


def test_stages_run_one_by_one_on_what_is_there(photos: str, tmp_path: Path) -> None:
    run, config = str(tmp_path / "run"), _config()
    carry_out(Order((photos,), run, config, ("ingest",)), _quiet, _build)
    for stage in ("align", "invert"):
        outcome = carry_out(Order((), run, config, (stage,)), _quiet, _build)
        assert outcome.stages[stage].num_done == 4
        assert outcome.report == ""
    with pytest.raises(ConfigError, match="drive has not finished"):
        carry_out(Order((), run, config, ("edit", "animate")), _quiet, _build)


def test_a_stage_on_its_own_leaves_the_record_of_the_others_alone(photos: str, tmp_path: Path) -> None:
    carry_out(Order((photos,), str(tmp_path / "run"), _config(drivers=("smile",), generator="mine")), _quiet, _build)
    carry_out(Order((), str(tmp_path / "run"), _config(drivers=("turn",)), ("evaluate",)), _quiet, _build)
    recorded = compose(recorded=(tmp_path / "run" / "config.yaml").read_text())
    assert (recorded.drivers, recorded.generator) == (("smile",), "mine")


def test_a_report_made_anew_shows_the_settings_of_the_run(photos: str, tmp_path: Path) -> None:
    limits = ReportConfig(max_portraits=17)
    first = carry_out(Order((photos,), str(tmp_path / "run"), _config(report=limits)), _quiet, _build)
    Path(first.report).unlink()
    assert CliRunner().invoke(app, ["report", str(tmp_path / "run")]).exit_code == 0
    assert re.search(r"report\.max_portraits\D+17\b", Path(first.report).read_text())


def test_a_missing_driver_is_found_before_the_run_folder_is_touched(photos: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.mp4"):
        carry_out(Order((photos,), str(tmp_path / "run"), _config(drivers=("gone.mp4",))), _quiet, _build)
    with pytest.raises(ConfigError, match="at least one"):
        carry_out(Order((photos,), str(tmp_path / "run"), _config(drivers=())), _quiet, _build)
    assert not (tmp_path / "run").exists()


def test_a_run_is_tracked_once_with_report_and_clips(photos: str, tmp_path: Path, tracking_uri: str) -> None:
    artifacts = (tmp_path / "artifacts").as_uri()
    tracking = TrackingConfig(uri=tracking_uri, experiment="session", artifact_location=artifacts, num_sample_clips=3)
    order = Order((photos,), str(tmp_path / "run"), _config(tracking=tracking))
    assert tracking_uri in carry_out(order, _quiet, _build).tracked_at
    assert carry_out(order, _quiet, _build).tracked_at == ""
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name("session")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    [whole] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == 1 + 1 + len(STAGES)
    assert whole.data.metrics["portrait.psnr.p50"] > 0
    assert {item.path for item in client.list_artifacts(whole.info.run_id)} >= {"report.html", "distributions.json"}
    assert len(client.list_artifacts(whole.info.run_id, "clips")) == 3


def test_a_run_that_breaks_is_no_longer_running_in_mlflow(photos: str, tmp_path: Path, tracking_uri: str) -> None:
    artifacts = (tmp_path / "artifacts").as_uri()
    tracking = TrackingConfig(uri=tracking_uri, experiment="broken", artifact_location=artifacts)

    def fail(progress: Progress) -> None:
        if progress.stage == "align":
            raise ValueError("nobody thought of this")

    with pytest.raises(ValueError, match="nobody thought"):
        carry_out(Order((photos,), str(tmp_path / "run"), _config(tracking=tracking)), fail, _build)

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name("broken")
    assert experiment is not None
    assert "RUNNING" not in {run.info.status for run in client.search_runs([experiment.experiment_id])}
