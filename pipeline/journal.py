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
from pipeline.manifest import DONE, encode_table, read_table
from pipeline.storage import Store

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
    """source_id, fingerprint and status of every row of a shard or manifest, in its order.

    A shard that cannot be read is left out with a warning: its rows are computed again, which is always right.
    """
    try:
        return read_table(run, path, _KEYS).select(_KEYS).replace_schema_metadata(None)
    except (StorageError, KeyError) as error:
        _log.warning("ignoring %s: %s", run.locate(path), error)
        return pa.table({name: pa.array([], pa.string()) for name in _KEYS})


def read_all_keys(run: Store, paths: Sequence[str]) -> list[pa.Table]:
    """`read_keys` of many files at once: most of the time is waiting for the storage."""
    with ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="journal") as pool:
        return list(pool.map(lambda path: read_keys(run, path), paths))


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
