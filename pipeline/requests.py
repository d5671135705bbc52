"""Requests: what a stage is asked to do, light enough that a driver can hold millions of them.

A request names an input record and says in which rows of earlier manifests its columns are. The worker that gets
the request reads them there; pictures never pass through the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Join:
    """An earlier manifest from which records take columns."""

    path: str
    """The Parquet file, relative to the run folder."""
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One input record, by reference."""

    source_id: str
    fingerprint: str
    """Of the inputs: changes when anything that the record holds changes."""
    fields: Mapping[str, Any]
    """Columns that are at hand already: keys, and small values."""
    rows: tuple[int | None, ...] = ()
    """For each join, the row number there; None where the record takes nothing from it."""


@dataclass(frozen=True)
class Requests:
    """All that a stage is asked for, in the order that its manifest will have."""

    items: Sequence[Request]
    joins: tuple[Join, ...] = ()
    uris: Mapping[str, str] = field(default_factory=dict)
    """Columns of bytes that are read from a URI -> the column that holds the URI."""
