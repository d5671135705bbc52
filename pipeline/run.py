"""The whole chain: ingest, then every stage on the manifests of those before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from galatea.errors import ConfigError
from pipeline.driving import DriverSpec, driver_requests
from pipeline.executor import Executor, SharedExecutor
from pipeline.ingest import ingest
from pipeline.plan import STEPS, plan_stage
from pipeline.pruning import refuse_lost_drivers, refuse_unwanted_clips
from pipeline.requests import Requests
from pipeline.run_stage import OnProgress, StageSummary, run_stage
from pipeline.settings import ExecutorConfig, StorageConfig
from pipeline.storage import Store
from stages.base import Stage

STAGE_ORDER = tuple(STEPS)
OnStage = Callable[[StageSummary], None]


@dataclass(frozen=True)
class RunPlan:
    """All that a run is made of, built and checked."""

    inputs: tuple[str, ...]
    """Folders, globs, bucket prefixes, photos, or lists of URIs."""
    run: Store
    """The run folder."""
    stages: Sequence[Stage]
    """Built, not set up; those of `STAGE_ORDER` that are to run."""
    drivers: tuple[DriverSpec, ...]
    executor: ExecutorConfig
    storage: StorageConfig

    def __post_init__(self) -> None:
        unknown = sorted({stage.name for stage in self.stages} - set(STAGE_ORDER))
        if unknown:
            raise ConfigError(f"stages: unknown {unknown}, expected some of {list(STAGE_ORDER)}")


@dataclass(frozen=True)
class RunResult:
    """What a run did, stage by stage."""

    stages: Mapping[str, StageSummary] = field(default_factory=dict)

    @property
    def num_computed(self) -> int:
        """Records that were not there already."""
        return sum(summary.num_records - summary.num_reused for summary in self.stages.values())


def run(plan: RunPlan, progress: OnProgress | None = None, on_stage: OnStage | None = None) -> RunResult:
    """Run ingest and the stages of a plan; what an earlier run finished is not computed again.

    Args:
        plan: what to run.
        progress: called after every batch of every stage.
        on_stage: called when a stage has its manifest.

    Returns:
        The summaries of all stages.

    Raises:
        ConfigError: results of photos or drivers, or clips, that are not asked for any more would be deleted
            (`storage.prune`).
        RunError: the run was aborted; finished rows are kept.
        RunInterruptedError: it was asked to stop; finished rows are kept.
    """
    begun_at = time.time()
    plan.run.check_writable()
    check_drivers(plan)
    check_clips(plan)
    summaries: dict[str, StageSummary] = {}

    def note(summary: StageSummary) -> None:
        summaries[summary.stage] = summary
        if on_stage is not None:
            on_stage(summary)

    note(ingest(plan.inputs, plan.run, plan.storage, progress))
    executor = SharedExecutor(plan.executor)
    try:
        for stage in sorted(plan.stages, key=lambda stage: STAGE_ORDER.index(stage.name)):
            note(run_one(plan, stage, progress, executor, begun_at))
    finally:
        executor.close()
    return RunResult(summaries)


def check_drivers(plan: RunPlan) -> None:
    """Stop before anything is computed where the run would delete the clips of drivers that it does not name.

    Raises:
        ConfigError: it would; see `storage.prune`.
    """
    if not plan.storage.prune and any(stage.name == "drive" for stage in plan.stages):
        refuse_lost_drivers(plan.run, plan.drivers, plan.storage.options)


def check_clips(plan: RunPlan) -> None:
    """Stop before anything is computed where the run would delete clips of edited portraits that it does not want.

    Raises:
        ConfigError: it would; see `storage.prune`.
    """
    for stage in plan.stages:
        if stage.name == "animate" and not plan.storage.prune:
            refuse_unwanted_clips(plan.run, stage)


def run_one(
    plan: RunPlan,
    stage: Stage,
    progress: OnProgress | None = None,
    executor: Executor | None = None,
    begun_at: float | None = None,
) -> StageSummary:
    """Run a single stage on the manifests that are there; see `run` for the errors.

    Args:
        plan: what to run.
        stage: one of its stages.
        progress: called after every batch.
        executor: shared with other stages; by default one for this stage alone.
        begun_at: when the invocation began, in seconds since 1970; by default now.
    """
    if stage.name == "drive":
        check_drivers(plan)
    if stage.name == "animate":
        check_clips(plan)
    requests = _requests(plan, stage)
    options = plan.storage.options
    return run_stage(stage, requests, plan.run, plan.executor, progress, options, executor, begun_at)


def _requests(plan: RunPlan, stage: Stage) -> Requests:
    if stage.name == "drive":
        return driver_requests(plan.drivers, plan.storage.options)
    return plan_stage(plan.run, stage)
