"""Shards: complete, described, published in one step, resumed where they stopped."""

import json
from pathlib import Path

import numpy as np
import pytest

from galatea.errors import ConfigError
from galatea.morphable.cache import HEAD_VERSION
from training.heads.render import main
from training.heads.shards import ShardPlan, read_shard


def arguments(assets: Path, out: Path, count: int) -> list[str]:
    return f"--assets {assets} --out {out} --count {count} --size 32 --seed 3 --workers 1".split()


def test_the_command_writes_a_shard_and_does_nothing_the_second_time(assets_folder: Path, tmp_path: Path) -> None:
    assert main(arguments(assets_folder, tmp_path, 8)) == 0
    (path,) = tmp_path.glob("*.safetensors")
    arrays, metadata = read_shard(path)
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes["rgb"] == (8, 32, 32, 3)
    assert shapes["alpha"] == shapes["part"] == (8, 32, 32)
    assert shapes["camera"] == (8, 25)
    assert shapes["identity"] == (8, 100)
    assert shapes["expression"] == (8, 52)
    fields = json.loads(metadata["code_fields"])
    assert shapes["code"] == (8, max(stop for _, stop in fields.values()))
    assert metadata["head_version"] == str(HEAD_VERSION)
    assert arrays["person"].tolist() == [3_000_000] * 4 + [3_000_001] * 4
    np.testing.assert_array_equal(arrays["expression"][0], arrays["expression"][1])
    assert (arrays["expression"][0] != arrays["expression"][2]).any()
    stamp = path.stat().st_mtime_ns
    assert main(arguments(assets_folder, tmp_path, 8)) == 0
    assert path.stat().st_mtime_ns == stamp
    assert not list(tmp_path.glob("*.tmp"))


def test_a_half_written_shard_is_rendered_again(assets_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "heads-003-00000.4711.tmp").write_bytes(b"half")
    assert main(arguments(assets_folder, tmp_path, 4)) == 0
    arrays, _ = read_shard(tmp_path / "heads-003-00000.safetensors")
    assert len(arrays["rgb"]) == 4


def test_a_wrong_assets_folder_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(arguments(tmp_path / "nowhere", tmp_path, 4)) == 1
    assert "skins/textures" in caplog.text


def test_plans_split_people_without_overlap() -> None:
    plan = ShardPlan(Path("out"), 1000, 64, 2)
    people = [person for shard in range(plan.num_shards) for person in plan.people(shard)]
    assert plan.num_shards == 4
    assert people == list(range(2_000_000, 2_000_250))
    with pytest.raises(ConfigError, match="count"):
        ShardPlan(Path("out"), 0, 64, 2)
