"""Random access to the rows of a Parquet file, one row group at a time, with a bounded cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galatea.errors import StorageError
from pipeline.manifest import damaged, open_parquet
from pipeline.storage import Store
from pipeline.storage_errors import network_errors

_Value = TypeVar("_Value")
_MAX_OPEN_FILES = 16


class BoundedCache(Generic[_Value]):
    """Keeps the values used last, up to a number of bytes."""

    def __init__(self, max_bytes: int, size_of: Callable[[_Value], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._num_bytes = 0
        self._values: OrderedDict[tuple[str, int], _Value] = OrderedDict()

    def get(self, key: tuple[str, int], make: Callable[[], _Value]) -> _Value:
        """The value of a key, made where it is not at hand."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self._num_bytes += self._size_of(value)
        while self._num_bytes > self._max_bytes and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._num_bytes -= self._size_of(dropped)
        return value


class RowReader:
    """Reads rows by number from Parquet files of a store; rows that are near each other cost one read."""

    def __init__(self, store: Store, max_cached_bytes: int = 128 << 20) -> None:
        self._store = store
        self._groups: BoundedCache[pa.Table] = BoundedCache(max_cached_bytes, lambda table: int(table.nbytes))
        self._opened: OrderedDict[str, _OpenFile] = OrderedDict()
        self._starts: dict[str, np.ndarray] = {}
        """Path -> number of the first row of each row group; kept when the file is closed."""

    def take(self, path: str, rows: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a file in the order asked for.

        Raises:
            MissingFileError: there is no such file.
            StorageError: it is damaged, or has no such row.
        """
        if path not in self._starts:
            self._open(path)
        starts = self._starts[path]
        parts = []
        place = 0
        while place < len(rows):
            group = int(np.searchsorted(starts, rows[place], side="right")) - 1
            table = self._row_group(path, group, columns)
            offset = rows[place] - int(starts[group])
            if offset >= table.num_rows:
                raise self._replaced(path, f"has no row {rows[place]}")
            length = _run_length(rows, place, table.num_rows - offset)
            parts.append(table.slice(offset, length))
            place += length
        return pa.concat_tables(parts)

    def close(self) -> None:
        """Close the files."""
        while self._opened:
            self._opened.popitem()[1].stack.close()

    def _row_group(self, path: str, group: int, columns: Sequence[str] | None) -> pa.Table:
        key = (f"{path}?{','.join(columns or ())}", group)
        return self._groups.get(key, lambda: self._read_row_group(path, group, columns))

    def _read_row_group(self, path: str, group: int, columns: Sequence[str] | None) -> pa.Table:
        def read(*_: object) -> pa.Table:
            file = self._open(path).file
            try:
                return file.read_row_group(group, columns=columns, use_threads=False)
            except network_errors():
                # A connection that broke stays broken: the next attempt needs another.
                self._opened.pop(path).stack.close()
                raise

        return self._store.attempt("read", path, read)

    def _open(self, path: str) -> _OpenFile:
        if path in self._opened:
            self._opened.move_to_end(path)
            return self._opened[path]
        with ExitStack() as stack:
            raw = stack.enter_context(self._store.reading(path))
            try:
                file = open_parquet(raw)
            except pa.ArrowInvalid as error:
                raise damaged(self._store.locate(path), error) from error
            sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            starts = np.cumsum([0, *sizes[:-1]])
            if not np.array_equal(starts, self._starts.setdefault(path, starts)):
                raise self._replaced(path, "has other row groups than before")
            self._opened[path] = _OpenFile(file, stack.pop_all())
        if len(self._opened) > _MAX_OPEN_FILES:
            self._opened.popitem(last=False)[1].stack.close()
        return self._opened[path]

    def _replaced(self, path: str, what: str) -> StorageError:
        return StorageError(f"{self._store.locate(path)} {what}: it was replaced while it was read")


def _run_length(rows: Sequence[int], start: int, limit: int) -> int:
    """How many of the rows from `start` on follow on each other, at most `limit`."""
    length = 1
    while length < limit and start + length < len(rows) and rows[start + length] == rows[start] + length:
        length += 1
    return length


@dataclass(frozen=True)
class _OpenFile:
    file: pq.ParquetFile
    stack: ExitStack
    """Closes the file."""
