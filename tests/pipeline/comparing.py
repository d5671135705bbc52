"""Comparing manifests: everything but how long it took."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.manifest import read_rows
from pipeline.storage import Store

_TIMES = {"run_seconds", "invert_seconds", "render_fps"}


def comparable_rows(run: Store, stage: str) -> list[dict[str, Any]]:
    """The rows of a manifest without times, with the contents of files in place of their paths."""
    return [{name: _plain(run, name, value) for name, value in row.items()} for row in read_rows(run, stage)]


def _plain(run: Store, name: str, value: Any) -> Any:
    if name in _TIMES:
        return None
    if isinstance(value, np.ndarray):
        return (value.shape, value.tolist())
    if isinstance(value, str) and "/files/" in value:
        return (value, run.read(value))
    return value
