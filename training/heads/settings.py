"""Settings of synthetic heads as a product: what is drawn, how large, and how it is stored."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from galatea.errors import ConfigError
from galatea.weights import home

IMAGE_FORMATS = ("jpeg", "webp", "png")
PEOPLE_PER_SEED = 1_000_000
"""Person numbers of a seed start at `seed * PEOPLE_PER_SEED`, as in the generator's shards."""


@dataclass(frozen=True)
class HeadsConfig:
    """How synthetic heads are drawn; every row follows from these settings and the person's number."""

    assets: str = field(default="", metadata={"affects_rows": False})
    """Folder of MakeHuman's system assets; "" = $GALATEA_HEAD_ASSETS, or `makehuman` in Galatea's home folder."""
    size: int = 256
    """Image side in pixels."""
    seed: int = 0
    """Another seed gives other people."""
    num_expressions: int = 2
    """Expressions (each with a light of its own) of a person."""
    num_views: int = 2
    """Cameras that look at each expression."""
    image_format: str = "jpeg"
    """`jpeg` or `webp` at the quality that is drawn, or `png`: lossless, after the same loss."""

    def __post_init__(self) -> None:
        _check("size", self.size, 16, 2048)
        _check("seed", self.seed, 0, 1_000_000)
        _check("num_expressions", self.num_expressions, 1, 1000)
        _check("num_views", self.num_views, 1, 1000)
        if self.image_format not in IMAGE_FORMATS:
            raise ConfigError(f"image_format: expected {', '.join(IMAGE_FORMATS)}, got {self.image_format!r}")

    @property
    def images_per_person(self) -> int:
        """Expressions times views."""
        return self.num_expressions * self.num_views

    @property
    def assets_folder(self) -> Path:
        """Where the assets are looked for."""
        chosen = self.assets or os.environ.get("GALATEA_HEAD_ASSETS", "")
        return Path(chosen).expanduser() if chosen else home() / "makehuman"


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: expected {low} to {high}, got {value}")
