"""One invocation: checks everything, runs the stages, records them, and writes the report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import galatea
from galatea.errors import ConfigError
from pipeline.aggregates import aggregate, distributions, done
from pipeline.config import Config, to_flat, to_updated_yaml, to_yaml
from pipeline.driver_names import driver_specs
from pipeline.executor import RunInterruptedError
from pipeline.inputs import absolute
from pipeline.report.source import StoredRun
from pipeline.report.write import REPORT_FILE, has_current_results, write_results
from pipeline.run import RunPlan, check_drivers, run, run_one
from pipeline.run_lock import locked
from pipeline.run_stage import OnProgress, Progress, StageSummary
from pipeline.stage_catalogue import STAGES, build_stage
from pipeline.storage import Store
from pipeline.tracking import RunFacts, RunRecord, Tracker, open_tracker
from stages.base import Stage

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Order:
    """What one invocation is to do."""

    inputs: tuple[str, ...]
    """Empty: the photos that the run folder knows already."""
    out: str
    config: Config
    stages: tuple[str, ...] = STAGES


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    stages: Mapping[str, StageSummary]
    report: str
    """Where the page is; "" where only some stages ran."""
    tracked_at: str

    @property
    def num_computed(self) -> int:
        """Records that were not there already."""
        return sum(summary.num_records - summary.num_reused for summary in self.stages.values())


def carry_out(order: Order, progress: OnProgress, build: Callable[[str, Any], Stage] = build_stage) -> Outcome:
    """Run what was ordered.

    Args:
        order: what to do.
        progress: called after every batch.
        build: makes a stage from its name and configuration.

    Raises:
        ConfigError: configuration, inputs or drivers are wrong, or another run uses the folder; found before anything
            expensive.
        WeightsError: a model is not installed; found before anything expensive.
        TrackingError: the tracking server cannot be reached; found when ingest has something to do.
        RunError: the run was aborted; what is finished is kept.
        RunInterruptedError: it was asked to stop; what is finished is kept.
    """
    order = replace(order, out=absolute(order.out))
    plan = _plan(order, build)
    plan.run.check_writable()
    with locked(plan.run):
        return _carry_out(order, plan, progress)


def _carry_out(order: Order, plan: RunPlan, progress: OnProgress) -> Outcome:
    tracker = open_tracker(order.config.tracking, _facts(order))

    def watched(state: Progress) -> None:
        tracker.watch(state)
        progress(state)

    try:
        return _close(order, plan, tracker, _run(order, plan, tracker, watched))
    except (RunInterruptedError, KeyboardInterrupt):
        tracker.failed("KILLED")
        raise
    except BaseException:
        tracker.failed("FAILED")
        raise


def _plan(order: Order, build: Callable[[str, Any], Stage]) -> RunPlan:
    stages = [build(name, order.config.stages[name]) for name in order.stages if name in STAGES]
    for stage in stages:
        stage.models()
    drivers = driver_specs(order.config.drivers, order.config.storage.options)
    if "drive" in order.stages and not drivers:
        raise ConfigError("drivers: expected at least one, such as drivers=[smile,turn].")
    store = Store(order.out, order.config.storage.options)
    return RunPlan(order.inputs, store, stages, drivers, order.config.executor, order.config.storage)


def _run(order: Order, plan: RunPlan, tracker: Tracker, progress: OnProgress) -> dict[str, StageSummary]:
    summaries: dict[str, StageSummary] = {}
    models = {stage.name: _models(stage) for stage in plan.stages}

    def note(summary: StageSummary) -> None:
        summaries[summary.stage] = summary
        if summary.stage == "ingest":
            write_config()
        tracker.stage_finished(summary, models.get(summary.stage, []))

    def write_config() -> None:
        plan.run.write(CONFIG_FILE, _configuration(order, plan.run).encode())

    begun_at = time.time()
    if order.inputs:
        # After ingest: a run that is refused must not leave its configuration beside the results of another.
        run(plan, progress, note)
    else:
        check_drivers(plan)
        write_config()
        for stage in plan.stages:
            note(run_one(plan, stage, progress, begun_at=begun_at))
    return summaries


def _close(order: Order, plan: RunPlan, tracker: Tracker, summaries: Mapping[str, StageSummary]) -> Outcome:
    is_whole = order.stages == STAGES
    if is_whole and not has_current_results(plan.run, order.config):
        write_results(plan.run, order.config)
    record = _record(order, plan.run, is_whole) if tracker.is_recording else RunRecord()
    return Outcome(summaries, plan.run.locate(REPORT_FILE) if is_whole else "", tracker.finished(record))


def _record(order: Order, store: Store, is_whole: bool) -> RunRecord:
    source = StoredRun(store)
    recorded = store.read(CONFIG_FILE).decode()
    texts = {CONFIG_FILE: recorded, "distributions.json": json.dumps(distributions(source), indent=1)}
    if is_whole:
        texts[REPORT_FILE] = store.read(REPORT_FILE).decode()
    made = done(source, "animate", ["clip_id", "clip"]).drop_null()
    step = max(1, made.num_rows // max(1, order.config.tracking.num_sample_clips))
    samples = made.take(list(range(0, made.num_rows, step))[: order.config.tracking.num_sample_clips])
    clips = {f"clips/{row['clip_id']}.mp4": store.read(row["clip"]) for row in samples.to_pylist()}
    return RunRecord(aggregate(source), texts, clips)


def _configuration(order: Order, store: Store) -> str:
    if order.stages == STAGES or not store.exists(CONFIG_FILE):
        return to_yaml(order.config)
    return to_updated_yaml(order.config, order.stages, store.read(CONFIG_FILE).decode())


def _facts(order: Order) -> RunFacts:
    name = order.out.rstrip("/").rpartition("/")[2] or "run"
    tags = {
        "galatea.version": galatea.__version__,
        "galatea.run_folder": order.out,
        "galatea.python": platform.python_version(),
    }
    return RunFacts(name, to_flat(order.config), tags)


def _models(stage: Stage) -> list[dict[str, Any]]:
    return [asdict(model) for model in stage.models()]
