"""What is left of a run when its processes are killed, and that it resumes to what it would have been."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.deaths import WorkersDieError
from pipeline.executor import RunInterruptedError, SharedExecutor
from pipeline.journal import shard_paths
from pipeline.manifest import read_rows
from pipeline.run_stage import run_stage
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from stages.base import Record, Resources
from tests.chaos.driver import NAMES, run_numbers
from tests.pipeline.comparing import comparable_rows
from tests.pipeline.small_stages import NumberConfig, NumberStage, number_requests

RAY = ExecutorConfig(kind="ray")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("undisturbed"))
    run_numbers(folder, ExecutorConfig(kind="local"))
    return comparable_rows(Store(folder), "number")


def finished_names(store: Store) -> set[str]:
    from pipeline.journal import read_keys

    return {name for path in shard_paths(store, "number") for name in read_keys(store, path)["source_id"].to_pylist()}


def wait_for_rows(store: Store, at_least: int) -> None:
    deadline = time.monotonic() + 90
    while len(finished_names(store)) < at_least:
        assert time.monotonic() < deadline, "the run did not get anywhere"
        time.sleep(0.05)


def start_driver(folder: Path, ray_address: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.driver", str(folder), ray_address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_resumes_to_the_same_manifest(
    how: signal.Signals, ray_address: str, tmp_path: Path, undisturbed: list[dict]
) -> None:
    store = Store(str(tmp_path))
    driver = start_driver(tmp_path, ray_address)
    wait_for_rows(store, 4)
    driver.send_signal(how)
    output, _ = driver.communicate(timeout=60)
    finished = finished_names(store)
    assert 4 <= len(finished) < len(NAMES), output

    summary = run_numbers(str(tmp_path), RAY)

    assert summary.num_reused >= len(finished)
    assert comparable_rows(store, "number") == undisturbed
    assert shard_paths(store, "number") == []
    if how is signal.SIGTERM:
        assert "run the same command again to continue" in output


def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    ray_address: str, tmp_path: Path, undisturbed: list[dict]
) -> None:
    store = Store(str(tmp_path))
    killer = threading.Thread(target=kill_a_worker_after, args=(store, 4))
    killer.start()

    summary = run_numbers(str(tmp_path), RAY)
    killer.join()

    assert summary.status == {"done": 24, "failed": 1, "no_face": 1}
    assert comparable_rows(store, "number") == undisturbed


def kill_a_worker_after(store: Store, num_rows: int) -> None:
    wait_for_rows(store, num_rows)
    own = os.getpid()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != own:
            try:
                command = (process / "cmdline").read_bytes()
                is_ours = b"ray::StageActor" in command and is_descendant(int(process.name), own)
            except OSError:
                continue
            if is_ours:
                os.kill(int(process.name), signal.SIGKILL)
                return


def is_descendant(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


class MeetingStage(NumberStage):
    """Its workers leave their process ids in a folder, and wait until all have come."""

    resources = Resources(num_cpus=0.5)

    def __init__(self, folder: Path, num_workers: int) -> None:
        super().__init__(NumberConfig(batch_size=1))
        self._folder, self._num_workers = folder, num_workers
        folder.mkdir()

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        (self._folder / str(os.getpid())).touch()
        while len(list(self._folder.iterdir())) < self._num_workers:
            time.sleep(0.05)
        return super().process(batch)


def test_idle_workers_that_died_between_two_stages_are_replaced(ray_address: str, tmp_path: Path) -> None:
    options = ExecutorConfig(kind="ray", num_actors=4, max_in_flight=1)
    executor = SharedExecutor(options)
    stages = MeetingStage(tmp_path / "four", 4), MeetingStage(tmp_path / "one", 1)
    store = Store(str(tmp_path / "run"))
    run_stage(stages[0], number_requests(NAMES[:4]), store, options, executor=executor)
    for process in (tmp_path / "four").iterdir():
        os.kill(int(process.name), signal.SIGKILL)

    summary = run_stage(stages[1], number_requests(NAMES[4:5]), store, options, executor=executor)
    executor.close()

    assert summary.status == {"done": 1}


def test_records_that_kill_do_not_end_a_run_that_moves_on(ray_address: str, tmp_path: Path) -> None:
    executor = ExecutorConfig(kind="ray", num_actors=1, max_restarts=3)

    summary = run_numbers(str(tmp_path), executor, kills_on=("n05", "n15"), batch_size=1, seconds=0.0)

    assert summary.status == {"done": 22, "failed": 1, "no_face": 1, "quarantined": 2}


def test_a_record_that_kills_its_process_is_quarantined_and_the_others_are_done(
    ray_address: str, tmp_path: Path
) -> None:
    summary = run_numbers(str(tmp_path), RAY, kills_on=("n05",), batch_size=4)

    rows = {row["source_id"]: row for row in read_rows(Store(str(tmp_path)), "number")}
    assert [name for name, row in rows.items() if row["status"] == "quarantined"] == ["n05"]
    assert rows["n05"]["error_code"] == "killed_worker"
    assert rows["n05"]["number_id"] == "n05"
    assert summary.status == {"done": 23, "failed": 1, "no_face": 1, "quarantined": 1}


def test_a_stage_that_kills_every_worker_is_given_up(ray_address: str, tmp_path: Path) -> None:
    with pytest.raises(WorkersDieError, match="workers died"):
        run_numbers(
            str(tmp_path), ExecutorConfig(kind="ray", max_restarts=1, num_actors=1), kills_on=tuple(NAMES), batch_size=1
        )


def test_a_request_to_stop_in_this_process_keeps_what_is_finished(tmp_path: Path, undisturbed: list[dict]) -> None:
    store = Store(str(tmp_path))
    timer = threading.Thread(target=interrupt_after, args=(store, 6))
    timer.start()

    with pytest.raises(RunInterruptedError, match="SIGINT"):
        run_numbers(str(tmp_path), ExecutorConfig(kind="local"))
    timer.join()
    num_finished = len(finished_names(store))
    summary = run_numbers(str(tmp_path), ExecutorConfig(kind="local"))

    assert summary.num_reused == num_finished >= 6
    assert comparable_rows(store, "number") == undisturbed


def interrupt_after(store: Store, num_rows: int) -> None:
    wait_for_rows(store, num_rows)
    os.kill(os.getpid(), signal.SIGINT)
