"""Fewer or more edited clips: what is added is computed alone, and what is dropped is not deleted unasked."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from galatea.errors import ConfigError
from pipeline.manifest import read_rows
from pipeline.run import RunPlan, run, run_one
from pipeline.settings import StorageConfig
from pipeline.storage import Store
from stages.animate import AnimateStage
from tests.pipeline.small_chain import Animate, SmallConfig, build_chain, plan_chain, write_photos


@dataclass(frozen=True)
class ChoosyConfig(SmallConfig):
    edited_with: tuple[str, ...] = field(default=("*",), metadata={"affects_rows": False})


class ChoosyAnimate(Animate):
    config: ChoosyConfig
    wants = AnimateStage.wants  # type: ignore[assignment]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def edited_with(photos: Path, store: Store, *drivers: str, prune: bool = False) -> RunPlan:
    """Ann alone, edited or not, with the drivers smile and turn."""
    stages = build_chain()
    stages[4] = ChoosyAnimate(ChoosyConfig(edited_with=drivers))
    return plan_chain([str(photos / "ann.png")], store, stages=stages, storage=StorageConfig(prune=prune))


def clips(store: Store) -> list[str]:
    return [row["clip_id"].partition(".")[2] for row in read_rows(store, "animate", ["clip_id"])]


def test_only_clips_that_are_added_are_computed(photos: Path, store: Store) -> None:
    run(edited_with(photos, store, "smile"))
    assert clips(store) == ["none.smile", "none.turn", "older.smile"]

    result = run(edited_with(photos, store, "*"))

    assert clips(store) == ["none.smile", "none.turn", "older.smile", "older.turn"]
    assert (result.stages["animate"].num_records, result.stages["animate"].num_reused) == (4, 3)
    assert result.num_computed == 2, "the clip and its figures"


def test_clips_that_are_dropped_are_deleted_only_if_asked(photos: Path, store: Store) -> None:
    run(edited_with(photos, store, "*"))
    before = {entry.path: entry.stamp for entry in store.files("animate")}
    fewer = edited_with(photos, store, "smile")

    with pytest.raises(ConfigError, match=r"results of 1 clip .*older\.turn.*storage\.prune=true"):
        run(fewer)
    with pytest.raises(ConfigError, match="results of 1 clip"):
        run_one(fewer, fewer.stages[4])
    assert {entry.path: entry.stamp for entry in store.files("animate")} == before

    assert run(edited_with(photos, store, "smile", prune=True)).num_computed == 0
    assert clips(store) == ["none.smile", "none.turn", "older.smile"]
    assert len(store.files("animate/files")) == 3
