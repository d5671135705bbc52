from __future__ import annotations

from pathlib import Path

import pytest

from galatea.errors import ConfigError
from pipeline.driver_names import driver_specs


def test_names_and_files_are_told_apart(tmp_path: Path) -> None:
    video, csv = tmp_path / "my clip (1).MP4", tmp_path / "face.csv"
    video.touch()
    csv.touch()
    specs = driver_specs(["smile", "turn", str(video), str(csv), "smile"], {})
    assert [(spec.driver_id, spec.kind) for spec in specs] == [
        ("smile", "preset"),
        ("turn", "camera"),
        ("my-clip-1", "video"),
        ("face", "arkit"),
    ]
    assert specs[2].uri == str(video)


def test_files_with_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / folder / "a.mp4" for folder in ("x", "y")]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert [spec.driver_id for spec in driver_specs(map(str, files), {})] == ["a", "a-2"]


@pytest.mark.parametrize(
    ("driver", "words"),
    [("smlie", ("smlie", "smile")), ("gone.mp4", ("no file", "gone.mp4")), ("notes.txt", ("notes.txt", ".mp4"))],
)
def test_a_missing_driver_is_refused_before_anything_runs(driver: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        driver_specs([driver], {})
    for word in words:
        assert word in str(caught.value)
