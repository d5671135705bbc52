from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from galatea.errors import ConfigError
from pipeline.driver_names import driver_specs
from pipeline.driving import driver_requests


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


def test_a_file_is_found_from_any_folder_and_called_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "face.csv").touch()
    monkeypatch.chdir(tmp_path)
    [relative], [absolute] = driver_specs(["face.csv"], {}), driver_specs([str(tmp_path / "face.csv")], {})
    assert relative == absolute
    assert relative.uri == str(tmp_path / "face.csv")
    as_typed = replace(relative, uri="face.csv")
    [one], [other] = (driver_requests([spec], {}).items for spec in (relative, as_typed))
    assert (one.source_id, one.fingerprint) == (other.source_id, other.fingerprint)


def test_files_with_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / folder / "a.mp4" for folder in ("x", "y")]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert [spec.driver_id for spec in driver_specs(map(str, files), {})] == ["a", "a-2"]


def ids(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).touch()
    return [spec.driver_id for spec in driver_specs([str(folder / name) for name in names], {})]


def test_an_id_stays_short_enough_for_the_names_of_clips(tmp_path: Path) -> None:
    long, other = ids(tmp_path, "v" * 200 + "a.mp4", "v" * 200 + "b.mp4")
    assert long.startswith("v" * 60 + "-")
    assert len(long) == len(other) == 69
    assert long != other
    assert ids(tmp_path, "v" * 60 + ".mp4") == ["v" * 60]


def test_names_in_other_scripts_have_ids_that_do_not_depend_on_their_order(tmp_path: Path) -> None:
    names = ["你好.mp4", "再见.mp4", "Grüße.mp4", "Größe.mp4", "!!.mp4", "😀.mp4"]
    made = ids(tmp_path, *names)
    assert len(set(made)) == len(made)
    assert ids(tmp_path, *reversed(names)) == made[::-1]
    assert [ids(tmp_path, name)[0] for name in names] == made
    assert made[2].startswith("Gr-e-")
    assert made[0].startswith("driver-")


def test_a_name_has_one_id_in_both_of_its_spellings(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "café.mp4") for form in ("NFC", "NFD")]
    assert ids(tmp_path, names[0]) == ids(tmp_path, names[1])


def test_a_driver_whose_name_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"caf\\xe9.mp4 is not UTF-8"):
        ids(tmp_path, "caf\udce9.mp4")


@pytest.mark.parametrize(
    ("driver", "words"),
    [("smlie", ("smlie", "smile")), ("gone.mp4", ("no file", "gone.mp4")), ("notes.txt", ("notes.txt", ".mp4"))],
)
def test_a_missing_driver_is_refused_before_anything_runs(driver: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        driver_specs([driver], {})
    for word in words:
        assert word in str(caught.value)
