"""From what a person types as a driver to what the drive stage is asked for."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from galatea.animation.camera_path import camera_path_names
from galatea.animation.presets import preset_names
from galatea.errors import ConfigError
from pipeline.driving import DriverSpec
from pipeline.inputs import absolute
from pipeline.storage import Store
from pipeline.typed_values import nearest_key
from pipeline.words import check_path

_KINDS = {
    "video": (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"),
    "photo": (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"),
    "arkit": (".csv",),
}

_MAX_STEM = 60
"""Letters of an id that come from the name of a file: the file of a clip has an edit's id and more in its name."""


def driver_specs(drivers: Iterable[str], input_options: Mapping[str, Any]) -> tuple[DriverSpec, ...]:
    """Tell presets, camera paths and files apart, and give every driver an id.

    Args:
        drivers: names of presets and camera paths, or paths and URLs of videos, photos and ARKit CSV files.
        input_options: fsspec options of the files.

    Raises:
        ConfigError: an unknown name (with the nearest one), a file that does not exist or is of no known kind.
    """
    specs: dict[str, DriverSpec] = {}
    for driver in dict.fromkeys(drivers):
        kind = _kind(driver)
        if kind is None:
            raise _unknown(driver)
        is_file = kind in _KINDS
        if is_file:
            check_path("drivers", driver)
        if is_file and not Store(driver, input_options).exists(""):
            raise ConfigError(f"drivers: there is no file {driver}. Expected a video, a photo or an ARKit CSV.")
        name = _free_name(_stem(driver) if is_file else driver, specs)
        specs[name] = DriverSpec(name, kind, _stem(driver) if is_file else driver, absolute(driver) if is_file else "")
    return tuple(specs.values())


def _kind(driver: str) -> str | None:
    if driver in preset_names():
        return "preset"
    if driver in camera_path_names():
        return "camera"
    return next((kind for kind, suffixes in _KINDS.items() if driver.lower().endswith(suffixes)), None)


def _unknown(driver: str) -> ConfigError:
    names = [*preset_names(), *camera_path_names()]
    nearest = nearest_key(driver, names)
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    suffixes = " ".join(suffix for group in _KINDS.values() for suffix in group)
    return ConfigError(
        f"drivers: '{driver}' is neither a preset ({', '.join(preset_names())}), nor a camera path "
        f"({', '.join(camera_path_names())}), nor a file that ends in one of {suffixes}.{hint}"
    )


def _stem(uri: str) -> str:
    """The name of a file as an id: part of the names of clips, and the same whichever other drivers there are."""
    name = unicodedata.normalize("NFC", uri.rstrip("/").rpartition("/")[2].rpartition(".")[0])
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    has_lost_letters = any(letter.isalnum() and not letter.isascii() for letter in name)
    if stem and len(stem) <= _MAX_STEM and not has_lost_letters:
        return stem
    return f"{stem[:_MAX_STEM].strip('-') or 'driver'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    """The name, or with a number where two files have one name."""
    if name not in taken:
        return name
    return next(f"{name}-{number}" for number in range(2, len(taken) + 3) if f"{name}-{number}" not in taken)
