"""Loading: from a request to the record that a stage gets, with its bytes and arrays in hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galatea.errors import InputError, RecordError
from pipeline.manifest import columns_of, to_rows
from pipeline.requests import Join, Request
from pipeline.rows import BoundedCache, RowReader
from pipeline.storage import Store, read_uri
from pipeline.storage_errors import AccessError, MissingFileError, UnreadableFileError
from stages.base import Kind, Record


class RecordLoader:
    """Reads what requests refer to: rows of earlier manifests, their files, and the users' own files."""

    def __init__(
        self,
        run: Store,
        requires: Sequence[str],
        joins: Sequence[Join],
        uris: Mapping[str, str],
        input_options: Mapping[str, Any],
    ) -> None:
        self._run = run
        self._requires = requires
        self._joins = joins
        self._uris = uris
        self._input_options = input_options
        self._rows = RowReader(run)
        self._files: BoundedCache[bytes] = BoundedCache(64 << 20, len)

    def load(self, requests: Sequence[Request]) -> list[Record | RecordError]:
        """The records of a batch; what cannot be read is an error in its record's place.

        Raises:
            StorageError: the run folder cannot be read.
        """
        # Null in what a kind of record lacks: a portrait has no clip.
        records = [{**dict.fromkeys(self._requires), **request.fields} for request in requests]
        for index, join in enumerate(self._joins):
            wanted = [(record, request.rows[index]) for record, request in zip(records, requests, strict=True)]
            self._join(join, wanted)
        return [self._with_uris(record) for record in records]

    def close(self) -> None:
        """Close what was opened."""
        self._rows.close()

    def _join(self, join: Join, wanted: Sequence[tuple[dict[str, Any], int | None]]) -> None:
        present = [(record, row) for record, row in wanted if row is not None]
        if present:
            table = self._rows.take(join.path, [row for _, row in present], join.columns)
            files = [name for name, column in columns_of(table.schema).items() if column.kind is Kind.FILE]
            for (record, _), found in zip(present, to_rows(table), strict=True):
                contents = {name: self._file(found[name]) for name in files if found[name] is not None}
                record.update({**found, **contents})

    def _file(self, path: str) -> bytes:
        return self._files.get((path, 0), lambda: self._run.read(path))

    def _user_file(self, uri: str) -> bytes:
        return self._files.get((uri, 1), lambda: read_uri(uri, self._input_options))

    def _with_uris(self, record: dict[str, Any]) -> Record | RecordError:
        for column, uri_column in self._uris.items():
            uri = record.get(uri_column)
            if not uri:
                record[column] = b""
                continue
            try:
                record[column] = self._user_file(uri)
            except (MissingFileError, AccessError, UnreadableFileError) as error:
                return InputError(str(error))
        return record
