"""Executors: run batches of a stage on workers, in this process (`local`) or on a pool of Ray actors (`ray`)."""

from __future__ import annotations

import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import torch

from galatea.errors import ConfigError, GalateaError
from pipeline.failures import BrokenDeviceError
from pipeline.settings import ExecutorConfig
from pipeline.worker import Worker
from pipeline.worker_task import Batch, BatchReport, WorkerTask

_log = logging.getLogger(__name__)
OnReport = Callable[[BatchReport], None]


class RunInterruptedError(GalateaError):
    """The user or the system asked the run to stop; it resumes where it is."""

    code = "interrupted"


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

    def close(self) -> None:
        """End what is kept between stages."""


class LocalExecutor:
    """Runs in this process: no isolation, no start-up, the same worker code."""

    def __init__(self, options: ExecutorConfig) -> None:
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
        except BrokenDeviceError as error:
            raise BrokenDeviceError(
                f"{error}. What is finished is kept: run again to continue. "
                "Where it is one record that does this every time, executor=ray finds it and sets it aside"
            ) from error
        finally:
            worker.close()

    def close(self) -> None:
        """See Executor."""


class SharedExecutor:
    """One executor for several stages, built when the first of them has something to compute."""

    def __init__(self, options: ExecutorConfig) -> None:
        self._options = options
        self._executor: Executor | None = None

    def run(self, task: WorkerTask, batches: Sequence[Batch], on_report: OnReport, stop: StopSignal) -> None:
        """See Executor."""
        if self._executor is None:
            self._executor = build_executor(self._options)
        self._executor.run(task, batches, on_report, stop)

    def close(self) -> None:
        """See Executor."""
        if self._executor is not None:
            self._executor.close()


def build_executor(options: ExecutorConfig) -> Executor:
    """The executor that the options name. Ray is imported only where it is used: that takes seconds."""
    if options.kind == "local":
        return LocalExecutor(options)
    from pipeline.ray_pool import RayExecutor

    executor: Executor = RayExecutor(options)
    return executor


def worker_name(kind: str) -> str:
    """A unique name that sorts by time of birth."""
    return f"{time.time_ns():020d}-{kind}-{uuid.uuid4().hex[:6]}"


def choose_device(device: str, is_gpu_granted: bool) -> torch.device:
    """The device that a worker computes on.

    Raises:
        ConfigError: cuda was asked for and is not there.
    """
    has_cuda = torch.cuda.is_available()
    if device.startswith("cuda") and not has_cuda:
        raise ConfigError(f"executor.device: {device} was asked for, but torch sees no CUDA device here")
    if device == "auto":
        device = "cuda" if has_cuda and is_gpu_granted else "cpu"
    return torch.device(device)
