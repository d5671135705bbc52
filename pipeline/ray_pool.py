"""A pool of Ray actors: one actor is one loaded stage on its share of CPUs and GPUs.

Each actor has a bounded number of batches: one that it computes, the rest to read ahead. When an actor dies, the oldest
batch that it had not published is the suspect: it is run again alone, in halves, until the record that kills is
by itself; a record that kills its worker twice, once at least alone, is quarantined. Batches that were only queued
there go back into the queue.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

from galatea.errors import ConfigError, RunError
from pipeline.deaths import DeathToll
from pipeline.executor import OnReport, StopSignal, worker_name
from pipeline.failures import BrokenDeviceError
from pipeline.journal import read_keys, shard_paths
from pipeline.manifest import DONE
from pipeline.ray_actors import IdleActors, granted_resources, num_actors_that_fit, room_for
from pipeline.settings import ExecutorConfig
from pipeline.worker import Worker
from pipeline.worker_task import Batch, BatchReport, WorkerTask

_log = logging.getLogger(__name__)
_DEATHS = (RayActorError, WorkerCrashedError, OutOfMemoryError)
_WAIT_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0
_REMIND_SECONDS = 300.0
_OBJECT_STORE_BYTES = 256 << 20
"""Of the Ray that is started here: requests and reports are small, records never pass through it."""
_DEATHS_TO_QUARANTINE = 2


@dataclass
class _Slot:
    """An actor and what it is busy with."""

    name: str
    actor: Any
    placed_ref: Any
    setup_ref: Any
    era: int
    """Of the death toll."""
    is_reused: bool = False
    """Served an earlier stage, and may have died since."""
    is_ready: bool = False
    is_isolated: bool = False
    """Runs a suspect, alone."""
    in_flight: dict[Any, Batch] = field(default_factory=dict)

    @property
    def refs(self) -> list[Any]:
        """What to wait for."""
        return list(self.in_flight) if self.is_ready else [self.setup_ref]


class RayExecutor:
    """Runs batches on a pool of actors; idle ones are kept for the next stage of the same resources."""

    def __init__(self, options: ExecutorConfig, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Start nothing yet.

        Args:
            options: where and how.
            patience_seconds: how long no actor has a place in the cluster before the user is told.
        """
        self._options = options
        self._patience_seconds = patience_seconds
        self._idle = IdleActors()

    def run(self, task: WorkerTask, batches: Sequence[Batch], on_report: OnReport, stop: StopSignal) -> None:
        """See Executor."""
        start_ray(self._options)
        pool = _Pool(self._options, task, batches, on_report, self._idle, self._patience_seconds)
        try:
            pool.run(stop)
        finally:
            pool.close()

    def close(self) -> None:
        """See Executor."""
        self._idle.clear()


def start_ray(options: ExecutorConfig) -> None:
    """Join the cluster of the options, or start Ray on this machine; nothing where Ray runs in this process already.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        cpus = {"num_cpus": options.num_cpus} if options.num_cpus else {}
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, **cpus}
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **settings)
    except ConnectionError as error:
        raise ConfigError(f"executor.address: no Ray cluster answers at {address}: {error}") from error
    if is_main:
        # Ray puts in its own, which ends the process at once; ours lets batches in flight finish.
        signal.signal(signal.SIGTERM, handler)


class _Pool:
    """The actors of one stage, and the batches that wait for them."""

    def __init__(
        self,
        options: ExecutorConfig,
        task: WorkerTask,
        batches: Sequence[Batch],
        on_report: OnReport,
        idle: IdleActors,
        patience_seconds: float,
    ) -> None:
        self._options = options
        self._task = task
        self._on_report = on_report
        self._idle = idle
        self._patience_seconds = patience_seconds
        self._warn_at = time.monotonic() + patience_seconds
        self._queue: deque[Batch] = deque(batches)
        self._suspects: deque[Batch] = deque()
        self._toll = DeathToll(task.stage.name, options.max_restarts)
        cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self._resources = granted_resources(task.stage.resources, cluster, options)
        self._task_ref = ray.put(task)
        self._recorder = Worker(task, worker_name("driver"))
        size = min(len(batches), options.num_actors or num_actors_that_fit(self._resources, cluster))
        self._slots = [self._new_slot() for _ in range(size)]

    def run(self, stop: StopSignal) -> None:
        """Run until nothing is left."""
        while self._queue or self._suspects or any(slot.in_flight for slot in self._slots):
            if stop.is_set:
                is_idle = not any(slot.in_flight for slot in self._slots)
                if is_idle or stop.seconds_since > self._options.grace_seconds:
                    stop.check()
            else:
                self._feed()
            refs = {ref: slot for slot in self._slots for ref in slot.refs}
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=_WAIT_SECONDS)
            for ref in ready:
                self._handle(refs[ref], ref)
            self._warn_without_room()

    def close(self) -> None:
        """Give back idle actors; end those that are still busy because the run was stopped or aborted."""
        for slot in self._slots:
            if slot.is_ready and not slot.in_flight:
                self._idle.give(slot.actor)
            else:
                ray.kill(slot.actor)
        self._slots = []
        self._recorder.close()

    def _new_slot(self) -> _Slot:
        name = worker_name("ray")
        actor, is_reused = self._idle.take(self._resources)
        placed_ref = actor.__ray_ready__.remote()
        setup_ref = actor.setup.remote(self._task_ref, name, self._options.device)
        return _Slot(name, actor, placed_ref, setup_ref, self._toll.era, is_reused)

    def _warn_without_room(self) -> None:
        """Tell the user from time to time that no actor has a place, which may be so for ever."""
        now = time.monotonic()
        if any(slot.is_ready for slot in self._slots):
            self._warn_at = now + self._patience_seconds
        if now < self._warn_at or not self._slots:
            return
        placed, _ = ray.wait([slot.placed_ref for slot in self._slots], num_returns=1, timeout=0)
        self._warn_at = now + (self._patience_seconds if placed else _REMIND_SECONDS)
        if not placed:
            _log.warning(
                "stage %s: the Ray cluster has no room for a worker, which takes %s; waiting until it has. See "
                "executor.gpus_per_actor, and who else uses the cluster",
                self._task.stage.name,
                room_for(self._resources),
            )

    def _feed(self) -> None:
        for slot in self._slots:
            if not slot.is_ready or slot.is_isolated:
                continue
            if self._suspects and not slot.in_flight:
                slot.is_isolated = True
                self._submit(slot, self._suspects.popleft())
                continue
            while self._queue and len(slot.in_flight) < self._options.max_in_flight:
                self._submit(slot, self._queue.popleft())

    def _submit(self, slot: _Slot, batch: Batch) -> None:
        if slot.in_flight:
            slot.actor.prefetch.options(concurrency_group="reading").remote(batch)
        slot.in_flight[slot.actor.run.remote(batch)] = batch

    def _handle(self, slot: _Slot, ref: Any) -> None:
        """Take the answer of an actor, or see that there will be none."""
        if slot not in self._slots or ref not in slot.refs:
            return  # The actor was replaced a moment ago.
        try:
            report = ray.get(ref)
        except _DEATHS as error:
            self._replace(slot, error)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, BrokenDeviceError):
                self._replace(slot, cause)
                return
            if isinstance(cause, RunError):
                raise cause from error
            raise RunError(f"stage {self._task.stage.name}: a worker failed unexpectedly: {error}") from error
        else:
            if slot.is_ready:
                del slot.in_flight[ref]
                slot.is_isolated = False
                self._report(report)
            else:
                slot.is_ready = True
                self._toll.worker_ready()

    def _report(self, report: BatchReport) -> None:
        self._toll.batch_finished()
        self._on_report(report)

    def _replace(self, slot: _Slot, error: Exception) -> None:
        """Put a new actor in the place of a dead one, and find out about its batches."""
        cause = _cause_of_death(error)
        _log.warning("stage %s: a worker died: %s", self._task.stage.name, cause)
        ray.kill(slot.actor)
        is_preempted = bool(getattr(error, "preempted", False))
        self._blame(slot, cause, is_innocent=is_preempted)
        was_idle = slot.is_reused and not slot.is_ready
        if not is_preempted and not was_idle:
            self._toll.worker_died(slot.era, slot.is_ready, cause)
        self._slots.remove(slot)
        if self._queue or self._suspects:
            self._slots.append(self._new_slot())

    def _blame(self, slot: _Slot, cause: str, is_innocent: bool) -> None:
        waiting = self._without_published(slot)
        if waiting and not is_innocent:
            suspect = waiting.pop(0)
            self._isolate(Batch(suspect.items, suspect.num_deaths + 1), slot.is_isolated, cause)
        self._queue.extendleft(reversed(waiting))

    def _isolate(self, suspect: Batch, was_alone: bool, cause: str) -> None:
        if len(suspect.items) > 1:
            self._suspects.extendleft(reversed(suspect.halves()))
        elif was_alone and suspect.num_deaths >= _DEATHS_TO_QUARANTINE:
            _log.warning("quarantined %s: %s", suspect.items[0].source_id, cause)
            self._on_report(self._recorder.quarantine(suspect, cause))
        else:
            self._suspects.appendleft(suspect)

    def _without_published(self, slot: _Slot) -> list[Batch]:
        """The batches of a dead actor that are not in its journal; those that are there are reported."""
        status: dict[str, str] = {}
        for path in shard_paths(self._task.run, self._task.stage.name, slot.name):
            keys = read_keys(self._task.run, path)
            status |= zip(keys["source_id"].to_pylist(), keys["status"].to_pylist(), strict=True)
        waiting = []
        for batch in slot.in_flight.values():
            found = [status[item.source_id] for item in batch.items if item.source_id in status]
            if len(found) < len(batch.items):
                waiting.append(batch)
            else:
                num_done = found.count(DONE)
                self._report(BatchReport(num_done, len(found) - num_done, 0.0))
        return waiting


def _cause_of_death(error: Exception) -> str:
    """The telling part of Ray's long explanation."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2] or text
    return detail.partition(" Some common causes")[0][:300]
