"""Photos for a first try, from packages that are installed anyway: `python -m pipeline.demo FOLDER`."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from galatea.errors import ConfigError

_log = logging.getLogger(__name__)

PHOTOS = {
    "astronaut.png": ("skimage", "data/astronaut.png"),
    "group.jpg": ("insightface", "data/images/t1.jpg"),
}
"""File name -> package and file in it: Eileen Collins (NASA, public domain), and six people in one photo."""


def write_photos(folder: Path) -> list[Path]:
    """Copy the demo photos into a folder; those that are there already are left alone.

    Raises:
        ConfigError: a package that carries a photo is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for name, (package, member) in PHOTOS.items():
        source, target = _folder_of(package) / member, folder / name
        if not source.is_file():
            raise ConfigError(f"The demo photo {member} is not in the package {package}: run `make setup` again.")
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            shutil.copyfile(source, target)
        photos.append(target)
    return photos


def _folder_of(package: str) -> Path:
    # Looking a package up does not import it: that would take seconds.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(f"The package {package}, which carries a demo photo, is not installed: run `make setup`.")
    return Path(next(iter(found.submodule_search_locations)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the photos and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.demo", description="Write photos for a first try.")
    parser.add_argument("folder", type=Path, help="where the photos go; made if it does not exist")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for photo in write_photos(parser.parse_args(arguments).folder):
        _log.info("%s", photo)


if __name__ == "__main__":
    main()
