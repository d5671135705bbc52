"""Settings of synthetic heads as a product: what is drawn, how large, and how it is stored."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from galatea.errors import ConfigError
from galatea.weights import home

IMAGE_FORMATS = ("jpeg", "webp", "png")
PEOPLE_PER_SEED = 1_000_000
"""Person numbers of a seed start at `seed * PEOPLE_PER_SEED`, as in the generator's shards."""


@dataclass(frozen=True)
class Look:
    """Probabilities, each of one thing per person, picture or head; 0 switches a thing off, 1 has it always."""

    background: float = 1.0
    """A procedural background; else black."""
    glasses: float = 0.2
    sunglasses: float = 0.12
    """Of glasses."""
    beard: float = 0.45
    """Of men over 18: stubble, moustaches, goatees, full beards."""
    occluder: float = 0.1
    """Of expressed heads: a hand, a cup or a bar in front of the face."""
    iris: float = 1.0
    """Irises of natural sizes; else those of the base texture."""
    open_eyes: float = 0.7
    """Of hair that hangs over one eye: another style instead."""
    color: float = 0.7
    """White balance, exposure, contrast and saturation of a picture differ."""
    blur: float = 0.3
    """Out of focus, moved, or enlarged from a smaller picture."""
    noise: float = 0.6
    """Noise of a camera's sensor."""
    compression: float = 0.8
    """JPEG or WebP at a drawn quality; else 95."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{item.name}: expected a probability from 0 to 1, got {value}")


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
    look: Look = field(default_factory=Look)
    """Glasses, beards, occluders, backgrounds, camera."""
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
