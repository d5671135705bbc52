"""Tracking: every run that computes something is an MLflow run, with a nested run for each stage.

The server is asked before anything expensive starts. Once the run is going, a server that fails costs its record,
not the run: that is a warning.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from galatea.errors import RunError
from galatea.weights import home
from pipeline.config import without_secret
from pipeline.settings import TrackingConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipeline.run_stage import Progress, StageSummary

_log = logging.getLogger(__name__)
_MAX_PARAM_LENGTH = 6000
_PARAMS_PER_CALL = 100


class TrackingError(RunError):
    """The tracking server cannot be reached, or refuses the experiment."""

    code = "tracking"


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before it starts."""

    name: str
    params: Mapping[str, Any]
    """Flattened configuration, without credentials."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run when it is over."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """Artefact path -> text (report, distributions)."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Artefact path -> bytes (sample clips)."""


class Tracker(Protocol):
    """Is told how a run goes."""

    @property
    def is_recording(self) -> bool:
        """Whether there is a record that results can be added to."""

    def watch(self, progress: Progress) -> None:
        """A stage moved on."""

    def stage_finished(self, summary: StageSummary, models: Sequence[Mapping[str, Any]]) -> None:
        """A stage has its manifest."""

    def finished(self, record: RunRecord) -> str:
        """The run is over; returns where it can be looked at, "" where nothing was computed."""

    def failed(self, status: str) -> None:
        """The run ended early: `FAILED` or `KILLED`."""


class NoTracker:
    """Tracking is off."""

    @property
    def is_recording(self) -> bool:
        """Never."""
        return False

    def watch(self, progress: Progress) -> None:
        """Nothing."""

    def stage_finished(self, summary: StageSummary, models: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def finished(self, record: RunRecord) -> str:
        """Nothing."""
        return ""

    def failed(self, status: str) -> None:
        """Nothing."""


def open_tracker(config: TrackingConfig, facts: RunFacts) -> Tracker:
    """What records a run; the server is asked when the first stage with something to compute begins."""
    return NoTracker() if config.mode == "off" else MlflowTracker(config, facts)


class MlflowTracker:
    """Records a run in MLflow; an invocation that has nothing to compute leaves no record."""

    def __init__(self, config: TrackingConfig, facts: RunFacts) -> None:
        self._config = config
        self._facts = facts
        self.uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
        self.run_id = ""

    @property
    def is_recording(self) -> bool:
        """Once a stage has begun that has something to compute."""
        return bool(self.run_id)

    def watch(self, progress: Progress) -> None:
        """Create the run when a stage begins that has something to compute.

        Raises:
            TrackingError: the server cannot be reached; nothing expensive has happened yet.
        """
        if not self.run_id and progress.total > progress.reused:
            self._client, self._experiment = _connect(self.uri, self._config)
            with _mlflow_errors("create a run"):
                self._begin()

    def stage_finished(self, summary: StageSummary, models: Sequence[Mapping[str, Any]]) -> None:
        """Record the stage as a nested run."""
        if self.run_id:
            with _only_warned(f"record the stage {summary.stage}"):
                self._nested(summary, models)

    def finished(self, record: RunRecord) -> str:
        """Record metrics and artefacts, and close the run."""
        if not self.run_id:
            return ""
        with _only_warned("record the results"):
            self._log_metrics(self.run_id, record.metrics)
            for path, text in record.texts.items():
                self._client.log_text(self.run_id, text, path)
            self._log_files(record.files)
        with _only_warned("close the run"):
            self._client.set_terminated(self.run_id, "FINISHED")
        return f"{self.uri} (experiment {self._experiment}, run {self.run_id})"

    def failed(self, status: str) -> None:
        """Close the run as failed or killed."""
        if self.run_id:
            with _only_warned("close the run"):
                self._client.set_terminated(self.run_id, status)

    def _begin(self) -> None:
        tags = {"mlflow.source.name": "galatea", "mlflow.source.type": "LOCAL", **self._facts.tags}
        run = self._client.create_run(self._experiment, run_name=self._facts.name, tags=tags)
        self.run_id = run.info.run_id
        self._log_params(self.run_id, self._facts.params)

    def _nested(self, summary: StageSummary, models: Sequence[Mapping[str, Any]]) -> None:
        tags = {"mlflow.parentRunId": self.run_id, "galatea.stage": summary.stage, **_model_tags(models)}
        run_id = self._client.create_run(self._experiment, run_name=summary.stage, tags=tags).info.run_id
        prefix = f"{summary.stage}."
        params = {key: value for key, value in self._facts.params.items() if key.startswith(prefix)}
        self._log_params(run_id, params | _model_params(models) | {"fingerprint": summary.fingerprint})
        self._log_params(self.run_id, _model_params(models))
        self._log_metrics(run_id, stage_metrics(summary))
        self._client.set_terminated(run_id, "FINISHED")
        self._client.log_dict(run_id, dict(summary.statistics), "statistics.json")

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(run_id).data.params
        new = [
            Param(_name(key), str(value)[:_MAX_PARAM_LENGTH])
            for key, value in params.items()
            if _name(key) not in known
        ]
        for start in range(0, len(new), _PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=new[start : start + _PARAMS_PER_CALL])

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self._client.log_batch(run_id, metrics=[Metric(_name(key), value, now, 0) for key, value in metrics.items()])

    def _log_files(self, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for path, data in files.items():
                file = Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            if files:
                self._client.log_artifacts(self.run_id, folder)


def stage_metrics(summary: StageSummary) -> dict[str, float]:
    """Counts, times and the distributions of the numeric columns of a stage."""
    figures = {
        "records": float(summary.num_records),
        "reused": float(summary.num_reused),
        "rows": float(summary.num_rows),
        "seconds": summary.seconds,
        "model_seconds": summary.model_seconds,
        **{f"status.{status}": float(count) for status, count in summary.status.items()},
        **{f"error.{code}": float(count) for code, count in summary.errors.items()},
    }
    for column, distribution in summary.statistics.get("columns", {}).items():
        figures.update({f"{column}.{key}": float(value) for key, value in distribution.items() if value is not None})
    return figures


def _connect(uri: str, config: TrackingConfig) -> tuple[MlflowClient, str]:
    # MLflow tries for minutes by default; a run that cannot be recorded should say so at once.
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")):
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    try:
        with _mlflow_errors("connect"):
            client = MlflowClient(tracking_uri=uri)
            known = client.get_experiment_by_name(config.experiment)
            if known is not None:
                return client, str(known.experiment_id)
            location = config.artifact_location or (_default_artifacts() if uri == _default_uri() else None)
            return client, str(client.create_experiment(config.experiment, artifact_location=location))
    except TrackingError as error:
        raise TrackingError(
            f"Tracking at {without_secret(uri)} cannot be used: {error}. Start the server, set tracking.uri, or say "
            "tracking=off."
        ) from error


def _default_uri() -> str:
    folder = home() / "tracking"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def _default_artifacts() -> str:
    return (home() / "tracking" / "artifacts").as_uri()


@contextmanager
def _mlflow_errors(action: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:  # the client of a database, of which the URI says that it is needed
        missing = f"the Python module {error.name} is not installed" if error.name else str(error)
        raise TrackingError(f"could not {action}: {missing}") from error
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise TrackingError(f"could not {action}: {first_line}") from error


@contextmanager
def _only_warned(action: str) -> Iterator[None]:
    """A record that is lost is no reason to lose the run."""
    try:
        with _mlflow_errors(action):
            yield
    except TrackingError as error:
        _log.warning("tracking %s", error)
    except Exception as error:  # noqa: BLE001 - MLflow lets through whatever the client of an artifact store raises
        _log.warning("tracking could not %s: %s: %s", action, type(error).__name__, error)


def _model_tags(models: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    is_free = all(model["is_commercial_use_allowed"] for model in models)
    licences = sorted({str(model["licence"]) for model in models})
    return {"galatea.licences": json.dumps(licences), "galatea.is_commercial_use_allowed": str(is_free).lower()}


def _model_params(models: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"model.{model['name']}.{fact}": str(model[fact])
        for model in models
        for fact in ("version", "sha256", "licence")
    }


def _name(key: str) -> str:
    """MLflow takes letters, digits, and `_-. :/` in names."""
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in key)
