"""What the user named as input: folders, globs, bucket prefixes, files and lists of URIs, as a flat list of files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from galatea.errors import ConfigError
from pipeline.file_kinds import is_file
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
    is_name_damaged: bool = False
    """The name is not UTF-8: `uri` shows it with escapes, and nothing can be read by it."""


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
                file = _with_text_name(file)
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
        if is_file(info):
            yield _chosen(f"{prefix}{path}", int(info.get("size") or 0), stamp_of(info))


def _listed(uri: str, options: Mapping[str, Any]) -> Iterator[FoundFile]:
    """The URIs of a CSV or Parquet list; relative ones are relative to the list."""
    data = Store(uri, options).read("")
    try:
        names = _names_in_parquet(uri, data) if _suffix(uri) == ".parquet" else _names_in_csv(uri, data)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"inputs: {uri} cannot be read as a list of URIs: {error}") from error
    folder = uri.rpartition("/")[0]
    for name in names:
        if name:
            is_complete = "://" in name or name.startswith("/")
            yield FoundFile(_absolute(name) if is_complete else f"{folder}/{name}")


def _names_in_csv(uri: str, data: bytes) -> list[str | None]:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"inputs: {uri} is not UTF-8 (line {line}): save the list as UTF-8, and run again") from error
    # Names are text, also where all of them look like numbers or dates.
    as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(_LIST_COLUMNS, pa.string()))
    return _names(uri, pa_csv.read_csv(_in_arrow(data), convert_options=as_text))


def _names_in_parquet(uri: str, data: bytes) -> list[str | None]:
    return _names(uri, pq.read_table(_in_arrow(data)))


def _names(uri: str, table: pa.Table) -> list[str | None]:
    column = next((name for name in _LIST_COLUMNS if name in table.column_names), None)
    if column is None:
        expected = ", ".join(_LIST_COLUMNS)
        raise ConfigError(f"inputs: {uri} has columns {table.column_names}, expected one called {expected}")
    names: list[str | None] = table[column].cast(pa.string()).to_pylist()
    return names


def _in_arrow(data: bytes) -> pa.BufferReader:
    """Arrow's own memory: its threads may let go of it later than the program ends, which Python's forbids."""
    memory = pa.BufferOutputStream()
    memory.write(data)
    return pa.BufferReader(memory.getvalue())


def _with_text_name(file: FoundFile) -> FoundFile:
    """The file, with escapes in its name for bytes that are not UTF-8 (Python has them as lone surrogates)."""
    try:
        file.uri.encode()
    except UnicodeEncodeError:
        shown = file.uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return replace(file, uri=shown, is_name_damaged=True)
    return file


def _chosen(uri: str, num_bytes: int, stamp: str) -> FoundFile | None:
    is_image = _suffix(uri) in IMAGE_SUFFIXES and not uri.rpartition("/")[2].startswith(".")
    return FoundFile(uri, num_bytes, stamp) if is_image else None


def _suffix(uri: str) -> str:
    return Path(uri.rpartition("/")[2]).suffix.lower()


def _absolute(item: str) -> str:
    if not is_local(item):
        return item
    path = Path(item.removeprefix("file://"))
    try:
        return str(path.expanduser().absolute())
    except RuntimeError:  # `~name` of nobody: a name like any other
        return str(path.absolute())
