"""What passes between the driver of a stage's run and its workers: the task, batches, and reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.fingerprint import code_version, stage_fingerprint
from pipeline.journal import JournalLimits
from pipeline.manifest import build_schema
from pipeline.requests import Join, Request, Requests
from pipeline.storage import Store
from stages.base import Stage


@dataclass(frozen=True)
class WorkerTask:
    """All that a worker needs to know about a stage's run; the same for all its workers."""

    stage: Stage
    run: Store
    joins: tuple[Join, ...] = ()
    uris: Mapping[str, str] = field(default_factory=dict)
    input_options: Mapping[str, Any] = field(default_factory=dict)
    limits: JournalLimits = field(default_factory=JournalLimits)
    stage_fingerprint: str = ""
    code_version: str = ""
    models: str = "[]"

    @staticmethod
    def of(
        stage: Stage, run: Store, requests: Requests, input_options: Mapping[str, Any], limits: JournalLimits
    ) -> WorkerTask:
        """The task of running a stage on requests, with the facts that every row will carry.

        Raises:
            WeightsError: a model of the stage is not installed.
        """
        models = json.dumps([dataclasses.asdict(model) for model in stage.models()], sort_keys=True)
        fingerprint, version = stage_fingerprint(stage), code_version(stage)
        joins, uris = requests.joins, requests.uris
        return WorkerTask(stage, run, joins, uris, input_options, limits, fingerprint, version, models)

    @property
    def schema(self) -> pa.Schema:
        """Of the stage's manifest."""
        return build_schema(self.stage.name, self.stage.id_column, self.stage.produces)


@dataclass(frozen=True)
class Batch:
    """Requests that are processed together."""

    items: tuple[Request, ...]
    num_deaths: int = 0
    """How many workers died while they had these records."""

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the batch among those in flight."""
        return self.items[0].source_id, len(self.items)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the records each."""
        middle = len(self.items) // 2
        return Batch(self.items[:middle], self.num_deaths), Batch(self.items[middle:], self.num_deaths)


@dataclass(frozen=True)
class BatchReport:
    """What became of a batch."""

    num_done: int
    num_failed: int
    seconds: float
    """Spent in the stage itself."""
