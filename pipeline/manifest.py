"""Manifests: the rows of a stage as Parquet, with a schema that follows from the stage's declared columns.

A TENSOR is a list of float32 whose shape is in the field's metadata and checked when it is written (-1: any length
of the first axis); BYTES are binary; a FILE is its path relative to the run folder. Every schema carries the
version of this layout, so that a newer one is refused with a clear message instead of being misread.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galatea.errors import RecordError, StorageError
from pipeline.storage import Store
from pipeline.storage_errors import DamagedFileError
from stages.base import Column, Kind

SCHEMA_VERSION = 1
ROWS_PER_GROUP = 64
"""Small row groups: later stages read the rows that they need, and pictures live in the rows."""

DONE, FAILED, REJECTED, NO_FACE, QUARANTINED = "done", "failed", "rejected", "no_face", "quarantined"

BOOKKEEPING = (
    Column("status", Kind.STRING, "done, failed, rejected (ingest), no_face, or quarantined (killed its process)"),
    Column("error_code", Kind.STRING, "stable code of what went wrong"),
    Column("error_message", Kind.STRING, "what went wrong, for people"),
    Column("source_id", Kind.STRING, "the input record that the row was made from"),
    Column("fingerprint", Kind.STRING, "hash of code, configuration, models and inputs that made the row"),
    Column("run_seconds", Kind.FLOAT, "seconds of computing spent on the input record"),
    Column("code_version", Kind.STRING, "version of the code that made the row"),
    Column("models", Kind.STRING, "JSON list of the models that took part: name, version, sha256, licence"),
)
_SIMPLE: Mapping[Kind, pa.DataType] = {
    Kind.STRING: pa.string(),
    Kind.INT: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOL: pa.bool_(),
    Kind.BYTES: pa.binary(),
    Kind.FILE: pa.string(),
}
_PYTHON: Mapping[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.INT: (int, np.integer),
    Kind.FLOAT: (float, int, np.floating, np.integer),
    Kind.BOOL: (bool, np.bool_),
    Kind.BYTES: (bytes,),
    Kind.FILE: (str,),
}
_LINKS = ("source_id", "fingerprint", "status")
_HEAVY = {Kind.BYTES, Kind.TENSOR}


class BadOutputError(RecordError):
    """A stage returned a value that its declared column cannot hold."""

    code = "bad_output"


def manifest_path(stage: str) -> str:
    """Where the manifest of a stage is in the run folder."""
    return f"{stage}/manifest.parquet"


def build_schema(stage: str, id_column: str, columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a stage: its declared columns, then the pipeline's bookkeeping columns."""
    fields = [_field(column) for column in (*columns, *BOOKKEEPING)]
    facts = {"galatea.schema_version": str(SCHEMA_VERSION), "galatea.stage": stage, "galatea.id_column": id_column}
    return pa.schema(fields, metadata=facts)


def columns_of(schema: pa.Schema) -> dict[str, Column]:
    """The declared columns that a manifest's schema was built from, by name."""
    return {field.name: _column(field) for field in schema}


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Pack rows; a column that a row does not have is null.

    Raises:
        BadOutputError: a value does not fit its column; the message names row and column.
    """
    arrays = []
    id_column = _metadata(schema, "galatea.id_column")
    for field in schema:
        column = _column(field)
        values = [
            encode_value(row.get(field.name), column, row_name=str(row.get(id_column) or row.get("source_id")))
            for row in rows
        ]
        arrays.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Unpack rows; TENSOR columns become float32 arrays of their declared shape."""
    columns = columns_of(table.schema)
    values = {
        name: [_decode_value(value, columns[name]) for value in table.column(name).to_pylist()] for name in columns
    }
    return [{name: values[name][index] for name in columns} for index in range(table.num_rows)]


def encode_value(value: Any, column: Column, row_name: str) -> Any:
    """Check a value against its column and make it one that Arrow takes.

    Raises:
        BadOutputError: it does not fit.
    """
    if value is None:
        return None
    if column.kind is Kind.TENSOR:
        return _encode_tensor(value, column, row_name)
    is_right = isinstance(value, _PYTHON[column.kind]) and not (
        isinstance(value, bool) and column.kind in {Kind.INT, Kind.FLOAT}
    )
    if not is_right:
        raise BadOutputError(
            f"row {row_name}, column {column.name}: expected {column.kind.value}, got {type(value).__name__}"
        )
    return value.item() if isinstance(value, np.generic) else value


def write_table(store: Store, path: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Publish tables as one Parquet file with column statistics, in groups of few rows; streams."""
    with store.writing(path) as file:
        _write_parquet(file, tables, schema)


def encode_table(tables: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    """The bytes of a small Parquet file."""
    buffer = io.BytesIO()
    _write_parquet(buffer, tables, schema)
    return buffer.getvalue()


def _write_parquet(file: IO[bytes], tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    heavy = {column.name for column in columns_of(schema).values() if column.kind in _HEAVY}
    light = [name for name in schema.names if name not in heavy]
    options: dict[str, Any] = {
        # Pictures are compressed already; tensors of floats hardly shrink.
        "compression": {name: "none" if name in heavy else "zstd" for name in schema.names},
        "use_dictionary": light,
        "write_statistics": light,
    }
    with pq.ParquetWriter(file, schema, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)


def read_table(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a manifest or journal shard; `columns` limits what is read, and what is missing there is left out.

    Raises:
        MissingFileError: there is no such manifest.
        StorageError: it is damaged, or was written by a newer version.
    """
    return _read_parquet(store, path, lambda schema: schema.names if columns is None else columns)[1]


def read_schema(store: Store, path: str) -> pa.Schema:
    """The schema of a manifest; see `read_table` for the errors."""
    return _read_parquet(store, path, lambda _: [])[0]


def read_ids(store: Store, stage: str) -> tuple[str, set[str], pa.Table]:
    """What links a stage's rows to others, in one read.

    Returns:
        The name of its id column; the names of all its columns; a table of id, source_id, fingerprint and status.

    Raises:
        MissingFileError: the stage has no manifest.
        StorageError: see `read_table`.
    """
    schema, table = _read_parquet(
        store, manifest_path(stage), lambda found: [_metadata(found, "galatea.id_column"), *_LINKS]
    )
    return _metadata(schema, "galatea.id_column"), set(schema.names), table


def _read_parquet(store: Store, path: str, choose: Callable[[pa.Schema], Sequence[str]]) -> tuple[pa.Schema, pa.Table]:
    def read(raw: IO[bytes]) -> tuple[pa.Schema, pa.Table]:
        file = open_parquet(raw)
        wanted = [name for name in dict.fromkeys(choose(file.schema_arrow)) if name in file.schema_arrow.names]
        return file.schema_arrow, file.read(columns=wanted, use_threads=False)

    url = store.locate(path)
    try:
        schema, table = store.read_with(path, read)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise damaged(url, error) from error
    version = int(_metadata(schema, "galatea.schema_version") or 0)
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{url} has layout version {version}, this Galatea reads up to {SCHEMA_VERSION}: "
            "update Galatea, or use a new run folder"
        )
    return schema, table


def open_parquet(raw: IO[bytes]) -> pq.ParquetFile:
    """A Parquet file that is read by the calling thread alone; pass `use_threads=False` to its reads as well.

    Arrow's own threads let go of the Python file a moment after a read has returned. Where the program ends within
    that moment, it is aborted although all its work is done.
    """
    return pq.ParquetFile(raw, pre_buffer=False)


def damaged(url: str, error: Exception | str) -> DamagedFileError:
    """The error of a Parquet file whose content cannot be used."""
    return DamagedFileError(f"{url} is damaged ({error}). Delete it: its rows are computed again on the next run")


def read_rows(store: Store, stage: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a stage's manifest; [] where the stage has not finished yet."""
    path = manifest_path(stage)
    return to_rows(read_table(store, path, columns)) if store.exists(path) else []


def _encode_tensor(value: Any, column: Column, row_name: str) -> Any:
    array = np.asarray(value)
    where = f"row {row_name}, column {column.name}"
    if array.dtype.kind not in "fiub":
        raise BadOutputError(f"{where}: expected numbers of shape {column.shape}, got {array.dtype}")
    is_right = len(array.shape) == len(column.shape) and all(
        wanted in (-1, got) for wanted, got in zip(column.shape, array.shape, strict=True)
    )
    if not is_right:
        raise BadOutputError(f"{where}: expected shape {column.shape}, got {array.shape}")
    return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)


def _decode_value(value: Any, column: Column) -> Any:
    if value is None or column.kind is not Kind.TENSOR:
        return value
    # A list without elements does not say how many rows of which width it has.
    shape = (0, *column.shape[1:]) if len(value) == 0 and column.shape[:1] == (-1,) else column.shape
    return np.asarray(value, dtype=np.float32).reshape(shape)


def _field(column: Column) -> pa.Field:
    facts = {"kind": column.kind.value, "doc": column.doc, "shape": json.dumps(column.shape), "suffix": column.suffix}
    return pa.field(column.name, _arrow_type(column), metadata=facts)


def _arrow_type(column: Column) -> pa.DataType:
    # Not a fixed-size list: Arrow writes those with nulls to Parquet, and cannot read them back.
    return pa.list_(pa.float32()) if column.kind is Kind.TENSOR else _SIMPLE[column.kind]


def _column(field: pa.Field) -> Column:
    facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if "kind" not in facts:
        raise StorageError(f"column {field.name} does not say its kind: this is not a manifest of Galatea")
    shape = tuple(json.loads(facts["shape"]))
    return Column(field.name, Kind(facts["kind"]), facts["doc"], shape, facts["suffix"])


def _metadata(schema: pa.Schema, key: str) -> str:
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    return metadata.get(key.encode(), b"").decode()
