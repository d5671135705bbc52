"""`galatea synthesize heads`: the same bytes on any executor and storage, resumed or not; failures stay alone."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from galatea.errors import ConfigError
from pipeline.cli import app
from pipeline.config import compose
from pipeline.executor import RunInterruptedError
from pipeline.manifest import read_rows
from pipeline.run_stage import Progress, run_stage
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from pipeline.synthesize import HeadsOrder, heads_requests, synthesize_heads
from pipeline.webdataset import FOLDER, pack
from tests.pipeline.comparing import comparable_rows
from tests.training.heads.small_heads import StumblingStage
from training.heads.settings import HeadsConfig

COUNT = 7
LOCAL = ExecutorConfig(kind="local", batch_size=1)


@pytest.fixture(scope="module")
def small(assets_folder: Path) -> HeadsConfig:
    return HeadsConfig(assets=str(assets_folder), size=24, seed=2, num_expressions=1, num_views=2)


def order(heads: HeadsConfig, out: Store | Path, **changes: Any) -> HeadsOrder:
    executor = changes.pop("executor", LOCAL)
    store = out if isinstance(out, Store) else Store(str(out))
    return HeadsOrder(changes.pop("count", COUNT), store, heads, replace(compose(), executor=executor), **changes)


def tars(store: Store) -> dict[str, bytes]:
    return {entry.path: store.read(entry.path) for entry in store.files(FOLDER) if entry.path.endswith(".tar")}


@pytest.fixture(scope="module")
def undisturbed(small: HeadsConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("undisturbed")))
    outcome = synthesize_heads(order(small, store, form="webdataset"))
    assert outcome.summary.status == {"done": COUNT}
    return store


def test_rows_are_images_with_their_labels(undisturbed: Store, small: HeadsConfig) -> None:
    rows = read_rows(undisturbed, "synthesize")
    assert [row["image_id"][-5:] for row in rows] == ["00_00", "00_01"] * 3 + ["00_00"]
    assert len({row["person_id"] for row in rows}) == 4
    assert rows[0]["person_id"] == "p000002000000"
    for row in rows:
        assert Image.open(undisturbed.locate(row["image"])).size == (small.size, small.size)
        assert row["landmarks"].shape == (478, 2)
        assert 0.2 < row["landmarks"][4].mean() < 0.8
        np.testing.assert_allclose(np.linalg.norm(row["gaze_camera"], axis=1), 1, atol=1e-5)
        assert json.loads(row["models"])[-1]["licence"] == "CC0-1.0"
    assert (rows[0]["identity"] == rows[1]["identity"]).all()
    assert (rows[0]["camera"] != rows[1]["camera"]).any()


@pytest.mark.usefixtures("ray_address")
def test_two_ray_actors_make_the_same_bytes_as_this_process(
    undisturbed: Store, small: HeadsConfig, tmp_path: Path
) -> None:
    executor = ExecutorConfig(kind="ray", num_actors=2, batch_size=1)
    synthesize_heads(order(small, tmp_path, executor=executor, form="webdataset"))
    store = Store(str(tmp_path))
    assert comparable_rows(store, "synthesize") == comparable_rows(undisturbed, "synthesize")
    assert tars(store) == tars(undisturbed)


def test_an_interrupted_run_resumes_to_the_same_bytes(undisturbed: Store, small: HeadsConfig, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise RunInterruptedError("now")

    mine = order(small, tmp_path, form="webdataset")
    with pytest.raises(RunInterruptedError):
        synthesize_heads(mine, interrupt)
    outcome = synthesize_heads(mine)
    assert outcome.summary.num_reused == 2
    assert comparable_rows(mine.out, "synthesize") == comparable_rows(undisturbed, "synthesize")
    assert tars(mine.out) == tars(undisturbed)
    assert synthesize_heads(mine).summary.num_reused == 4


def test_a_larger_set_keeps_what_is_there(undisturbed: Store, small: HeadsConfig, tmp_path: Path) -> None:
    synthesize_heads(order(small, tmp_path, count=2))
    outcome = synthesize_heads(order(small, tmp_path, count=6))
    assert outcome.summary.num_reused == 1
    assert comparable_rows(Store(str(tmp_path)), "synthesize") == comparable_rows(undisturbed, "synthesize")[:6]


def test_a_bucket_holds_the_same_bytes(undisturbed: Store, small: HeadsConfig, s3_options: dict[str, Any]) -> None:
    bucket = Store("s3://archive/heads", s3_options)
    synthesize_heads(order(small, bucket, form="webdataset"))
    assert comparable_rows(bucket, "synthesize") == comparable_rows(undisturbed, "synthesize")
    assert tars(bucket) == tars(undisturbed)


def test_a_person_that_fails_is_a_row_and_the_others_go_on(small: HeadsConfig, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    executor = ExecutorConfig(kind="local", batch_size=4)
    summary = run_stage(StumblingStage(small), heads_requests(COUNT, small), store, executor)
    assert summary.status == {"done": COUNT - 2, "failed": 1}
    failed = next(row for row in read_rows(store, "synthesize") if row["status"] == "failed")
    assert (failed["person_id"], failed["error_message"]) == ("p000002000001", "this person cannot be drawn")
    assert pack(store, "synthesize", "heads").num_samples == COUNT - 2


def test_shards_are_cut_evenly_and_written_once(undisturbed: Store, small: HeadsConfig, tmp_path: Path) -> None:
    mine = order(small, tmp_path)
    synthesize_heads(mine)
    index = pack(mine.out, "synthesize", "heads", samples_per_shard=3)
    assert [shard.num_samples for shard in index.shards] == [3, 3, 1]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER).glob("*.tar")}
    (tmp_path / FOLDER / "heads-000001.tar").unlink()
    assert pack(mine.out, "synthesize", "heads", samples_per_shard=3) == index
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER).glob("*.tar")}
    assert [path.name for path in stamps if again[path] != stamps[path]] == ["heads-000001.tar"]
    pack(mine.out, "synthesize", "heads")
    assert [path.name for path in (tmp_path / FOLDER).glob("*.tar")] == ["heads-000000.tar"]
    with tarfile.open(tmp_path / FOLDER / "heads-000000.tar") as tar:
        names = [name.partition(".")[2] for name in tar.getnames()[:6]]
    assert names == ["jpg", "alpha.png", "part.png", "depth.png", "normal.png", "json"]


def test_the_command_draws_and_says_where(small: HeadsConfig, tmp_path: Path) -> None:
    words = ["synthesize", "heads", "--count", "3", "--out", str(tmp_path), "--assets", small.assets, "--size", "24"]
    words += ["--views", "1", "--format", "webdataset", "executor=local", "heads.image_format=png"]
    first, again = (CliRunner().invoke(app, words) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert "3 images of 2 people, 2 of them drawn now" in first.output
    assert "0 of them drawn now" in again.output
    assert len(list((tmp_path / "synthesize" / "files" / "image").glob("*.png"))) == 3


def test_wrong_orders_are_refused_by_name(small: HeadsConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="count"):
        order(small, tmp_path, count=0)
    with pytest.raises(ConfigError, match="webdataset"):
        order(small, tmp_path, form="zip")
    with pytest.raises(ConfigError, match="image_format"):
        HeadsConfig(image_format="gif")
    words = ["synthesize", "heads", "--count", "3", "--out", str(tmp_path)]
    missing = CliRunner().invoke(app, [*words, "--assets", str(tmp_path / "nowhere")])
    assert missing.exit_code == 1
    assert "head assets" in missing.stderr
    unknown = CliRunner().invoke(app, [*words, "heads.sise=3"])
    assert "heads.size" in unknown.stderr
