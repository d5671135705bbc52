"""Loading: from a request to the record that a stage gets, with its bytes and arrays in hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galatea.errors import InputError, RecordError, StorageError
from pipeline.manifest import columns_of, to_rows
from pipeline.outage import OutageWatch
from pipeline.photo_id import photo_id_of
from pipeline.requests import Join, Request
from pipeline.rows import BoundedCache, RowReader
from pipeline.storage import Store, read_uri
from pipeline.storage_errors import MissingFileError
from stages.base import Kind, Record

_CONTENT_IDS = {"photo": "photo_id"}
"""Column of bytes that are read from users' files -> the column that names the content which they had at ingest."""


class LostFileError(InputError):
    """A file that an earlier stage wrote into the run folder is gone."""

    code = "lost_file"


class UnreadableInputError(InputError):
    """A file of the user cannot be read now: it is away, refused, or its storage does not answer."""

    code = "unreadable_input"


class ReplacedInputError(InputError):
    """A file of the user is not the one any more that ingest looked at."""

    code = "replaced_input"


WAITING = frozenset(kind.code for kind in (LostFileError, UnreadableInputError, ReplacedInputError))
"""Codes of records that only wait for a file: every run tries them again."""


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
        self._watch = OutageWatch({UnreadableInputError.code})
        self._num_inputs = 0
        self._unreadable: tuple[str, UnreadableInputError] | None = None

    def load(self, requests: Sequence[Request]) -> list[Record | RecordError]:
        """The records of a batch; what cannot be read is an error in its record's place.

        Raises:
            StorageError: the run folder cannot be read, or so many of the users' files in a row cannot that their
                storage seems to be gone.
        """
        # Null in what a kind of record lacks: a portrait has no clip.
        records: list[Record | RecordError] = [
            {**dict.fromkeys(self._requires), **request.fields} for request in requests
        ]
        for index, join in enumerate(self._joins):
            self._join(join, [request.rows[index] for request in requests], records)
        return [record if isinstance(record, RecordError) else self._with_uris(dict(record)) for record in records]

    def close(self) -> None:
        """Close what was opened."""
        self._rows.close()

    def _join(self, join: Join, rows: Sequence[int | None], records: list[Record | RecordError]) -> None:
        """Give every record the columns of its row; one whose files are gone becomes an error."""
        present = [(number, row) for number, row in enumerate(rows) if row is not None]
        if present:
            table = self._rows.take(join.path, [row for _, row in present], join.columns)
            files = [name for name, column in columns_of(table.schema).items() if column.kind is Kind.FILE]
            for (number, _), found in zip(present, to_rows(table), strict=True):
                records[number] = self._with_row(records[number], found, files)

    def _with_row(self, record: Record | RecordError, row: Record, files: Sequence[str]) -> Record | RecordError:
        if isinstance(record, RecordError):
            return record
        try:
            contents = {name: self._file(row[name]) for name in files if row[name] is not None}
        except MissingFileError as error:
            return LostFileError(f"{error}. The stage that made it must compute it again: `galatea run` does")
        return {**record, **row, **contents}

    def _file(self, path: str) -> bytes:
        return self._files.get((path, 0), lambda: self._run.read(path))

    def _user_file(self, uri: str) -> bytes | UnreadableInputError:
        """A file of the user. One unreachable host is no reason to stop: a list may name photos of many."""
        if self._unreadable is not None and self._unreadable[0] == uri:
            return self._unreadable[1]  # The clips of one photo follow on each other: it is one file.
        self._num_inputs += 1
        try:
            data = self._files.get((uri, 1), lambda: read_uri(uri, self._input_options))
        except StorageError as error:
            unreadable = UnreadableInputError(f"{error}. It is tried again by the next run")
            self._watch.note(self._num_inputs, unreadable.code, str(error))
            self._unreadable = uri, unreadable
            return unreadable
        self._watch.note(self._num_inputs, "", "")
        return data

    def _with_uris(self, record: dict[str, Any]) -> Record | RecordError:
        for column, uri_column in self._uris.items():
            uri = record.get(uri_column)
            if not uri:
                record[column] = b""
                continue
            data = self._user_file(uri)
            if isinstance(data, UnreadableInputError):
                return data
            expected = record.get(_CONTENT_IDS.get(column, ""))
            if expected and photo_id_of(data) != expected:
                return ReplacedInputError(
                    f"{uri} was replaced after ingest had looked at it: expected the photo {expected}, got "
                    f"{photo_id_of(data)}. Run again: `galatea run` begins with ingest, which takes in the new one"
                )
            record[column] = data
        return record
