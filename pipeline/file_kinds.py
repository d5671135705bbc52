"""Which entries of a listing are files: a photo may be called what it likes, a folder, a pipe or a device is none."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.storage_errors import UnreadableFileError


def is_file(info: Mapping[str, Any]) -> bool:
    """Whether fsspec's description of a listed entry is that of a regular file.

    A link is what it points to. A broken one counts as a file, so that whoever reads it is told what is wrong.
    """
    if not info.get("islink"):
        return info.get("type") not in {"directory", "other"}
    try:
        return stat.S_ISREG(Path(info["name"]).stat().st_mode)
    except OSError:
        return True


def check_regular(url: str, info: Mapping[str, Any]) -> None:
    """Refuse what is not a regular file, by fsspec's description of it.

    Raises:
        UnreadableFileError: it is a folder, pipe, socket or device.
    """
    if info.get("type") == "directory":
        raise UnreadableFileError(f"cannot read {url}: it is a folder, expected a file")
    if info.get("type") == "other":
        raise UnreadableFileError(f"cannot read {url}: it is a pipe, socket or device, expected a file")
