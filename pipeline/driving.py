"""What drives the portraits, as the user named it: the requests of the drive stage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from galatea.errors import ConfigError, StorageError
from pipeline.fingerprint import digest
from pipeline.requests import Request, Requests
from pipeline.storage import read_uri


@dataclass(frozen=True)
class DriverSpec:
    """One driver."""

    driver_id: str
    """Unique in the run; part of the names of clips."""
    kind: str
    """`preset`, `camera`, `photo`, `video` or `arkit`."""
    name: str
    """Of the preset or camera path; of a file, what people call it."""
    uri: str = ""
    """Of the file; empty for presets and camera paths."""

    def __post_init__(self) -> None:
        if not self.driver_id or not all(letter.isalnum() or letter in "-_" for letter in self.driver_id):
            raise ConfigError(f"drivers: expected an id of letters, digits, - and _, got {self.driver_id!r}")


def driver_requests(drivers: Iterable[DriverSpec], input_options: Mapping[str, Any]) -> Requests:
    """Requests of the drive stage, which change when a driver's file changes.

    A file that cannot be read is not an error here: its record fails in the stage, and the other drivers go on.

    Raises:
        ConfigError: two drivers have one id.
    """
    items: dict[str, Request] = {}
    for driver in drivers:
        if driver.driver_id in items:
            raise ConfigError(f"drivers: two drivers are called {driver.driver_id!r}")
        content = _content_hash(driver.uri, input_options) if driver.uri else ""
        fingerprint = digest(driver.kind, driver.name, content)
        fields = {
            "driver_id": driver.driver_id,
            "kind": driver.kind,
            "name": driver.name,
            "data_uri": driver.uri,
        }
        items[driver.driver_id] = Request(driver.driver_id, fingerprint, fields)
    return Requests(list(items.values()), uris={"data": "data_uri"})


def _content_hash(uri: str, input_options: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(read_uri(uri, input_options)).hexdigest()
    except StorageError as error:
        return error.code
