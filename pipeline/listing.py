"""Listing all files below a folder: every one of them, or an error; never a part that looks like the whole."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

_log = logging.getLogger(__name__)
_OF_THE_DISK = {"lost+found"}
"""Folders that file systems keep for themselves; only the administrator may look into them."""


def files_below(fs: AbstractFileSystem, folder: str) -> dict[str, dict[str, Any]]:
    """What fsspec says of each file below a folder, by path; files in hidden folders are passed over.

    fsspec's own `find` passes over folders that it cannot read without a word, so that their files seem deleted.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the folder, or one below it, cannot be listed.
    """
    return _walked(fs, folder, None)


def files_matching(fs: AbstractFileSystem, pattern: str) -> dict[str, dict[str, Any]]:
    """What fsspec says of each file that matches a glob, by path; files in hidden folders are passed over.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: a folder on the way cannot be listed.
    """
    first = min(pattern.index(letter) for letter in "*?[" if letter in pattern)
    folder = pattern[:first].rpartition("/")[0]
    rest = pattern[len(folder) + 1 :]
    matches = re.compile(glob_translate(pattern)).match
    files = _walked(fs, folder or "/", None if "**" in rest else rest.count("/"))
    return {path: info for path, info in files.items() if matches(path)}


def _walked(fs: AbstractFileSystem, top: str, depth: int | None) -> dict[str, dict[str, Any]]:
    """The files in a folder and, to a depth, in those below it; links to folders are not followed, but told."""
    found: dict[str, dict[str, Any]] = {}
    linked: list[str] = []
    waiting = [(top, 0)]
    while waiting:
        folder, level = waiting.pop()
        try:
            files, folders = _split(fs, folder)
        except FileNotFoundError as error:
            if level == 0:
                raise
            raise OSError(errno.ESTALE, "the folder went away while it was listed", folder) from error
        found |= files
        if depth is None or level < depth:
            waiting += [(below, level + 1) for below in folders]
            linked += [path for path, info in files.items() if _is_linked_folder(path, info)]
    if linked:
        _log.warning(
            "%s: %d links to folders were not followed, such as %s: name the folders that they point to as well",
            top,
            len(linked),
            min(linked),
        )
    return found


def _split(fs: AbstractFileSystem, folder: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The files in a folder, and the folders in it that are to be listed too."""
    entries = {info["name"].rstrip("/"): info for info in fs.ls(folder, detail=True)}
    folders = [path for path, info in entries.items() if info["type"] == "directory" and path != folder.rstrip("/")]
    files = {path: info for path, info in entries.items() if info["type"] != "directory"}
    return files, [path for path in folders if not _is_passed_over(path.rpartition("/")[2])]


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in _OF_THE_DISK


def _is_linked_folder(path: str, info: Mapping[str, Any]) -> bool:
    return bool(info.get("islink")) and not _is_passed_over(path.rpartition("/")[2]) and Path(path).is_dir()
