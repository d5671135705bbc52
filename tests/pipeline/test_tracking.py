"""Against a real MLflow store in SQLite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.run_stage import Progress, StageSummary
from pipeline.settings import TrackingConfig
from pipeline.tracking import MlflowTracker, NoTracker, RunFacts, RunRecord, TrackingError, open_tracker

MODELS = [
    {
        "name": "facemesh",
        "version": "1",
        "sha256": "ab" * 32,
        "licence": "Apache-2.0",
        "is_commercial_use_allowed": True,
    },
    {"name": "arcface", "version": "2", "sha256": "cd" * 32, "licence": "research", "is_commercial_use_allowed": False},
]
PARAMS = {
    "align.min_face_px": 40,
    "animate.fps": 12.0,
    "drivers": ["smile"],
    **{f"edit.number_{i}": i for i in range(150)},
}
FACTS = RunFacts("archive", PARAMS, {"galatea.version": "0.1.0"})
STATISTICS = {
    "columns": {"fit_residual": {"count": 3, "mean": 0.02, "p05": 0.01, "p50": 0.02, "p95": 0.03, "min": None}}
}


@pytest.fixture
def config(tracking_uri: str, tmp_path: Path) -> TrackingConfig:
    return TrackingConfig(
        uri=tracking_uri, experiment=tmp_path.name, artifact_location=(tmp_path / "artifacts").as_uri()
    )


def _start(reused: int = 0) -> Progress:
    counts = {"total": 4, "reused": reused, "done": 0, "failed": 0}
    return Progress(stage="align", **counts, seconds=0.0, records_per_second=0.0)


def _summary(stage: str = "align") -> StageSummary:
    counts, errors = {"done": 3, "no_face": 1}, {"no_face": 1}
    return StageSummary(stage, 4, 0, 4, counts, errors, "f" * 16, 2.0, 1.5, STATISTICS)


def _runs(tracking_uri: str, config: TrackingConfig, where: str = "") -> list:
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name(config.experiment)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id], where))


def test_a_run_is_recorded_with_its_stages(tracking_uri: str, config: TrackingConfig) -> None:
    tracker = open_tracker(config, FACTS)
    tracker.watch(_start())
    tracker.stage_finished(_summary(), MODELS)
    record = RunRecord({"clip.psnr.p50": 24.5}, {"report.html": "<html>"}, {"clips/a.mp4": b"film"})
    assert tracker.is_recording
    assert tracking_uri in tracker.finished(record)

    [stage] = _runs(tracking_uri, config, "tags.`galatea.stage` = 'align'")
    [run] = [run for run in _runs(tracking_uri, config) if run.info.run_id == stage.data.tags["mlflow.parentRunId"]]
    assert run.info.status == stage.info.status == "FINISHED"
    assert run.data.params["animate.fps"] == "12.0"
    assert len([key for key in run.data.params if key.startswith("edit.")]) == 150
    assert run.data.params["model.facemesh.sha256"] == "ab" * 32
    assert run.data.metrics == {"clip.psnr.p50": 24.5}
    assert run.data.tags["galatea.version"] == "0.1.0"
    assert stage.data.params == {
        "align.min_face_px": "40",
        "fingerprint": "f" * 16,
        **{
            f"model.{model['name']}.{fact}": model[fact]
            for model in MODELS
            for fact in ("version", "sha256", "licence")
        },
    }
    assert stage.data.metrics["status.no_face"] == 1
    assert stage.data.metrics["fit_residual.p95"] == 0.03
    assert stage.data.tags["galatea.is_commercial_use_allowed"] == "false"
    client = MlflowClient(tracking_uri=tracking_uri)
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"report.html", "clips"}
    assert {item.path for item in client.list_artifacts(stage.info.run_id)} == {"statistics.json"}


def test_a_run_with_nothing_to_compute_leaves_no_record(tracking_uri: str, config: TrackingConfig) -> None:
    tracker = open_tracker(config, FACTS)
    tracker.watch(_start(4))
    tracker.stage_finished(_summary(), MODELS)
    assert not tracker.is_recording
    assert tracker.finished(RunRecord()) == ""
    assert _runs(tracking_uri, config) == []


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_that_ends_early_says_so(tracking_uri: str, config: TrackingConfig, status: str) -> None:
    tracker = open_tracker(config, FACTS)
    tracker.watch(_start())
    tracker.failed(status)
    assert [run.info.status for run in _runs(tracking_uri, config)] == [status]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////dev/null/mlflow.db"])
def test_a_server_that_cannot_be_reached_is_an_error_before_anything_is_computed(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = open_tracker(TrackingConfig(uri=uri), FACTS)
    with pytest.raises(TrackingError) as caught:
        tracker.watch(_start())
    assert uri in str(caught.value)
    assert "tracking=off" in str(caught.value)


def test_a_database_whose_client_is_not_installed_is_told() -> None:
    # A kind of database that SQLAlchemy knows, with a client that nobody has.
    tracker = open_tracker(TrackingConfig(uri="mssql+pymssql://host/mlflow"), FACTS)
    with pytest.raises(TrackingError, match="the Python module pymssql is not installed"):
        tracker.watch(_start())


def test_a_server_that_fails_later_costs_the_record_and_not_the_run(
    config: TrackingConfig, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_tracker(config, FACTS)
    tracker.watch(_start())
    assert isinstance(tracker, MlflowTracker)
    tracker.run_id = "0" * 32  # as after somebody deleted the run
    tracker.stage_finished(_summary(), MODELS)
    tracker.finished(RunRecord({"a": 1.0}))
    assert "could not" in caplog.text


def test_an_artifact_store_that_fails_costs_the_record_and_not_the_run(
    tracking_uri: str, config: TrackingConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "word"), ("MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    config = replace(config, artifact_location="s3://bucket/mlflow")
    tracker = open_tracker(config, FACTS)
    tracker.watch(_start())
    tracker.stage_finished(_summary(), MODELS)
    tracker.finished(RunRecord({"clip.psnr.p50": 24.5}, {"report.html": "<html>"}))

    assert "could not record the stage align" in caplog.text
    assert "could not record the results" in caplog.text
    stage, run = sorted(_runs(tracking_uri, config), key=lambda run: "galatea.stage" not in run.data.tags)
    assert stage.info.status == run.info.status == "FINISHED"
    assert stage.data.metrics["status.no_face"] == 1
    assert run.data.metrics == {"clip.psnr.p50": 24.5}


def test_tracking_can_be_off() -> None:
    tracker = open_tracker(TrackingConfig(mode="off"), FACTS)
    assert isinstance(tracker, NoTracker)
    tracker.watch(_start())
    assert tracker.finished(RunRecord()) == ""
