"""What the user named as input: folders, globs, bucket prefixes, files and lists of URIs, as a flat list of files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from galatea.errors import ConfigError
from pipeline.file_kinds import is_file
from pipeline.photo_lists import names_in_csv, names_in_parquet
from pipeline.run_folder import RunFolder
from pipeline.storage import Store, is_local, stamp_of

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
LIST_SUFFIXES = {".csv", ".parquet"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to look at."""

    uri: str
    """Absolute path or URL."""
    num_bytes: int | None = None
    """None where only the name is known so far."""
    stamp: str = ""
    """Changes when the content may have changed; empty where only the name is known so far."""
    is_named: bool = True
    """Named by itself or in a list, not found in a folder or by a glob."""
    is_name_damaged: bool = False
    """The name is not UTF-8: `uri` shows it with escapes, and nothing can be read by it."""


def find_photos(inputs: Sequence[str], options: Mapping[str, Any], run_url: str = "") -> list[FoundFile]:
    """Every photo that the inputs name, once, in the order of the inputs and by name within each.

    In folders, prefixes and globs, hidden files, names without an image suffix and all that lies in the run folder
    are passed over; a file named by itself or in a list is always taken, and may turn out not to be a photo.

    Args:
        inputs: folders, globs, bucket prefixes, files, or CSV/Parquet lists of URIs.
        options: fsspec options of remote ones.
        run_url: the run folder: the pictures in it are results, also where it lies inside an input.

    Raises:
        ConfigError: an input is empty or does not exist, or no photo was found at all; the message names it.
        StorageError: the storage cannot be listed.
    """
    found: dict[str, FoundFile] = {}
    passed_over: Counter[Passed] = Counter()
    run = RunFolder(run_url and absolute(run_url))
    for item in inputs:
        for file in _expand(item, options):
            passed = _passed(file, run, absolute(item))
            if passed is None:
                found.setdefault(file.uri, _with_text_name(file))
            else:
                passed_over[passed] += 1
    num_other, num_own = passed_over[Passed.OTHER], passed_over[Passed.OWN]
    if num_other:
        _log.info("passed over %d files that are not named like images", num_other)
    if num_own:
        _log.info("passed over %d pictures in the run folder %s", num_own, run_url)
    if not found:
        own = f" and {num_own} pictures in the run folder {run_url}" if num_own else ""
        raise ConfigError(
            f"no photos in {', '.join(inputs) or 'an empty list of inputs'}: {num_other} other files{own} were passed "
            f"over; expected names that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return list(found.values())


class Passed(Enum):
    """Why a file is passed over."""

    OTHER = "not named like an image"
    OWN = "in the run folder"


def _passed(file: FoundFile, run: RunFolder, item: str) -> Passed | None:
    if file.is_named:
        return None
    is_image = _suffix(file.uri) in IMAGE_SUFFIXES and not file.uri.rpartition("/")[2].startswith(".")
    if not is_image:
        return Passed.OTHER
    return Passed.OWN if run.holds(file.uri, item) else None


def _expand(item: str, options: Mapping[str, Any]) -> Iterator[FoundFile]:
    """The files of one input."""
    if not item.strip():
        raise ConfigError("inputs: expected a folder, glob, photo or list, got an empty name. Is a variable not set?")
    uri = absolute(item)
    store = Store(uri, options)
    kind = store.kind_of("")
    if kind == "folder":
        for entry in store.files():
            yield FoundFile(store.locate(entry.path), entry.num_bytes, entry.stamp, is_named=False)
    elif kind == "file" and _suffix(uri) in LIST_SUFFIXES:
        yield from _listed(uri, options)
    elif kind == "file":
        yield FoundFile(uri)
    elif _is_glob(uri):
        yield from _globbed(uri, options)
    elif _suffix(uri) in IMAGE_SUFFIXES:
        yield FoundFile(uri)
    else:
        raise ConfigError(
            f"inputs: {item} does not exist: expected a folder, bucket prefix, glob, image or list of URIs"
        )


def _globbed(uri: str, options: Mapping[str, Any]) -> Iterator[FoundFile]:
    prefix = "" if is_local(uri) or _is_web(uri) else uri.split("://", 1)[0] + "://"
    for path, info in sorted(Store(uri, options).matching().items()):
        if is_file(info):
            yield FoundFile(f"{prefix}{path}", int(info.get("size") or 0), stamp_of(info), is_named=False)


def _listed(uri: str, options: Mapping[str, Any]) -> Iterator[FoundFile]:
    """The URIs of a CSV or Parquet list; relative ones are relative to the list."""
    data = Store(uri, options).read("")
    names = names_in_parquet(uri, data) if _suffix(uri) == ".parquet" else names_in_csv(uri, data)
    folder = uri.rpartition("/")[0]
    for name in names:
        if name:
            is_complete = "://" in name or name.startswith("/")
            yield FoundFile(absolute(name) if is_complete else f"{folder}/{name}")


def _with_text_name(file: FoundFile) -> FoundFile:
    """The file, with escapes in its name for bytes that are not UTF-8 (Python has them as lone surrogates)."""
    try:
        file.uri.encode()
    except UnicodeEncodeError:
        shown = file.uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return replace(file, uri=shown, is_name_damaged=True)
    return file


def _suffix(uri: str) -> str:
    path = uri.partition("?")[0] if _is_web(uri) else uri
    return Path(path.rpartition("/")[2]).suffix.lower()


def _is_glob(uri: str) -> bool:
    # In the address of a web server, ? begins the query.
    return any(letter in uri for letter in ("*[" if _is_web(uri) else "*?["))


def _is_web(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def absolute(place: str) -> str:
    """A path or URL that names the same file in a process that runs in another folder; an empty one stays empty."""
    if not place.strip() or not is_local(place):
        return place
    path = Path(place.partition("://")[2] or place)
    try:
        return str(path.expanduser().absolute())
    except RuntimeError:  # `~name` of nobody: a name like any other
        return str(path.absolute())
