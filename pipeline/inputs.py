"""What the user named as input: folders, globs, bucket prefixes, files and lists of URIs, as a flat list of files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from galatea.errors import ConfigError
from pipeline.storage import Store, is_local, resolve, stamp_of

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
LIST_SUFFIXES = {".csv", ".parquet"}
_LIST_COLUMNS = ("uri", "url", "path", "file")


@dataclass(frozen=True)
class FoundFile:
    """A file to look at."""

    uri: str
    """Absolute path or URL."""
    num_bytes: int | None = None
    """None where only the name is known so far."""
    stamp: str = ""
    """Changes when the content may have changed; empty where only the name is known so far."""


def find_photos(inputs: Sequence[str], options: Mapping[str, Any]) -> list[FoundFile]:
    """Every photo that the inputs name, once, in the order of the inputs and by name within each.

    In folders, prefixes and globs, hidden files and names without an image suffix are passed over; a file named
    by itself or in a list is always taken, and may turn out not to be a photo.

    Raises:
        ConfigError: an input does not exist, or no photo was found at all; the message names it.
        StorageError: the storage cannot be listed.
    """
    found: dict[str, FoundFile] = {}
    num_other = 0
    for item in inputs:
        for file in _expand(item, options):
            if file is None:
                num_other += 1
            else:
                found.setdefault(file.uri, file)
    if num_other:
        _log.info("passed over %d files that are not named like images", num_other)
    if not found:
        raise ConfigError(
            f"no photos in {', '.join(inputs) or 'an empty list of inputs'}: {num_other} other files were passed over; "
            f"expected names that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return list(found.values())


def _expand(item: str, options: Mapping[str, Any]) -> Iterator[FoundFile | None]:
    """The files of one input; None for each file that is passed over."""
    uri = _absolute(item)
    store = Store(uri, options)
    kind = store.kind_of("")
    if kind == "folder":
        yield from (_chosen(store.locate(entry.path), entry.num_bytes, entry.stamp) for entry in store.files())
    elif kind == "file" and _suffix(uri) in LIST_SUFFIXES:
        yield from _listed(uri, options)
    elif kind == "file":
        yield FoundFile(uri)
    elif any(letter in uri for letter in "*?["):
        yield from _globbed(uri, options)
    elif _suffix(uri) in IMAGE_SUFFIXES:
        yield FoundFile(uri)
    else:
        raise ConfigError(
            f"inputs: {item} does not exist: expected a folder, bucket prefix, glob, image or list of URIs"
        )


def _globbed(uri: str, options: Mapping[str, Any]) -> Iterator[FoundFile | None]:
    fs, pattern = resolve(uri, options)
    prefix = "" if is_local(uri) else uri.split("://", 1)[0] + "://"
    for path, info in sorted(fs.glob(pattern, detail=True).items()):
        if info.get("type") == "file":
            yield _chosen(f"{prefix}{path}", int(info.get("size") or 0), stamp_of(info))


def _listed(uri: str, options: Mapping[str, Any]) -> Iterator[FoundFile]:
    """The URIs of a CSV or Parquet list; relative ones are relative to the list."""
    # Arrow's own memory: its threads may let go of it later than the program ends, which Python's memory forbids.
    memory = pa.BufferOutputStream()
    memory.write(Store(uri, options).read(""))
    data = pa.BufferReader(memory.getvalue())
    try:
        table = pq.read_table(data) if _suffix(uri) == ".parquet" else pa_csv.read_csv(data)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ConfigError(f"inputs: {uri} cannot be read as a list of URIs: {error}") from error
    column = next((name for name in _LIST_COLUMNS if name in table.column_names), None)
    if column is None:
        expected = ", ".join(_LIST_COLUMNS)
        raise ConfigError(f"inputs: {uri} has columns {table.column_names}, expected one called {expected}")
    folder = uri.rpartition("/")[0]
    for name in table[column].to_pylist():
        if name:
            is_complete = "://" in name or name.startswith("/")
            yield FoundFile(_absolute(name) if is_complete else f"{folder}/{name}")


def _chosen(uri: str, num_bytes: int, stamp: str) -> FoundFile | None:
    is_image = _suffix(uri) in IMAGE_SUFFIXES and not uri.rpartition("/")[2].startswith(".")
    return FoundFile(uri, num_bytes, stamp) if is_image else None


def _suffix(uri: str) -> str:
    return Path(uri.rpartition("/")[2]).suffix.lower()


def _absolute(item: str) -> str:
    if not is_local(item):
        return item
    return str(Path(item.removeprefix("file://")).expanduser().absolute())
