"""What is left to do for a stage: what was asked for, minus what is finished and still there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.compaction import Findings, manifest_and_shards, read_statistics, requests_digest
from pipeline.journal import read_usable_keys, shard_paths, unfinished
from pipeline.loading import WAITING
from pipeline.manifest import DONE, columns_of, manifest_path, read_table
from pipeline.requests import Request
from pipeline.storage import Store
from stages.base import Kind

_KEYS = ["source_id", "fingerprint"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remaining:
    """What a stage has to do."""

    items: Sequence[Request] = ()
    """To be computed."""
    is_compact: bool = False
    """Whether the manifest stands for these very requests already."""
    findings: Findings = field(default_factory=Findings)


def find_remaining(
    run: Store,
    schema: pa.Schema,
    stage: str,
    items: Sequence[Request],
    keys: Sequence[tuple[str, str]],
    retry_failed: bool,
) -> Remaining:
    """Compare what is asked for with the manifest, the journal and the files of a stage.

    Args:
        run: the run folder.
        schema: of the stage's manifest.
        stage: its name.
        items: what is asked for.
        keys: source_id and fingerprint of each of them.
        retry_failed: rows that failed or were quarantined do not count as finished.

    Raises:
        StorageError: the run folder cannot be read.
    """
    shards = shard_paths(run, stage)
    statistics = read_statistics(run, stage)
    is_current = not shards and statistics.get("requests") == requests_digest(keys)
    is_compact = is_current and run.exists(manifest_path(stage))
    files = _FilesOf(run, stage, schema)
    if is_compact and not _may_be_tried_again(statistics, retry_failed) and files.are_whole():
        return Remaining(is_compact=True)
    paths = manifest_and_shards(run, stage, shards)
    usable = read_usable_keys(run, paths, ("error_code", *files.columns))
    damaged = frozenset(paths) - set(usable)
    if not usable:
        return Remaining(items, findings=Findings(damaged))
    rows = pa.concat_tables(usable.values(), promote_options="default")
    is_waiting = _is_waiting(rows)
    settled = rows.filter(pc.invert(is_waiting))
    gone = settled.filter(pc.invert(files.has_all(settled))).select(_KEYS)
    finished = settled.select([*_KEYS, "status"]).join(gone, keys=_KEYS, join_type="left anti")
    left = unfinished(_requested(keys), finished, retry_failed)
    lost, waiting = (
        frozenset(found["source_id"].to_pylist()) & frozenset(left["source_id"].to_pylist())
        for found in (gone, rows.filter(is_waiting))
    )
    if lost:
        _log.warning("%s: %d records are computed again: files of theirs were gone", stage, len(lost))
    if waiting:
        _log.info("%s: %d records are tried again: files that they need could not be read", stage, len(waiting))
    chosen = [items[position] for position in left["position"].to_pylist()]
    return Remaining(chosen, is_compact, Findings(damaged, lost))


class _FilesOf:
    """The files that the rows of a stage point to, and whether they are there."""

    def __init__(self, run: Store, stage: str, schema: pa.Schema) -> None:
        self._run, self._stage = run, stage
        self.columns = [name for name, column in columns_of(schema).items() if column.kind is Kind.FILE]
        paths = [entry.path for entry in run.files(f"{stage}/files")] if self.columns else []
        self._there = pa.array(paths, pa.string())

    def are_whole(self) -> bool:
        """Whether all files of the manifest are there."""
        if not self.columns:
            return True
        table = read_table(self._run, manifest_path(self._stage), self.columns)
        return pc.all(self.has_all(table), min_count=0).as_py() is True

    def has_all(self, rows: pa.Table) -> pa.ChunkedArray:
        """For each row, whether all files that it points to are there."""
        is_whole = pa.chunked_array([np.ones(rows.num_rows, bool)])
        for name in self.columns:
            if name in rows.column_names:
                is_there = pc.or_(pc.is_null(rows[name]), pc.is_in(rows[name], value_set=self._there))
                is_whole = pc.and_(is_whole, is_there)
        return is_whole


def _may_be_tried_again(statistics: Mapping[str, Any], retry_failed: bool) -> bool:
    has_failures = bool(set(statistics.get("status", {})) - {DONE})
    return (retry_failed and has_failures) or bool(WAITING & set(statistics.get("errors", {})))


def _is_waiting(rows: pa.Table) -> pa.ChunkedArray:
    """For each row, whether it failed only for want of a file, which may be there again."""
    return pc.is_in(rows["error_code"], value_set=pa.array(sorted(WAITING)))


def _requested(keys: Sequence[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {
            "source_id": pa.array([key[0] for key in keys], pa.string()),
            "fingerprint": pa.array([key[1] for key in keys], pa.string()),
            "position": pa.array(range(len(keys)), pa.int64()),
        }
    )
