"""Compaction: from the journals of many workers to the one manifest of a stage.

The manifest has exactly the rows of what was asked for, in the order of the requests, each record once. It is streamed
row group by row group, and `statistics.json` is written last: where that says that it stands for the same
requests, the stage is finished.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from galatea.errors import StorageError
from pipeline.fingerprint import digest
from pipeline.journal import read_all_keys, shard_paths
from pipeline.manifest import (
    BOOKKEEPING,
    DONE,
    ROWS_PER_GROUP,
    SCHEMA_VERSION,
    columns_of,
    manifest_path,
    read_table,
    write_table,
)
from pipeline.rows import RowReader
from pipeline.storage import Store, is_local
from pipeline.storage_errors import MissingFileError
from stages.base import Kind

_NOT_SUMMARISED = {column.name for column in BOOKKEEPING} - {"run_seconds"}


@dataclass(frozen=True)
class Findings:
    """What planning found out that compaction must know."""

    damaged: frozenset[str] = frozenset()
    """Files that cannot be used and whose rows were computed again; they are not read."""
    lost: frozenset[str] = frozenset()
    """Records whose files were gone and that were computed again: their newest rows count, done or not."""


def statistics_path(stage: str) -> str:
    """Where the statistics of a stage are in the run folder."""
    return f"{stage}/statistics.json"


def requests_digest(keys: Sequence[tuple[str, str]]) -> str:
    """A hash of the ordered (source_id, fingerprint) that a manifest is made for."""
    return digest(*(part for key in keys for part in key))


def read_statistics(run: Store, stage: str) -> dict[str, Any]:
    """The statistics of a finished stage; {} where it is not finished."""
    path = statistics_path(stage)
    try:
        return dict(json.loads(run.read(path)))
    except MissingFileError:
        return {}
    except ValueError as error:
        raise StorageError(f"{run.locate(path)} is damaged ({error}): delete it and run again") from error


def compact(
    run: Store,
    stage: str,
    schema: pa.Schema,
    keys: Sequence[tuple[str, str]],
    begun_at: float,
    findings: Findings | None = None,
) -> dict[str, Any]:
    """Write the manifest and the statistics of a stage from its old manifest and its journals; then clean up.

    What a file does not tell here is deleted for good. So nothing is written or deleted before every file was read and
    every key has its row.

    Args:
        run: the run folder.
        stage: name of the stage.
        schema: of its manifest.
        keys: (source_id, fingerprint) of everything that was asked for, in order. Rows of others are dropped.
        begun_at: when the invocation began, in seconds since 1970; newer files are kept, whoever wrote them.
        findings: what planning found out.

    Returns:
        The statistics.

    Raises:
        StorageError: a file cannot be read, or a record has no row; everything is as it was.
    """
    findings = findings or Findings()
    shards = shard_paths(run, stage)
    paths = [path for path in manifest_and_shards(run, stage, shards) if path not in findings.damaged]
    try:
        chosen = _choose(list(zip(paths, read_all_keys(run, paths), strict=True)), keys, findings.lost)
    except StorageError as error:
        raise type(error)(f"{error}. All finished rows of {stage} are kept: run again to continue") from error
    _check_complete(run, stage, keys, chosen)
    with closing(RowReader(run)) as reader:
        tables = _ordered_tables(reader, chosen, keys, schema)
        statistics = publish_manifest(run, stage, schema, tables, requests_digest(keys), shards)
    _delete_orphans(run, stage, schema, begun_at)
    return statistics


def manifest_and_shards(run: Store, stage: str, shards: Sequence[str]) -> list[str]:
    """The files that hold the rows of a stage: its manifest, where there is one, and these shards of its journal."""
    path = manifest_path(stage)
    return [path, *shards] if run.exists(path) else list(shards)


def _check_complete(run: Store, stage: str, keys: Sequence[tuple[str, str]], found: Container[str]) -> None:
    missing = [source_id for source_id, _ in keys if source_id not in found]
    if missing:
        raise StorageError(
            f"{run.locate(stage)}: {len(missing)} of {len(keys)} records have no row although all were computed "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). "
            "All finished rows are kept: run again, and what is missing is computed"
        )


def publish_manifest(
    run: Store, stage: str, schema: pa.Schema, tables: Iterable[pa.Table], requests: str, shards: Sequence[str]
) -> dict[str, Any]:
    """Write manifest, then statistics, then remove the journal shards that went in and what killed writers left.

    Args:
        run: the run folder.
        stage: name of the stage.
        schema: of its manifest.
        tables: the rows.
        requests: digest of what the manifest stands for.
        shards: journal shards that are not needed any more.

    Returns:
        The statistics.
    """
    write_table(run, manifest_path(stage), tables, schema)
    statistics = _summarise(run, stage, schema) | {"requests": requests}
    run.write(statistics_path(stage), json.dumps(statistics, indent=2, sort_keys=True).encode())
    for path in shards:
        run.delete(path)
    run.sweep_temporaries(stage)
    return statistics


def _choose(
    files: Sequence[tuple[str, pa.Table]], keys: Sequence[tuple[str, str]], lost: Collection[str]
) -> Mapping[str, tuple[str, list[int]]]:
    """For every record, the file and rows to keep: done before not done (unless it was lost), then the newest."""
    wanted = dict(keys)
    best: dict[str, tuple[bool, int]] = {}
    rows: dict[str, list[int]] = {}
    for number, (_, table) in enumerate(files):
        columns = (table.column(name).to_pylist() for name in ("source_id", "fingerprint", "status"))
        for row, (source_id, fingerprint, status) in enumerate(zip(*columns, strict=True)):
            if wanted.get(source_id) != fingerprint:
                continue
            rank = (status == DONE and source_id not in lost, number)
            if source_id in best and best[source_id] == rank:
                rows[source_id].append(row)
            elif source_id not in best or best[source_id] < rank:
                best[source_id], rows[source_id] = rank, [row]
    return {source_id: (files[number][0], rows[source_id]) for source_id, (_, number) in best.items()}


def _ordered_tables(
    reader: RowReader,
    chosen: Mapping[str, tuple[str, list[int]]],
    keys: Sequence[tuple[str, str]],
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    """The rows to keep, in order, as tables of one row group each."""
    places = [(path, row) for source_id, _ in keys if source_id in chosen for path, row in _places(chosen[source_id])]
    for start in range(0, len(places), ROWS_PER_GROUP):
        together = groupby(places[start : start + ROWS_PER_GROUP], key=itemgetter(0))
        parts = [reader.take(path, [row for _, row in group]).cast(schema) for path, group in together]
        yield pa.concat_tables(parts).combine_chunks()


def _places(chosen: tuple[str, list[int]]) -> Iterator[tuple[str, int]]:
    path, rows = chosen
    yield from ((path, row) for row in rows)


def _summarise(run: Store, stage: str, schema: pa.Schema) -> dict[str, Any]:
    numeric = [
        name
        for name, column in columns_of(schema).items()
        if column.kind in {Kind.INT, Kind.FLOAT} and name not in _NOT_SUMMARISED
    ]
    table = read_table(run, manifest_path(stage), ["status", "error_code", "source_id", *numeric])
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "num_rows": table.num_rows,
        "num_records": len(pc.unique(table["source_id"])),
        "status": _counts(table["status"]),
        "errors": {code: count for code, count in _counts(table["error_code"]).items() if code},
        "columns": {name: _distribution(table[name]) for name in numeric},
    }


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {str(item["values"]): int(item["counts"]) for item in pc.value_counts(values).to_pylist()}


def _distribution(values: pa.ChunkedArray) -> dict[str, float | int | None]:
    present = pc.drop_null(values)
    if len(present) == 0:
        return {"count": 0}
    low, middle, high = pc.quantile(present, q=[0.05, 0.5, 0.95]).to_pylist()
    extremes = pc.min_max(present).as_py()
    mean = float(pc.mean(present).as_py())
    return {"count": len(present), "mean": mean, "p05": low, "p50": middle, "p95": high, **extremes}


def _delete_orphans(run: Store, stage: str, schema: pa.Schema, begun_at: float) -> None:
    """Remove files that no row points to: of dropped rows, and of batches that were killed before their row.

    Newer ones stay: where folders cannot be locked, another process may have written them, and not yet their rows.
    """
    files = [name for name, column in columns_of(schema).items() if column.kind is Kind.FILE]
    if not files:
        return
    table = read_table(run, manifest_path(stage), files)
    used = {path for name in files for path in table[name].to_pylist()}
    # Object stores tell whole seconds.
    limit = begun_at if is_local(run.url) else math.floor(begun_at)
    for entry in run.files(f"{stage}/files"):
        if entry.path not in used and entry.modified is not None and entry.modified < limit:
            run.delete(entry.path)
