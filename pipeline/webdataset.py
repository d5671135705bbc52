"""WebDataset shards: the finished rows of a manifest as tar files, as `webdataset` and `torch` loaders read them.

A row is a sample: its id is the key, pictures are members, everything else is in one JSON member. The bytes follow from
the manifest alone (no times, no owners), and a shard that is there already is not written again.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from galatea.errors import StorageError
from pipeline.fingerprint import digest
from pipeline.manifest import BOOKKEEPING, DONE, columns_of, manifest_path, read_ids, to_rows
from pipeline.rows import RowReader
from pipeline.storage import Store
from pipeline.storage_errors import MissingFileError
from stages.base import Column, Kind

FOLDER = "webdataset"
SAMPLES_PER_SHARD = 1000
_NUM_READERS = 16
_LEFT_OUT = {column.name for column in BOOKKEEPING} - {"fingerprint", "code_version"}


@dataclass(frozen=True)
class Shard:
    """A tar file."""

    name: str
    num_samples: int
    digest: str
    """Of the ids and fingerprints of its rows."""


@dataclass(frozen=True)
class ShardIndex:
    """All tar files of a data set; `webdataset/index.json`."""

    shards: tuple[Shard, ...] = ()

    @property
    def num_samples(self) -> int:
        """In all shards."""
        return sum(shard.num_samples for shard in self.shards)


def pack(run: Store, stage: str, prefix: str, samples_per_shard: int = SAMPLES_PER_SHARD) -> ShardIndex:
    """Bring the shards of a stage's finished rows in line with its manifest.

    Args:
        run: the run folder.
        stage: whose manifest.
        prefix: first part of the names of shards.
        samples_per_shard: of every shard but the last.

    Returns:
        The index, which is also written beside the shards, after each of them.

    Raises:
        StorageError: something cannot be read or written; shards that are listed in the index are whole.
    """
    id_column, _, ids = read_ids(run, stage)
    rows = [row for row, status in enumerate(ids["status"].to_pylist()) if status == DONE]
    marks = [f"{a}:{b}" for a, b in zip(ids[id_column].to_pylist(), ids["fingerprint"].to_pylist(), strict=True)]
    present = {shard.name: shard for shard in _read_index(run).shards if run.exists(f"{FOLDER}/{shard.name}")}
    shards = []
    with closing(RowReader(run)) as reader:
        for start in range(0, len(rows), samples_per_shard):
            chosen = rows[start : start + samples_per_shard]
            name = f"{prefix}-{start // samples_per_shard:06d}.tar"
            shard = Shard(name, len(chosen), digest(*(marks[row] for row in chosen)))
            if present.get(name) != shard:
                _write_shard(run, f"{FOLDER}/{name}", reader.take(manifest_path(stage), chosen), id_column)
                present[name] = shard
                _write_index(run, ShardIndex(tuple(present.values())))
            shards.append(shard)
    index = ShardIndex(tuple(shards))
    _write_index(run, index)
    _delete_others(run, {shard.name for shard in shards})
    return index


def _write_shard(run: Store, path: str, table: pa.Table, id_column: str) -> None:
    columns = columns_of(table.schema)
    files = [name for name, column in columns.items() if column.kind is Kind.FILE]
    rows = to_rows(table)
    with (
        run.writing(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="files") as pool,
    ):
        contents = pool.map(lambda row: {name: run.read(row[name]) for name in files}, rows)
        for row, read in zip(rows, contents, strict=True):
            for name, data in _members({**row, **read}, columns):
                member = tarfile.TarInfo(f"{row[id_column]}.{name}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))


def _members(row: Mapping[str, Any], columns: Mapping[str, Column]) -> Iterator[tuple[str, bytes]]:
    """Names (behind the key) and contents: `jpg` for a file named image, `alpha.png`, `json`."""
    facts = {}
    for name, column in columns.items():
        if column.kind in {Kind.FILE, Kind.BYTES} and row[name] is not None:
            ending = column.suffix.lstrip(".") or "bin"
            yield (ending if name == "image" else f"{name}.{ending}"), row[name]
        elif name not in _LEFT_OUT:
            facts[name] = row[name].tolist() if isinstance(row[name], np.ndarray) else row[name]
    yield "json", json.dumps(facts).encode()


def _read_index(run: Store) -> ShardIndex:
    try:
        found = json.loads(run.read(f"{FOLDER}/index.json"))
        return ShardIndex(tuple(Shard(**shard) for shard in found["shards"]))
    except MissingFileError:
        return ShardIndex()
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{run.locate(FOLDER)}/index.json is damaged ({error}): delete it, and the shards are written again"
        ) from error


def _write_index(run: Store, index: ShardIndex) -> None:
    run.write(f"{FOLDER}/index.json", json.dumps(asdict(index), indent=1).encode())


def _delete_others(run: Store, names: set[str]) -> None:
    """Remove shards that an earlier, larger data set left."""
    for entry in run.files(FOLDER):
        name = entry.path.rpartition("/")[2]
        if name.endswith(".tar") and name not in names:
            run.delete(entry.path)
