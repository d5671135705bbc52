"""The Ray actors that stages run in, and what they may take of a cluster."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.metrics import Counter

from pipeline.executor import choose_device
from pipeline.failures import BrokenDeviceError
from pipeline.settings import ExecutorConfig
from pipeline.worker import Worker
from pipeline.worker_task import Batch, BatchReport, WorkerTask
from stages.base import Resources


class StageActor:
    """A process of its own for a worker. It serves one stage after the other, as starting a process takes seconds."""

    def __init__(self, resources: Resources, folder: str) -> None:
        """Take up threads and place.

        Args:
            resources: what it was granted.
            folder: where the user is: paths in the settings of a stage, which its fingerprint holds as they were
                typed, are relative to it.
        """
        with suppress(OSError):  # On another machine there may be no such folder, and need not be.
            os.chdir(folder)
        torch.set_num_threads(max(1, int(resources.num_cpus)))
        self._has_gpu = resources.num_gpus > 0
        self._worker: Worker
        self._failed: BrokenDeviceError | None = None
        self._stage = ""
        self._records = Counter("galatea_records", "Records that were computed.", ("stage", "result"))
        self._seconds = Counter("galatea_stage_seconds", "Seconds spent in stages.", ("stage",))

    def setup(self, task: WorkerTask, name: str, device: str) -> None:
        """Become the worker of a stage and load its models."""
        self._stage = task.stage.name
        self._worker = Worker(task, name)
        self._worker.setup(choose_device(device, is_gpu_granted=self._has_gpu))

    def release(self) -> None:
        """Forget the stage and its models."""
        self._worker.close()
        del self._worker
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def prefetch(self, batch: Batch) -> None:
        """Begin to read a batch while another one is computed."""
        self._worker.prefetch(batch)

    def run(self, batch: Batch) -> BatchReport:
        """Process a batch and publish its rows; none any more once the accelerator failed."""
        if self._failed is not None:
            raise self._failed
        try:
            report = self._worker.run(batch)
        except BrokenDeviceError as error:
            self._failed = error
            raise
        self._count(report)
        return report

    def _count(self, report: BatchReport) -> None:
        """Tell Ray's metrics, which Prometheus reads on every node, what has become of a batch."""
        for value, result in ((report.num_done, "done"), (report.num_failed, "failed")):
            if value:
                self._records.inc(value, {"stage": self._stage, "result": result})
        if report.seconds:
            self._seconds.inc(report.seconds, {"stage": self._stage})


class IdleActors:
    """Actors without a stage, all of the same resources."""

    def __init__(self) -> None:
        self._resources = Resources()
        self._actors: list[Any] = []

    def take(self, resources: Resources) -> tuple[Any, bool]:
        """An idle actor with these resources, or a new one; idle ones with others give theirs back.

        Returns:
            The actor, and whether it was idle; then it may have died meanwhile.
        """
        if self._resources != resources:
            self.clear()
            self._resources = resources
        if self._actors:
            return self._actors.pop(), True
        remote: Any = ray.remote  # Its annotations know no concurrency groups.
        actor_class = remote(
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"reading": 1},
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
        )(StageActor)
        return actor_class.remote(resources, str(Path.cwd())), False

    def give(self, actor: Any) -> None:
        """Take back an actor whose stage has ended well."""
        actor.release.remote()
        self._actors.append(actor)

    def clear(self) -> None:
        """End all idle actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


def granted_resources(wanted: Resources, cluster: Mapping[str, float], options: ExecutorConfig) -> Resources:
    """What an actor asks for: GPUs only where there are some, and no more CPUs than there are on a small machine."""
    use_gpu = options.device != "cpu" and cluster.get("GPU", 0) > 0
    num_cpus = min(wanted.num_cpus, cluster.get("CPU", wanted.num_cpus))
    return Resources(num_cpus=num_cpus, num_gpus=(options.gpus_per_actor or wanted.num_gpus) if use_gpu else 0.0)


def room_for(resources: Resources) -> str:
    """What an actor takes and what the cluster has of it, for people."""
    there: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    free: Mapping[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    parts = []
    for name, wanted in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus)):
        if wanted > 0:
            most = max((node.get(name, 0.0) for node in nodes), default=0.0)
            left = f"{free.get(name, 0.0):g} of {there.get(name, 0.0):g} are free"
            parts.append(f"{wanted:g} {name} ({left}, and no machine has more than {most:g})")
    return " and ".join(parts)


def num_actors_that_fit(resources: Resources, cluster: Mapping[str, float]) -> int:
    """How many actors the cluster has room for, one at least."""
    pairs = ((resources.num_cpus, cluster.get("CPU", 0)), (resources.num_gpus, cluster.get("GPU", 0)))
    return max(1, min((int(there / wanted) for wanted, there in pairs if wanted > 0), default=1))
