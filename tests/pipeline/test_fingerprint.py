import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline import fingerprint
from pipeline.fingerprint import code_hash, row_fingerprint, source_files, stage_fingerprint
from pipeline.stage_catalogue import build_stage, config_classes
from stages.base import ModelPart
from tests.pipeline.small_stages import NumberConfig, NumberStage


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of a stage that imports a module, which imports another; and one that nobody imports."""
    folder = tmp_path / "toyproject"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "stage.py").write_text("from toyproject.deep import middle\nraise RuntimeError('never imported')")
    (folder / "deep" / "middle.py").write_text("def late():\n    from ..deep import bottom as low, middle\n")
    (folder / "deep" / "bottom.py").write_text("VALUE = 1")
    (folder / "other.py").write_text("VALUE = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprint, "_PACKAGES", {"toyproject"})
    code_hash.cache_clear()
    yield folder
    code_hash.cache_clear()


def hash_now() -> str:
    code_hash.cache_clear()
    return code_hash("toyproject.stage")


@pytest.mark.parametrize("name", ["stage.py", "deep/middle.py", "deep/bottom.py"])
def test_code_that_a_stage_imports_counts(package: Path, name: str) -> None:
    before = hash_now()
    (package / name).write_text((package / name).read_text() + "\n# changed")

    assert hash_now() != before
    assert "toyproject.stage" not in sys.modules


def test_code_that_a_stage_does_not_import_does_not_count(package: Path) -> None:
    before = hash_now()
    (package / "other.py").write_text("VALUE = 2")

    assert hash_now() == before


def test_code_of_the_real_library_is_found() -> None:
    assert code_hash("galatea.errors") != code_hash("galatea.cameras")


@pytest.mark.parametrize("stage", ["align", "drive", "evaluate"])
def test_a_stage_without_a_generator_does_not_depend_on_its_code(stage: str) -> None:
    assert not [name for name in source_files(f"stages.{stage}") if name.startswith("galatea.eg3d")]


@pytest.mark.parametrize("stage", ["invert", "edit", "animate"])
def test_a_stage_with_a_generator_depends_on_its_code(stage: str) -> None:
    assert {"galatea.eg3d.synthesis", "galatea.eg3d.anchored"} <= set(source_files(f"stages.{stage}"))


def test_configuration_and_models_count() -> None:
    class OtherModel(NumberStage):
        def models(self) -> tuple[ModelPart, ...]:
            return (ModelPart("numbers", "2", "1" * 64, "CC0-1.0", True),)

    OtherModel.__module__ = NumberStage.__module__
    plain = stage_fingerprint(NumberStage(NumberConfig()))

    assert stage_fingerprint(NumberStage(NumberConfig())) == plain
    assert stage_fingerprint(NumberStage(NumberConfig(factor=3))) != plain
    assert stage_fingerprint(OtherModel(NumberConfig())) != plain


def test_a_field_that_does_not_affect_rows_does_not_count() -> None:
    @dataclass(frozen=True)
    class Config(NumberConfig):
        threads: int = field(default=1, metadata={"affects_rows": False})

    assert stage_fingerprint(NumberStage(Config(threads=8))) == stage_fingerprint(NumberStage(Config()))


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("stage", "setting", "value", "counts"),
    [
        ("align", "face_batch", 3, False),
        ("align", "max_faces", 3, True),
        ("invert", "batch_size", 3, False),
        ("animate", "batch_frames", 3, False),
        ("animate", "edited_with", ("smile",), False),
        ("animate", "paste_back", True, True),
    ],
)
def test_settings_that_only_choose_or_batch_do_not_count(stage: str, setting: str, value: object, counts: bool) -> None:
    configure = config_classes()[stage]
    changed, plain = (build_stage(stage, configure(**values)) for values in ({setting: value}, {}))

    assert (stage_fingerprint(changed) != stage_fingerprint(plain)) == counts


def test_a_row_depends_on_its_stage_and_its_inputs() -> None:
    assert len({row_fingerprint("s", "a"), row_fingerprint("s", "b"), row_fingerprint("t", "a")}) == 3
    assert row_fingerprint("s", "a", "b") != row_fingerprint("s", "ab")
