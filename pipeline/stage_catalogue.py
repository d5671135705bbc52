"""The stages by name: their configuration and how they are built."""

from __future__ import annotations

import importlib
from typing import Any

from stages.base import Stage

STAGES = ("align", "invert", "edit", "drive", "animate", "evaluate")
"""In the order in which they run."""


def config_classes() -> dict[str, type]:
    """The configuration dataclass of every stage."""
    return {name: getattr(_module(name), f"{name.capitalize()}Config") for name in STAGES}


def build_stage(name: str, config: Any) -> Stage:
    """A stage from its own configuration; nothing is loaded yet."""
    stage: Stage = getattr(_module(name), f"{name.capitalize()}Stage")(config)
    return stage


def _module(name: str) -> Any:
    return importlib.import_module(f"stages.{name}")
