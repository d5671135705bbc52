from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.demo import main, write_photos


def test_the_demo_photos_come_from_installed_packages(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    assert [photo.name for photo in photos] == ["astronaut.png", "group.jpg"]
    assert all(min(Image.open(photo).size) >= 400 for photo in photos)
    photos[0].touch()
    stamps = [photo.stat().st_mtime_ns for photo in photos]
    assert [photo.stat().st_mtime_ns for photo in write_photos(tmp_path / "photos")] == stamps


def test_asking_for_help_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert list(tmp_path.iterdir()) == []
