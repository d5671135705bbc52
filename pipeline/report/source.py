"""Reads the manifests of a run for its report: some columns of all rows, whole rows where they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from pipeline.manifest import columns_of, manifest_path, read_schema, read_table, to_rows
from pipeline.rows import RowReader
from pipeline.storage import Store
from stages.base import Column, Kind

_HEAVY = {Kind.BYTES, Kind.TENSOR}
_UNUSED = {"models", "fingerprint", "copies"}
"""Light columns that would take most of the memory of a large run, and that no page shows row by row."""


class StoredRun:
    """A `RunSource` over the run folder; also all rows at once, for runs that are small enough."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._facts: dict[str, list[Mapping[str, Any]]] = {}
        self._tables: dict[str, pa.Table] = {}
        self._schemas: dict[str, dict[str, Column]] = {}

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader(self._run)

    def facts(self, stage: str) -> list[Mapping[str, Any]]:
        """Every row of a stage without its pictures and tensors; [] where the stage has not finished."""
        if stage not in self._facts:
            self._facts[stage] = list(to_rows(self._light(stage)))
        return self._facts[stage]

    def table(self, stage: str, columns: Sequence[str]) -> pa.Table:
        """These columns of every row of a stage, null where the stage lacks one; no rows where it has not finished."""
        found = self._light(stage)
        missing = pa.nulls(found.num_rows)
        return pa.table({name: found[name] if name in found.column_names else missing for name in columns})

    def rows(self, stage: str, positions: Iterable[int]) -> list[Mapping[str, Any]]:
        """The rows at these positions without their pictures and tensors."""
        return list(to_rows(self._light(stage).take(pa.array(positions, pa.int64()))))

    def models(self, stage: str) -> list[str]:
        """The distinct lists of models (JSON) of a stage's rows."""
        path = manifest_path(stage)
        if not self._run.exists(path):
            return []
        return [text for text in read_table(self._run, path, ["models"])["models"].unique().to_pylist() if text]

    def pictures(self, stage: str, positions: Sequence[int], columns: Sequence[str]) -> list[Mapping[str, Any]]:
        """Heavy columns of the rows at these positions, as far as the stage has them; files are read."""
        if not positions:
            return []
        path = manifest_path(stage)
        kinds = self._columns(path)
        present = [name for name in columns if name in kinds]
        if not present:
            return [{} for _ in positions]
        rows = to_rows(self._reader.take(path, list(positions), present))
        files = [name for name in present if kinds[name].kind is Kind.FILE]
        return [{**row, **{name: self._run.read(row[name]) for name in files if row[name]}} for row in rows]

    def _light(self, stage: str) -> pa.Table:
        # All at once: in a bucket, a few columns cost as much as the whole file, which pictures make large.
        if stage not in self._tables:
            path = manifest_path(stage)
            if not self._run.exists(path):
                return pa.table({})
            columns = self._columns(path).items()
            light = [name for name, column in columns if column.kind not in _HEAVY and name not in _UNUSED]
            self._tables[stage] = read_table(self._run, path, light)
        return self._tables[stage]

    def _columns(self, path: str) -> dict[str, Column]:
        if path not in self._schemas:
            self._schemas[path] = columns_of(read_schema(self._run, path))
        return self._schemas[path]
