"""The data card's snippets and the example run as they stand."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.config import compose
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from pipeline.synthesize import HeadsOrder, synthesize_heads
from training.heads.settings import HeadsConfig

ROOT = Path(__file__).resolve().parents[3]
CARD = ROOT / "docs" / "synthetic_heads.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def folder(assets_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set called `heads`, as the card's commands make it."""
    folder = tmp_path_factory.mktemp("data")
    heads = HeadsConfig(assets=str(assets_folder), size=32, seed=4)
    config = replace(compose(), executor=ExecutorConfig(kind="local"))
    synthesize_heads(HeadsOrder(24, Store(str(folder / "heads")), heads, config, "webdataset"))
    return folder


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_landmarks", ROOT / "examples" / "train_landmarks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0].strip("# "))
def test_a_snippet_of_the_data_card_runs(snippet: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(snippet, str(CARD), "exec"), {})  # noqa: S102 - our own documentation


def test_there_is_a_snippet_for_each_way_to_load() -> None:
    assert [sum(word in snippet for snippet in SNIPPETS) >= 1 for word in ("pyarrow", "webdataset", "DataLoader")] == [
        True
    ] * 3


def test_the_example_learns_landmarks(folder: Path) -> None:
    before, after = example().train(folder / "heads", steps=40, batch=12)
    assert after < 0.8 * before
