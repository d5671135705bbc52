"""Journals: where the workers publish finished rows at once, so that a kill loses only the batches in flight.

Every worker writes its own shards. The rows of each batch are durable when the batch is: the current shard is
published again with the new rows until it is full (by rows, bytes or age), and then a new one is begun. So the
number of files stays small without a moment at which finished rows are only in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from galatea.errors import StorageError
from pipeline.manifest import DONE, damaged, encode_table, read_table
from pipeline.storage import Store
from pipeline.storage_errors import DamagedFileError, MissingFileError

_log = logging.getLogger(__name__)
_NUM_READERS = 16
_KEYS = ("source_id", "fingerprint", "status")


@dataclass(frozen=True)
class JournalLimits:
    """When a shard is full. Small shards cost files, large ones are written over more often."""

    rows: int = 256
    num_bytes: int = 4 << 20
    seconds: float = 30.0


class JournalWriter:
    """Publishes rows to the shards of one worker."""

    def __init__(self, run: Store, stage: str, writer: str, schema: pa.Schema, limits: JournalLimits) -> None:
        self._run = run
        self._prefix = f"{journal_path(stage)}/{writer}"
        self._schema = schema
        self._limits = limits
        self._number = 0
        self._begin()

    def publish(self, table: pa.Table) -> None:
        """Make rows durable.

        Raises:
            StorageError: they could not be written; the shards before are intact.
        """
        self._tables.append(table)
        self._run.write(f"{self._prefix}-{self._number:05d}.parquet", encode_table(self._tables, self._schema))
        num_rows = sum(part.num_rows for part in self._tables)
        num_bytes = sum(int(part.nbytes) for part in self._tables)
        is_old = time.monotonic() - self._begun >= self._limits.seconds
        if is_old or num_rows >= self._limits.rows or num_bytes >= self._limits.num_bytes:
            self._number += 1
            self._begin()

    def _begin(self) -> None:
        self._tables: list[pa.Table] = []
        self._begun = time.monotonic()


def journal_path(stage: str) -> str:
    """Where the journal shards of a stage are in the run folder."""
    return f"{stage}/journal"


def shard_paths(run: Store, stage: str, writer: str = "") -> list[str]:
    """The journal shards of a stage, oldest writer first; `writer` limits them to one worker's."""
    paths = [entry.path for entry in run.files(journal_path(stage)) if entry.path.endswith(".parquet")]
    return [path for path in paths if path.rpartition("/")[2].startswith(writer)]


def read_keys(run: Store, path: str) -> pa.Table:
    """source_id, fingerprint and status of every row of a shard, in its order.

    A shard that cannot be read is left out with a warning. That is only right where rows that are not seen are
    computed again; what deletes files must use `read_all_keys`.
    """
    try:
        return _read_keys(run, path)
    except StorageError as error:
        _log.warning("ignoring %s: %s", run.locate(path), error)
        return pa.table({name: pa.array([], pa.string()) for name in _KEYS})


def _read_keys(run: Store, path: str, more: Sequence[str] = ()) -> pa.Table:
    table = read_table(run, path, (*_KEYS, *more))
    missing = sorted(set(_KEYS) - set(table.column_names))
    if missing:
        raise damaged(run.locate(path), f"it has no columns {missing}")
    present = [name for name in (*_KEYS, *more) if name in table.column_names]
    return table.select(present).replace_schema_metadata(None)


def read_all_keys(run: Store, paths: Sequence[str]) -> list[pa.Table]:
    """source_id, fingerprint and status of every row of many files, in their order.

    Raises:
        MissingFileError: a file is not there.
        DamagedFileError: a file is no Parquet file, or lacks these columns.
        StorageError: a file cannot be read.
    """
    # Many at once: most of the time is waiting for the storage.
    with ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="journal") as pool:
        return list(pool.map(lambda path: _read_keys(run, path), paths))


def read_usable_keys(run: Store, paths: Sequence[str], more: Sequence[str] = ()) -> dict[str, pa.Table]:
    """What `read_all_keys` reads, by path, for planning: damaged files are left out, and their rows computed again.

    Only what is damaged for good is left out: a file that cannot be read now may hold days of work. `more` names
    columns to read besides; where a file lacks them, so does its table.

    Raises:
        StorageError: a file cannot be read.
    """
    with ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="journal") as pool:
        tables = list(pool.map(lambda path: _usable_keys(run, path, more), paths))
    return {path: table for path, table in zip(paths, tables, strict=True) if table is not None}


def _usable_keys(run: Store, path: str, more: Sequence[str]) -> pa.Table | None:
    try:
        return _read_keys(run, path, more)
    except (DamagedFileError, MissingFileError) as error:
        _log.warning("ignoring %s: %s", run.locate(path), error)
        return None
    except StorageError as error:
        raise type(error)(
            f"{error}. Nothing was changed: run again. If it stays so, delete the file: its rows are computed again"
        ) from error


def unfinished(requested: pa.Table, finished: pa.Table, retry_failed: bool = False) -> pa.Table:
    """The requested (source_id, fingerprint) that no finished row has: one anti-join.

    Args:
        requested: columns source_id, fingerprint, position (int64).
        finished: columns source_id, fingerprint, status.
        retry_failed: rows that failed or were quarantined do not count as finished.

    Returns:
        The rows of `requested` that are left, by position.
    """
    if retry_failed:
        finished = finished.filter(pc.equal(finished["status"], DONE))
    keys = ["source_id", "fingerprint"]
    left = requested.join(finished.select(keys), keys=keys, join_type="left anti")
    return left.sort_by("position")
