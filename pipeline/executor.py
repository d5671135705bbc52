"""Executors: run batches of a stage on workers, in this process (`local`) or on a pool of Ray actors (`ray`)."""

from __future__ import annotations

import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

import torch

from galatea.errors import ConfigError, GalateaError
from pipeline.journal import JournalLimits
from pipeline.worker import Batch, BatchReport, Worker, WorkerTask

_log = logging.getLogger(__name__)
OnReport = Callable[[BatchReport], None]


class RunInterruptedError(GalateaError):
    """The user or the system asked the run to stop; it resumes where it is."""

    code = "interrupted"


@dataclass(frozen=True)
class ExecutorOptions:
    """Where and how stages run."""

    kind: str = "local"
    """`local`: in this process. `ray`: on a pool of Ray actors."""
    num_workers: int = 0
    """Ray actors of a stage; 0 = as many as the cluster's CPUs and GPUs take."""
    address: str = ""
    """Of a running Ray cluster (`auto`, `ray://host:10001`); empty = start one on this machine."""
    num_cpus: int = 0
    """CPUs of the Ray that is started on this machine; 0 = all."""
    batches_in_flight: int = 2
    """Batches that an actor has at most: one to compute and the rest to read ahead."""
    max_restarts: int = 64
    """Dead workers of a stage after which the run is given up."""
    grace_seconds: float = 20.0
    """How long batches in flight may take to finish after a request to stop."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    retry_failed: bool = False
    """Compute failed and quarantined records again, although nothing that they depend on changed."""
    journal: JournalLimits = field(default_factory=JournalLimits)

    def __post_init__(self) -> None:
        if self.kind not in {"local", "ray"}:
            raise ConfigError(f"executor.kind: expected local or ray, got {self.kind!r}")
        if self.device not in {"auto", "cpu", "cuda"}:
            raise ConfigError(f"executor.device: expected auto, cpu or cuda, got {self.device!r}")
        for name, least in (("num_workers", 0), ("num_cpus", 0), ("batches_in_flight", 1), ("max_restarts", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"executor.{name}: expected at least {least}, got {getattr(self, name)}")


class StopSignal:
    """Set by the first Ctrl-C or SIGTERM: nothing new is begun. The second one interrupts at once."""

    def __init__(self) -> None:
        self._name = ""
        self._at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return bool(self._name)

    @property
    def seconds_since(self) -> float:
        """Since the request to stop."""
        return time.monotonic() - self._at if self._name else 0.0

    def set(self, name: str) -> None:
        """Ask to stop."""
        self._name, self._at = name, time.monotonic()

    def check(self) -> None:
        """Raise RunInterruptedError when the run was asked to stop."""
        if self._name:
            raise RunInterruptedError(f"stopped by {self._name}; run the same command again to continue")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM inside the block (in the main thread; elsewhere there are no signals)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.is_set:
                raise KeyboardInterrupt
            self.set(signal.Signals(number).name)

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Executor(Protocol):
    """Runs batches; every finished one is durable before it is reported."""

    def run(self, task: WorkerTask, batches: Sequence[Batch], on_report: OnReport, stop: StopSignal) -> None:
        """Run all batches.

        Raises:
            RunError: the run was aborted; what was reported is kept.
            RunInterruptedError: it was asked to stop.
        """


class LocalExecutor:
    """Runs in this process: no isolation, no start-up, the same worker code."""

    def __init__(self, options: ExecutorOptions) -> None:
        self._options = options

    def run(self, task: WorkerTask, batches: Sequence[Batch], on_report: OnReport, stop: StopSignal) -> None:
        """See Executor."""
        worker = Worker(task, worker_name("local"))
        try:
            worker.setup(choose_device(self._options.device, is_gpu_granted=True))
            for batch, following in zip(batches, [*batches[1:], None], strict=True):
                stop.check()
                worker.prefetch(batch)
                if following is not None:
                    worker.prefetch(following)
                on_report(worker.run(batch))
        finally:
            worker.close()


def build_executor(options: ExecutorOptions) -> Executor:
    """The executor that the options name. Ray is imported only where it is used: that takes seconds."""
    if options.kind == "local":
        return LocalExecutor(options)
    from pipeline.ray_pool import RayExecutor

    return RayExecutor(options)


def worker_name(kind: str) -> str:
    """A unique name that sorts by time of birth."""
    return f"{time.time_ns():020d}-{kind}-{uuid.uuid4().hex[:6]}"


def choose_device(device: str, is_gpu_granted: bool) -> torch.device:
    """The device that a worker computes on.

    Raises:
        ConfigError: cuda was asked for and is not there.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("executor.device: cuda was asked for, but torch sees no CUDA device here")
    if device == "auto":
        device = "cuda" if has_cuda and is_gpu_granted else "cpu"
    return torch.device(device)
