"""Planning: which records each stage is asked for, given the manifests of the stages before it.

The table `STEPS` is the shape of the pipeline. Everything else follows from the manifests: a row's `source_id` names
the row that it was made from, so each row has a line of ancestors, and a record may take any column that its stage
requires from the nearest ancestor that has it. Rows that failed have no descendants; they stay in their manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
import pyarrow.compute as pc

from galatea.errors import ConfigError
from pipeline.fingerprint import digest
from pipeline.manifest import DONE, manifest_path, read_ids
from pipeline.requests import Join, Request, Requests
from pipeline.storage import Store
from pipeline.storage_errors import MissingFileError
from stages.base import Stage

STEPS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "align": (("ingest",),),
    "invert": (("align",),),
    "edit": (("invert",),),
    "drive": (),
    "animate": (("edit", "drive"),),
    "evaluate": (("invert",), ("animate",)),
}
"""Stage -> what its records are: each row of a stage, or each combination of the rows of several. `evaluate` gets two
kinds of records, portraits and clips; `drive` gets what the user names."""

PARENT: Mapping[str, tuple[str, ...]] = {
    "align": ("ingest",),
    "invert": ("align",),
    "edit": ("invert",),
    "animate": ("edit", "drive"),
}
"""Stage -> whose rows the `source_id` of its own rows names; joined by a dot where there are several."""

URI_COLUMNS: Mapping[str, str] = {"photo": "uri", "data": "data_uri"}
"""Columns of bytes that no manifest holds: they are read from the users' own files when they are needed."""


@dataclass(frozen=True)
class Manifest:
    """The manifest that a row is in."""

    stage: str
    id_column: str


@dataclass(frozen=True, slots=True)
class Line:
    """A finished row and the rows that it descends from; light, because there may be millions."""

    row_id: str
    fingerprint: str
    number: int
    """In its manifest."""
    manifest: Manifest
    above: tuple[Line, ...]
    """The rows that it was made from."""


class Lineage:
    """Reads what the stages of a run have finished, each manifest once."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._lines: dict[str, list[Line]] = {}
        self.columns: dict[str, set[str]] = {}
        """Stage -> all columns of its manifest, of the stages that were read."""

    def finished(self, stage: str) -> list[Line]:
        """The rows of a stage that are done, with their ancestors; rows whose ancestors are gone are left out.

        Raises:
            ConfigError: the stage has not run.
        """
        if stage not in self._lines:
            self._lines[stage] = self._read(stage)
        return self._lines[stage]

    def combined(self, stages: Sequence[str]) -> Iterator[tuple[Line, ...]]:
        """Each row of the first stage with each row of the next, and so on."""
        return product(*[self.finished(stage) for stage in stages])

    def _read(self, stage: str) -> list[Line]:
        parents = PARENT.get(stage, ())
        ancestors = {_joint_id(lines): lines for lines in self.combined(parents)}
        manifest, rows = self._done_rows(stage)
        return [
            Line(row_id, fingerprint, number, manifest, ancestors.get(source_id, ()))
            for number, row_id, source_id, fingerprint in rows
            if not parents or source_id in ancestors
        ]

    def _done_rows(self, stage: str) -> tuple[Manifest, Iterator[tuple[int, str, str, str]]]:
        try:
            id_column, columns, table = read_ids(self._run, stage)
        except MissingFileError as error:
            raise ConfigError(f"stage {stage} has not finished in {self._run.url}: run it first") from error
        self.columns[stage] = columns
        is_done = pc.equal(table["status"], DONE)
        rows = table.filter(is_done)
        values = (rows[name].to_pylist() for name in (id_column, "source_id", "fingerprint"))
        return Manifest(stage, id_column), zip(np.flatnonzero(is_done).tolist(), *values, strict=True)


def plan_stage(run: Store, stage: Stage) -> Requests:
    """What a stage is asked for, from the manifests of the stages before it.

    Args:
        run: the run folder.
        stage: any stage of `STEPS` but drive.

    Returns:
        Requests in the order of the manifests before.

    Raises:
        ConfigError: the stage requires a column that no stage before it makes, or a stage before it has not run.
    """
    lineage = Lineage(run)
    records_by_kind = [lineage.combined(stages) for stages in STEPS[stage.name]]
    return _requests(stage, records_by_kind, lineage.columns)


def _joint_id(lines: Sequence[Line]) -> str:
    return ".".join(line.row_id for line in lines)


def _joint_fingerprint(lines: Sequence[Line]) -> str:
    return reduce(digest, (line.fingerprint for line in lines))


def _places(lines: Sequence[Line]) -> dict[str, int]:
    """Stage -> row number in its manifest: each row before its nearest ancestors."""
    places: dict[str, int] = {}
    for line in lines:
        places |= {line.manifest.stage: line.number, **_places(line.above)}
    return places


def _keys(lines: Sequence[Line]) -> dict[str, str]:
    """Id columns of rows and their ancestors (`photo_id`, `portrait_id`, ...)."""
    keys: dict[str, str] = {}
    for line in lines:
        keys |= {**_keys(line.above), line.manifest.id_column: line.row_id}
    return keys


def _requests(
    stage: Stage, records_by_kind: Sequence[Iterable[tuple[Line, ...]]], columns: Mapping[str, set[str]]
) -> Requests:
    """Requests for all kinds of records; each kind has joins of its own, and null in the columns that it lacks."""
    made = {stage.source_id_column, *URI_COLUMNS}.union(*columns.values())
    missing = sorted(set(stage.requires) - made)
    if missing:
        raise ConfigError(f"stage {stage.name} requires {missing}, which no stage before it makes")
    wanted_by_kind = [[lines for lines in records if stage.wants(_keys(lines))] for records in records_by_kind]
    kinds = [(records, _assign(stage, list(_places(records[0])), columns)) for records in wanted_by_kind if records]
    owners = [[name for name in _places(records[0]) if name in wanted.values()] for records, wanted in kinds]
    num_joins = sum(len(names) for names in owners)
    joins: list[Join] = []
    items: list[Request] = []
    for (records, wanted), names in zip(kinds, owners, strict=True):
        start, after = len(joins), num_joins - len(joins) - len(names)
        for lines in records:
            places, row_id = _places(lines), _joint_id(lines)
            rows = (*[None] * start, *(places[name] for name in names), *[None] * after)
            fields = {**_keys(lines), stage.source_id_column: row_id}
            items.append(Request(row_id, _joint_fingerprint(lines), fields, rows))
        joins += [Join(manifest_path(name), tuple(c for c, place in wanted.items() if place == name)) for name in names]
    held = {column for _, wanted in kinds for column in wanted}
    uris = {name: uri for name, uri in URI_COLUMNS.items() if name in stage.requires and name not in held}
    return Requests(items, tuple(joins), uris)


def _assign(stage: Stage, nearest_first: Sequence[str], columns: Mapping[str, set[str]]) -> dict[str, str]:
    """For each required column the nearest ancestor that has it; URIs of what is read from the users' files too."""
    required = [*stage.requires, *(URI_COLUMNS[name] for name in stage.requires if name in URI_COLUMNS)]
    assigned: dict[str, str] = {}
    for column in required:
        # A photo may have moved since a later stage noted its URI: the origin knows where it is now.
        order = reversed(nearest_first) if column in URI_COLUMNS.values() else nearest_first
        owner = next((name for name in order if column in columns[name]), None)
        if owner is not None:
            assigned[column] = owner
    return assigned
