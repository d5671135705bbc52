import threading
import time
from pathlib import Path

import pytest
import ray
import torch

from galatea.errors import ConfigError, WeightsError
from pipeline.manifest import read_rows
from pipeline.ray_actors import granted_resources, num_actors_that_fit
from pipeline.ray_pool import RayExecutor
from pipeline.run import run
from pipeline.run_stage import run_stage
from pipeline.settings import ExecutorConfig
from pipeline.stage_catalogue import STAGES, build_stage, config_classes
from pipeline.storage import Store
from stages.base import Resources
from tests.pipeline.comparing import comparable_rows
from tests.pipeline.small_chain import CHAIN, plan_chain, write_photos
from tests.pipeline.small_stages import NumberConfig, NumberStage, UnfitStage, number_requests

RAY = ExecutorConfig(kind="ray")
NAMES = [*(f"n{number}" for number in range(9)), "bad1", "faceless2", "crash3", "huge4", "misshapen5"]


def test_the_whole_chain_makes_the_same_rows_on_ray_as_in_this_process(ray_address: str, tmp_path: Path) -> None:
    photos = str(write_photos(tmp_path / "photos"))
    stores = {kind: Store(str(tmp_path / kind)) for kind in ("local", "ray")}

    for kind, store in stores.items():
        run(plan_chain([photos], store, executor=ExecutorConfig(kind=kind)))

    for name in (make.name for make in CHAIN):
        assert comparable_rows(stores["ray"], name) == comparable_rows(stores["local"], name)


def test_every_way_to_fail_ends_as_the_same_row_on_ray_as_in_this_process(ray_address: str, tmp_path: Path) -> None:
    stores = {kind: Store(str(tmp_path / kind)) for kind in ("local", "ray")}

    for kind, store in stores.items():
        requests = number_requests(NAMES)
        run_stage(NumberStage(NumberConfig(max_batch=3)), requests, store, ExecutorConfig(kind=kind))

    assert comparable_rows(stores["ray"], "number") == comparable_rows(stores["local"], "number")
    assert [row["error_code"] for row in read_rows(stores["ray"], "number")][9:] == [
        "bad_input",
        "no_face",
        "unexpected",
        "out_of_memory",
        "bad_output",
    ]


def test_an_error_that_stops_the_run_crosses_the_process_border_as_itself(ray_address: str, tmp_path: Path) -> None:
    requests = number_requests(NAMES)

    with pytest.raises(WeightsError, match=r"weights are damaged \(in process"):
        run_stage(UnfitStage(NumberConfig()), requests, Store(str(tmp_path)), RAY)


class FileStage(NumberStage):
    """Reads a file that the user named when it is set up."""

    def setup(self, device: torch.device) -> None:
        if Path("weights/factor.txt").read_text() != "2.0":
            raise WeightsError("weights/factor.txt is not the user's")
        super().setup(device)


def test_paths_are_relative_to_where_the_user_is_and_not_to_where_ray_was_started(
    ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "factor.txt").write_text("2.0")
    monkeypatch.chdir(tmp_path)

    summary = run_stage(FileStage(NumberConfig()), number_requests(["a", "b"]), Store("runs/tonight"), RAY)

    assert summary.status == {"done": 2}
    assert (tmp_path / "runs" / "tonight" / "number" / "manifest.parquet").is_file()


class Neighbour:
    """Somebody else on the cluster."""


def test_a_cluster_without_room_is_told_and_waited_for(
    ray_address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    neighbour = ray.remote(num_cpus=2)(Neighbour).remote()
    ray.get(neighbour.__ray_ready__.remote())

    def leave_when_told() -> None:
        deadline = time.monotonic() + 30
        while "has no room" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.1)
        ray.kill(neighbour)

    leaving = threading.Thread(target=leave_when_told)
    leaving.start()
    executor = RayExecutor(RAY, patience_seconds=0.5)
    requests, store = number_requests(["a"]), Store(str(tmp_path))
    summary = run_stage(NumberStage(NumberConfig()), requests, store, RAY, executor=executor)
    executor.close()
    leaving.join()

    assert summary.status == {"done": 1}
    assert "stage number: the Ray cluster has no room for a worker, which takes 1 CPU (0 of 2 are free" in caplog.text


def test_gpus_are_asked_for_only_where_there_are_some() -> None:
    wanted = Resources(num_cpus=4, num_gpus=0.5)

    auto, cpu, quarter = ExecutorConfig(), ExecutorConfig(device="cpu"), ExecutorConfig(gpus_per_actor=0.25)
    assert granted_resources(wanted, {"CPU": 2}, auto) == Resources(2, 0)
    assert granted_resources(wanted, {"CPU": 8, "GPU": 1}, auto) == Resources(4, 0.5)
    assert granted_resources(wanted, {"CPU": 8, "GPU": 1}, quarter) == Resources(4, 0.25)
    assert granted_resources(wanted, {"CPU": 8, "GPU": 1}, cpu) == Resources(4, 0)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_gets_a_share_of_a_gpu(name: str) -> None:
    stage = build_stage(name, config_classes()[name]())

    assert granted_resources(stage.resources, {"CPU": 8, "GPU": 1}, ExecutorConfig()).num_gpus == 0.5


def test_a_pool_has_as_many_actors_as_the_scarcest_resource_allows() -> None:
    assert num_actors_that_fit(Resources(1, 0), {"CPU": 2}) == 2
    assert num_actors_that_fit(Resources(1, 0.5), {"CPU": 16, "GPU": 2}) == 4
    assert num_actors_that_fit(Resources(8, 0), {"CPU": 2}) == 1


def test_wrong_settings_name_their_field() -> None:
    with pytest.raises(ConfigError, match=r"executor\.kind"):
        ExecutorConfig(kind="spark")
