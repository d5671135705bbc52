"""Folders at any fsspec URL: read, list, and publish atomically, with errors that say what to do.

A file is either wholly there or not there at all. Local files are written under a temporary name, synced and renamed;
object stores publish an object when its upload completes, so a plain PUT (or a committed multipart upload) is atomic
already; any other file system gets a temporary name and a move.
"""

from __future__ import annotations

import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from galatea.errors import ConfigError, StorageError
from pipeline.file_kinds import check_regular, is_file
from pipeline.listing import files_below, files_matching
from pipeline.storage_errors import explain, is_transient, network_errors

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

_LOCAL = {"file", "local"}
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"}
_TAGS = ("ETag", "etag", "Content-MD5", "Digest")
_TIMES = ("mtime", "LastModified", "created", "Last-Modified")
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.2
_TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True)
class Entry:
    """A file in a listing."""

    path: str
    """Relative to the store."""
    num_bytes: int
    stamp: str
    """Changes when the content may have changed: the store's ETag, or modification time and size."""
    modified: float | None = None
    """When it was written, in seconds since 1970 (the storage's clock; object stores: whole seconds); or None."""


@dataclass(frozen=True)
class Store:
    """A folder at an fsspec URL (`/data/run`, `s3://bucket/run`); cheap to copy and to send to other processes."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """fsspec options of remote file systems, such as `endpoint_url`, `key` and `secret` for S3; not for local paths."""

    def __post_init__(self) -> None:
        # An empty path would be the root of the disk as soon as a file in it is named.
        if not self.url.strip():
            raise ConfigError("storage: expected a path or URL, got an empty one. Is a variable of the shell not set?")

    def child(self, path: str) -> Store:
        """The store of a folder inside this one."""
        return Store(self.locate(path), self.options)

    def locate(self, path: str) -> str:
        """The URL of a file inside the store."""
        return f"{self.url.rstrip('/')}/{path}" if path else self.url

    def read(self, path: str) -> bytes:
        """Read a whole file.

        Raises:
            MissingFileError: there is no such file.
            UnreadableFileError: it is no regular file, or the disk fails for it.
            StorageError: it cannot be read.
        """

        def call(fs: AbstractFileSystem, full: str) -> bytes:
            if _protocol(fs) in _LOCAL:
                check_regular(full, fs.info(full))  # opening a pipe would wait for ever
            return cast(bytes, fs.cat_file(full))

        return self.attempt("read", path, call)

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        """Open a file for random access; storage failures inside the block become StorageErrors.

        Opening is tried again where the error passes, the block is not: see `read_with`.
        """
        opened = self.attempt("read", path, lambda fs, full: fs.open(full, "rb"))
        try:
            with opened as file:
                yield file
        except network_errors() as error:
            raise explain(error, "read", self.locate(path)) from error

    def read_with(self, path: str, use: Callable[[BinaryIO], _Answer]) -> _Answer:
        """Open a file for random access and let `use` read from it, from the start again after errors that pass.

        Raises:
            MissingFileError: there is no such file.
            StorageError: it cannot be read.
        """

        def call(fs: AbstractFileSystem, full: str) -> _Answer:
            with fs.open(full, "rb") as file:
                return use(file)

        return self.attempt("read", path, call)

    def write(self, path: str, data: bytes) -> None:
        """Publish a file: readers see the old content or the new, never a part.

        Raises:
            FullDiskError: no space is left; what was there before is untouched.
            StorageError: it cannot be written.
        """

        def call(fs: AbstractFileSystem, full: str) -> None:
            if _protocol(fs) in _OBJECT_STORES:
                fs.pipe_file(full, data)
                return
            with _renamed(fs, full) as file:
                file.write(data)

        self.attempt("write", path, call)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Open a file for writing that is published when the block ends well, and discarded when it does not."""
        try:
            fs, full = self._resolve(path)
            opened = _uploaded(fs, full) if _protocol(fs) in _OBJECT_STORES else _renamed(fs, full)
            with opened as file:
                yield file
        except network_errors() as error:
            raise explain(error, "write", self.locate(path)) from error

    def exists(self, path: str) -> bool:
        """Whether a file is there.

        Raises:
            StorageError: that cannot be told now. (fsspec's own `isfile` says no, and finished work would seem gone.)
        """

        def call(fs: AbstractFileSystem, full: str) -> bool:
            try:
                return bool(fs.info(full)["type"] == "file")
            except (FileNotFoundError, NotADirectoryError):
                return False

        return self.attempt("look up", path, call)

    def kind_of(self, path: str) -> str:
        """`file`, `folder`, or an empty string where there is neither."""

        def call(fs: AbstractFileSystem, full: str) -> str:
            return "file" if fs.isfile(full) else "folder" if fs.isdir(full) else ""

        return self.attempt("look up", path, call)

    def entry(self, path: str) -> Entry:
        """Size and stamp of a file.

        Raises:
            MissingFileError: there is no such file.
            UnreadableFileError: it is a folder or another thing that is no file.
        """

        def call(fs: AbstractFileSystem, full: str) -> Entry:
            info = fs.info(full)
            check_regular(self.locate(path), info)
            return _entry(path, info)

        return self.attempt("look up", path, call)

    def files(self, path: str = "") -> list[Entry]:
        """All files below a folder, sorted by path, without hidden and temporary ones; [] where there is no folder.

        Raises:
            StorageError: the folder, or one below it, cannot be listed.
        """
        return [entry for entry in self._files(path) if not _is_hidden(entry.path)]

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is fine."""

        def call(fs: AbstractFileSystem, full: str) -> None:
            try:
                fs.rm_file(full)
            except FileNotFoundError:
                return

        self.attempt("delete", path, call)

    def sweep_temporaries(self, path: str, older_than_seconds: float = 600.0) -> None:
        """Remove what killed writers left behind (local disks only: object stores keep no half-written objects)."""
        fs, full = self._resolve(path)
        if _protocol(fs) not in _LOCAL:
            return
        for file in Path(full).rglob(f".*{_TEMPORARY_SUFFIX}"):
            if time.time() - file.stat().st_mtime > older_than_seconds:
                file.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Write and remove a small file, so that a wrong bucket or a read-only folder fails before any work.

        Raises:
            StorageError: the store cannot be written; the message says why.
        """
        if is_local(self.url) and self.kind_of("") == "file":
            raise StorageError(f"cannot write into {self.url}: it is a file, expected a folder")
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        self.write(probe, b"galatea")
        self.delete(probe)

    def _files(self, path: str) -> list[Entry]:
        def call(fs: AbstractFileSystem, full: str) -> dict[str, dict[str, Any]]:
            fs.invalidate_cache()
            try:
                # Object stores list everything at once, by prefix.
                is_flat = _protocol(fs) in _OBJECT_STORES
                return dict(fs.find(full, detail=True)) if is_flat else files_below(fs, full)
            except FileNotFoundError:
                return {}

        found = self.attempt("list", path, call)
        _, root = self._resolve("")
        prefix = root.rstrip("/") + "/"
        entries = [_entry(name.removeprefix(prefix), info) for name, info in found.items() if is_file(info)]
        return sorted(entries, key=lambda entry: entry.path)

    def matching(self) -> dict[str, dict[str, Any]]:
        """What fsspec says of each file that matches this store's URL, a glob.

        Raises:
            StorageError: a folder on the way cannot be listed.
        """

        def call(fs: AbstractFileSystem, full: str) -> dict[str, dict[str, Any]]:
            fs.invalidate_cache()
            # Object stores list everything at once, by prefix; web servers show one page.
            is_flat = _protocol(fs) in _OBJECT_STORES | {"http", "https"}
            try:
                return dict(fs.glob(full, detail=True)) if is_flat else files_matching(fs, full)
            except FileNotFoundError:
                return {}

        return self.attempt("list", "", call)

    def _resolve(self, path: str) -> tuple[AbstractFileSystem, str]:
        return resolve(self.locate(path), self.options)

    def attempt(self, action: str, path: str, call: Callable[[AbstractFileSystem, str], _Answer]) -> _Answer:
        """Call with the file system and the path in it; a few times, with growing waits, where the error passes.

        Raises:
            StorageError: it does not pass; the message says what was tried (`action`) and with which file.
        """
        wait = _FIRST_WAIT_SECONDS
        for left in reversed(range(_ATTEMPTS)):
            try:
                return call(*self._resolve(path))
            except network_errors() as error:
                if left == 0 or not is_transient(error):
                    raise explain(error, action, self.locate(path)) from error
                _log.warning("%s %s: %s; trying again", action, self.locate(path), error)
            except pa.ArrowInvalid:
                raise
            except ValueError as error:
                # Names that no file can have: with a null byte, or not a URL.
                raise StorageError(f"cannot {action} {self.locate(path)!r}: {error}") from error
            time.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, not a secret
            wait *= 4
        raise AssertionError("unreachable: the last attempt returns or raises")


def read_uri(uri: str, options: Mapping[str, Any]) -> bytes:
    """Read the file at a path or URL.

    Raises:
        MissingFileError: there is no such file.
        StorageError: it cannot be read.
    """
    return Store(uri, options).read("")


def resolve(url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL and the path in it.

    Raises:
        StorageError: the scheme is unknown, its package is missing or its options are wrong.
    """
    # Not by `url_to_fs`, to which `::` in a name means file systems inside one another.
    if is_local(url):
        local = fsspec.filesystem("file")
        return local, local._strip_protocol(url)
    protocol = url.split("://", 1)[0]
    try:
        of_the_url = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(url)
        fs = fsspec.filesystem(protocol, **{"use_listings_cache": False, **of_the_url, **options})
    except (ValueError, ImportError, TypeError) as error:
        raise StorageError(
            f"cannot open {url}: {error}. Expected a local path or a URL such as s3://bucket/folder"
        ) from error
    return fs, fs._strip_protocol(url)


def is_local(url: str) -> bool:
    """Whether a URL is a path on this machine."""
    return "://" not in url or url.split("://", 1)[0] in _LOCAL


def _protocol(fs: AbstractFileSystem) -> str:
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


@contextmanager
def _renamed(fs: AbstractFileSystem, full: str) -> Iterator[BinaryIO]:
    folder, _, name = full.rpartition("/")
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}{_TEMPORARY_SUFFIX}"
    fs.makedirs(folder, exist_ok=True)
    is_local = _protocol(fs) in _LOCAL
    try:
        with fs.open(temporary, "wb") as file:
            yield file
            file.flush()
            if is_local:
                os.fsync(file.fileno())
        if is_local:
            Path(temporary).replace(full)
        else:
            fs.mv(temporary, full)
    finally:
        if fs.exists(temporary):
            fs.rm_file(temporary)


@contextmanager
def _uploaded(fs: AbstractFileSystem, full: str) -> Iterator[BinaryIO]:
    file = fs.open(full, "wb", autocommit=False)
    is_complete = False
    try:
        yield file
        file.close()
        is_complete = True
    finally:
        if is_complete:
            file.commit()
        else:
            file.discard()


def _entry(path: str, info: Mapping[str, Any]) -> Entry:
    return Entry(path, int(info.get("size") or 0), stamp_of(info), _modified(info))


def _modified(info: Mapping[str, Any]) -> float | None:
    names = ("mtime", "LastModified", "last_modified", "created")
    value = next((info[name] for name in names if info.get(name)), None)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def stamp_of(info: Mapping[str, Any]) -> str:
    """What changes when the content of a file may have changed, from fsspec's description of it.

    Empty where that is nothing but a name, as in the listing of a web server.
    """
    tag = next((info[name] for name in _TAGS if info.get(name)), None)
    if tag:
        return str(tag).strip('"')
    changed = next((info[name] for name in _TIMES if info.get(name)), "")
    size = info.get("size")
    return f"{changed}-{size}" if changed or size is not None else ""
