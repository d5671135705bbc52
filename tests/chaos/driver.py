"""A driver process for tests that kill it: `python -m tests.chaos.driver RUN_FOLDER RAY_ADDRESS`."""

from __future__ import annotations

import sys

from pipeline.run_stage import StageSummary, run_stage
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from tests.pipeline.small_stages import NumberConfig, NumberStage, number_requests

NAMES = [f"n{number:02d}" for number in range(24)] + ["bad0", "faceless0"]


def run_numbers(folder: str, executor: ExecutorConfig, **config: object) -> StageSummary:
    """Run the number stage on the names above; every record takes a little while."""
    settings = NumberConfig(**{"seconds": 0.1, "batch_size": 2, **config})  # type: ignore[arg-type]
    requests = number_requests(NAMES)
    return run_stage(NumberStage(settings), requests, Store(folder), executor, _print_progress)


def _print_progress(progress: object) -> None:
    print(progress, flush=True)


if __name__ == "__main__":
    run_numbers(sys.argv[1], ExecutorConfig(kind="ray", address=sys.argv[2]))
