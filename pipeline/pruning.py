"""What is in a run folder and was not asked for any more: it is not deleted unless the user says so.

Manifests hold exactly what was asked for, and files without a row are removed. So a run on other photos, with other
drivers or for fewer edited portraits would delete what the folder held before; here it is stopped before anything is
changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from galatea.errors import ConfigError
from pipeline.driving import DriverSpec
from pipeline.manifest import DONE, read_rows
from pipeline.storage import Store
from pipeline.storage_errors import AccessError, MissingFileError
from stages.base import Stage

_NUM_NAMED = 3


def refuse_lost_photos(run: Store, rows: Sequence[Mapping[str, Any]]) -> None:
    """Stop where the ingest manifest has photos that the new one will not have.

    A photo that was replaced under its own name is not lost: it was asked for again.

    Args:
        run: the run folder.
        rows: what the ingest manifest is about to hold.

    Raises:
        ConfigError: results would be deleted; the message names the first photos.
    """
    usable = [row for row in rows if row["status"] == DONE]
    kept = {row["photo_id"] for row in usable}
    asked = {uri for row in usable for uri in _uris(row)}
    known = read_rows(run, "ingest", ["photo_id", "uri", "copies", "status"])
    lost = [row for row in known if row["status"] == DONE and row["photo_id"] not in kept]
    _refuse(run, "photo", [row["uri"] for row in lost if asked.isdisjoint(_uris(row))])


def refuse_lost_drivers(run: Store, drivers: Iterable[DriverSpec], input_options: Mapping[str, Any]) -> None:
    """Stop where the drive manifest has drivers that are not among these, or whose file cannot be read now.

    Raises:
        ConfigError: results would be deleted; the message names the first drivers.
    """
    known = [row["driver_id"] for row in read_rows(run, "drive", ["driver_id", "status"]) if row["status"] == DONE]
    asked = {driver.driver_id: driver for driver in drivers}
    lost = [name for name in known if name not in asked or not _is_there(asked[name], input_options)]
    _refuse(run, "driver", lost)


def refuse_unwanted_clips(run: Store, animate: Stage) -> None:
    """Stop where the animate manifest has clips that its stage is not asked for any more (`animate.edited_with`).

    Raises:
        ConfigError: results would be deleted; the message names the first clips.
    """
    known = [row["clip_id"] for row in read_rows(run, "animate", ["clip_id", "status"]) if row["status"] == DONE]
    _refuse(run, "clip", [clip_id for clip_id in known if not animate.wants(_ids_of(clip_id))])


def _ids_of(clip_id: str) -> dict[str, str]:
    portrait_id, edit, driver_id = clip_id.split(".", 2)
    return {"portrait_id": portrait_id, "edit_id": f"{portrait_id}.{edit}", "driver_id": driver_id}


def _uris(row: Mapping[str, Any]) -> set[str]:
    return {uri for uri, _ in json.loads(row["copies"])}


def _is_there(driver: DriverSpec, input_options: Mapping[str, Any]) -> bool:
    if not driver.uri:
        return True
    try:
        Store(driver.uri, input_options).entry("")
    except (MissingFileError, AccessError):
        return False
    return True


def _refuse(run: Store, what: str, lost: Sequence[str]) -> None:
    if lost:
        names = ", ".join(lost[:_NUM_NAMED]) + (", ..." if len(lost) > _NUM_NAMED else "")
        count = f"{len(lost)} {what}" + ("s" if len(lost) > 1 else "")
        raise ConfigError(
            f"{run.url} holds results of {count} that this run was not asked for, or cannot read now ({names}), "
            "and would delete them. Nothing was deleted: use another --out, or say storage.prune=true to delete them"
        )
