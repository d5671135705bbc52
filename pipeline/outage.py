"""Tells a few files that cannot be read from a storage that fails as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from galatea.errors import StorageError
from pipeline.storage_errors import UnreadableFileError

_MAX_IN_A_ROW = 32
_SIGNS = {StorageError.code, UnreadableFileError.code}


class OutageWatch:
    """Is told of the files that are read, in their order; many failures in a row are an outage."""

    def __init__(self, signs: Collection[str] = _SIGNS) -> None:
        """Begin to watch.

        Args:
            signs: error codes that may be those of an outage; by default not those of files that are missing or
                refused, of which a list may hold many.
        """
        self._signs = signs
        self._num_in_a_row = 0
        self._last_position = -1

    def note(self, position: int, error_code: str, message: str) -> None:
        """A file was read, or not.

        Args:
            position: of the file in the whole archive; files between that are not read again count as good ones.
            error_code: why it could not be read; empty where it could.
            message: the same for people.

        Raises:
            StorageError: so many in a row could not be read that the storage seems to be gone.
        """
        is_next = position == self._last_position + 1
        self._last_position = position
        self._num_in_a_row = 0 if error_code not in self._signs else self._num_in_a_row * is_next + 1
        if self._num_in_a_row >= _MAX_IN_A_ROW:
            raise StorageError(
                f"{self._num_in_a_row} files in a row could not be read, the last one: {message}. "
                "Is their storage there? What is finished is kept: run again to continue"
            )


def check_any_readable(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an archive of which nothing could be read.

    Raises:
        StorageError: none of its files could be read; what is finished must not be dropped for that.
    """
    if rows and all(row["error_code"] in _SIGNS for row in rows):
        raise StorageError(f"none of {len(rows)} files could be read, the last one: {rows[-1]['error_message']}")
