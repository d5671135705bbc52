"""A disk that fills up in mid-run: a clear end, nothing damaged, and the run goes on once there is room."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.journal import read_keys, shard_paths
from pipeline.manifest import read_rows
from pipeline.run_stage import StageSummary, run_stage
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from pipeline.storage_errors import FullDiskError
from tests.pipeline.small_stages import NumberConfig, NumberStage, number_requests

NAMES = [f"n{number:02d}" for number in range(16)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run_numbers(folder: Path, names: list[str]) -> StageSummary:
    requests = number_requests(names)
    stage = NumberStage(NumberConfig(batch_size=2))
    return run_stage(stage, requests, Store(str(folder)), ExecutorConfig(kind="local"))


def test_a_disk_that_fills_up_stops_the_run_and_damages_nothing(small_disk: Path) -> None:
    store = Store(str(small_disk))
    run_numbers(small_disk, NAMES[:4])
    before = {entry.path: store.read(entry.path) for entry in store.files()}
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    ballast.write_bytes(b"x" * (free - (24 << 10)))

    with pytest.raises(FullDiskError, match=r"no space is left.*free some space and run again to continue"):
        run_numbers(small_disk, NAMES)

    assert {path: store.read(path) for path in before} == before
    assert [row["number_id"] for row in read_rows(store, "number")] == NAMES[:4]
    assert not list(small_disk.rglob(".*.tmp"))
    finished = {
        name for path in shard_paths(store, "number") for name in read_keys(store, path)["source_id"].to_pylist()
    }

    ballast.unlink()
    summary = run_numbers(small_disk, NAMES)

    assert summary.num_reused == 4 + len(finished)
    assert summary.status == {"done": 16}
    assert [row["number_id"] for row in read_rows(store, "number")] == NAMES
