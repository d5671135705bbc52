from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from pipeline.failures import BrokenDeviceError, UnexpectedFailuresError
from pipeline.manifest import read_rows
from pipeline.run_stage import StageSummary, run_stage
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from stages.base import Record
from tests.pipeline.small_stages import BreakingStage, NumberConfig, NumberStage, number_requests

NAMES = [f"n{number}" for number in range(9)]
CRASHES = [f"crash{number}" for number in range(40)]
SINGLY = NumberConfig(batch_size=1)


@pytest.fixture
def whole_device() -> Iterator[None]:
    yield
    BreakingStage.is_broken = False


def run_numbers(store: Store, names: Sequence[str], stage: NumberStage, **settings: object) -> StageSummary:
    executor = ExecutorConfig(**{"kind": "local", **settings})  # type: ignore[arg-type]
    return run_stage(stage, number_requests(names), store, executor)


@pytest.mark.usefixtures("whole_device")
def test_an_accelerator_that_a_record_broke_ends_the_run_and_blames_no_record(store: Store) -> None:
    names = [*NAMES[:5], "breaking", *NAMES[5:]]

    with pytest.raises(BrokenDeviceError, match=r"assert triggered\. What is finished is kept.*executor=ray"):
        run_numbers(store, names, BreakingStage(SINGLY))
    BreakingStage.is_broken = False

    summary = run_numbers(store, NAMES, BreakingStage(SINGLY))
    assert (summary.num_reused, summary.status) == (5, {"done": 9})


def test_on_ray_the_record_that_breaks_the_accelerator_is_found(ray_address: str, tmp_path: Path) -> None:
    names = [*NAMES[:5], "breaking", *NAMES[5:]]
    store = Store(str(tmp_path))

    summary = run_numbers(store, names, BreakingStage(NumberConfig()), kind="ray")

    assert summary.status == {"done": 9, "quarantined": 1}
    [row] = [row for row in read_rows(store, "number") if row["status"] == "quarantined"]
    assert row["source_id"] == "breaking"
    assert row["error_message"].endswith("cannot use it any more: CUDA error: device-side assert triggered")


def test_an_accelerator_whose_memory_is_full_is_not_broken(store: Store) -> None:
    class CrampedStage(NumberStage):
        def process(self, batch: Sequence[Record]) -> list[list[Record]]:
            if len(batch) > 2:
                raise torch.AcceleratorError("CUDA error: out of memory")
            return super().process(batch)

    assert run_numbers(store, NAMES, CrampedStage(NumberConfig(batch_size=8))).status == {"done": 9}


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_many_unexpected_failures_in_a_row_end_the_run(store: Store, batch_size: int) -> None:
    with pytest.raises(UnexpectedFailuresError, match=r"32 records in a row .* crash31: Zero.*retry_failed"):
        run_numbers(store, [*NAMES, *CRASHES], NumberStage(NumberConfig(batch_size=batch_size)))


def test_failures_among_records_that_are_done_are_theirs(store: Store) -> None:
    names = [name for pair in zip(CRASHES, (f"n{number}" for number in range(40)), strict=True) for name in pair]

    assert run_numbers(store, names, NumberStage(SINGLY)).errors == {"unexpected": 40}


def test_on_ray_many_unexpected_failures_in_a_row_end_the_run_too(ray_address: str, tmp_path: Path) -> None:
    with pytest.raises(UnexpectedFailuresError, match="32 records in a row"):
        run_numbers(Store(str(tmp_path)), CRASHES, NumberStage(SINGLY), kind="ray", num_actors=1)
