"""Running one stage: plan what is left, execute it, compact. Resuming is the same code as starting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from galatea.errors import ConfigError
from pipeline.compaction import compact, read_statistics
from pipeline.executor import Executor, StopSignal, build_executor
from pipeline.fingerprint import row_fingerprint
from pipeline.journal import JournalLimits
from pipeline.manifest import DONE
from pipeline.remaining import find_remaining
from pipeline.requests import Requests
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from pipeline.worker_task import Batch, BatchReport, WorkerTask
from stages.base import Stage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in input records."""

    stage: str
    total: int
    reused: int
    """Finished by an earlier run."""
    done: int
    failed: int
    """Failed or quarantined in this run."""
    seconds: float

    records_per_second: float
    """Since the first batch was finished; 0 before the second."""

    @property
    def eta_seconds(self) -> float | None:
        """Estimated time to the end; None before there is a rate."""
        left = self.total - self.reused - self.done - self.failed
        return left / self.records_per_second if self.records_per_second > 0 else None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class StageSummary:
    """What a stage did, and what its manifest holds now."""

    stage: str
    num_records: int
    """Input records that were asked for."""
    num_reused: int
    """Of them, finished by an earlier run."""
    num_rows: int
    """Of the manifest."""
    status: Mapping[str, int]
    """Rows of the manifest by status."""
    errors: Mapping[str, int]
    """Rows of the manifest by error code."""
    fingerprint: str
    """Of the stage: code, configuration, models."""
    seconds: float
    """Wall clock of this run."""
    model_seconds: float
    """Spent inside the stage by all workers of this run; the rest is orchestration (and start-up)."""
    statistics: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def num_done(self) -> int:
        """Rows that later stages use."""
        return self.status.get(DONE, 0)

    @property
    def num_failed(self) -> int:
        """Rows that say why there is no result."""
        return self.num_rows - self.num_done


def run_stage(
    stage: Stage,
    requests: Requests,
    run_store: Store,
    executor_options: ExecutorConfig,
    progress: OnProgress | None = None,
    input_options: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    begun_at: float | None = None,
) -> StageSummary:
    """Bring the manifest of a stage in line with what is requested, computing only what is not there yet.

    Args:
        stage: built, not set up.
        requests: what the stage is asked for; their order becomes the manifest's.
        run_store: the run folder.
        executor_options: where and how to compute.
        progress: called in this thread after every batch, and once at the start.
        input_options: fsspec options of the users' own files; those of the run folder by default.
        executor: built from the options, to share between stages; by default one for this stage alone.
        begun_at: when the invocation began, in seconds since 1970; by default now. Files without a row that are newer
            are not deleted.

    Returns:
        Counts and times.

    Raises:
        RunError: the run was aborted (storage, weights, workers that keep dying); finished rows are kept.
        RunInterruptedError: it was asked to stop; finished rows are kept.
    """
    begun, begun_at = time.monotonic(), time.time() if begun_at is None else begun_at
    options = run_store.options if input_options is None else input_options
    limits = JournalLimits(rows=executor_options.shard_rows, seconds=executor_options.shard_seconds)
    task = WorkerTask.of(stage, run_store, requests, options, limits)
    keys = [(item.source_id, row_fingerprint(task.stage_fingerprint, item.fingerprint)) for item in requests.items]
    _check_unique(stage, keys)
    remaining = find_remaining(run_store, task.schema, stage.name, requests.items, keys, executor_options.retry_failed)
    left = remaining.items
    tally = Tally(stage.name, len(keys), len(keys) - len(left), begun, progress)
    if left:
        _log.info("%s: %d of %d records to compute", stage.name, len(left), len(keys))
        size = executor_options.batch_size or max(1, stage.batch_size)
        batches = [Batch(tuple(left[start : start + size])) for start in range(0, len(left), size)]
        _execute(executor, executor_options, task, batches, tally)
    statistics = (
        read_statistics(run_store, stage.name)
        if remaining.is_compact and not left
        else compact(run_store, stage.name, task.schema, keys, begun_at, remaining.findings)
    )
    return tally.summary(task.stage_fingerprint, statistics)


def _execute(
    shared: Executor | None, options: ExecutorConfig, task: WorkerTask, batches: Sequence[Batch], tally: Tally
) -> None:
    stop = StopSignal()
    executor = build_executor(options) if shared is None else shared
    try:
        with stop.listening():
            executor.run(task, batches, tally.add, stop)
        # A request that came with the last batch must not be lost: the next stage would not know of it.
        stop.check()
    finally:
        if shared is None:
            executor.close()


def _check_unique(stage: Stage, keys: Sequence[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for source_id, _ in keys:
        if source_id in seen:
            raise ConfigError(
                f"stage {stage.name} is asked for {source_id} twice: {stage.source_id_column} must be unique"
            )
        seen.add(source_id)


class Tally:
    """Counts reports and tells them on."""

    def __init__(self, stage: str, total: int, reused: int, begun: float, progress: OnProgress | None) -> None:
        self._stage, self._total, self._reused = stage, total, reused
        self._begun = begun
        self._progress = progress
        self._done = self._failed = self._num_first = 0
        self._first_at: float | None = None
        self._model_seconds = 0.0
        self._tell()

    def add(self, report: BatchReport) -> None:
        """Count a finished batch."""
        if self._first_at is None:
            # Starting workers and loading models is not part of the rate.
            self._first_at, self._num_first = time.monotonic(), report.num_done + report.num_failed
        self._done += report.num_done
        self._failed += report.num_failed
        self._model_seconds += report.seconds
        self._tell()

    def summary(self, fingerprint: str, statistics: Mapping[str, Any]) -> StageSummary:
        """Of the finished stage."""
        return StageSummary(
            stage=self._stage,
            num_records=self._total,
            num_reused=self._reused,
            num_rows=statistics["num_rows"],
            status=statistics["status"],
            errors=statistics["errors"],
            fingerprint=fingerprint,
            seconds=time.monotonic() - self._begun,
            model_seconds=self._model_seconds,
            statistics=statistics,
        )

    def _tell(self) -> None:
        if self._progress is None:
            return
        now = time.monotonic()
        elapsed = now - self._first_at if self._first_at is not None else 0.0
        rate = (self._done + self._failed - self._num_first) / elapsed if elapsed > 0 else 0.0
        self._progress(
            Progress(self._stage, self._total, self._reused, self._done, self._failed, now - self._begun, rate)
        )
