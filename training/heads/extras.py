"""What a head may have besides itself: glasses, a beard, something in front of it, irises of another size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

HANDS, CUPS, BARS = "hand", "cup", "bar"


@dataclass(frozen=True)
class Glasses:
    """Frames and lenses; lengths in world units, colours sRGB."""

    half_width: float
    half_height: float
    roundness: float
    """Exponent of the outline: 2 is an ellipse, 6 nearly a box."""
    thickness: float
    color: Float[np.ndarray, "3"]
    lens_color: Float[np.ndarray, "3"]
    lens_opacity: float
    drop: float
    """How far the lenses' middles are below the eyes'."""


@dataclass(frozen=True)
class Beard:
    """Where it grows (0..1 each), how dense (0..1) and how long (world units; 0 is stubble)."""

    moustache: float
    chin: float
    cheeks: float
    density: float
    length: float
    color: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Occluder:
    """Something in front of the face, around a point relative to the mouth, rolled about the viewing direction."""

    kind: str
    offset: Float[np.ndarray, "3"]
    roll_deg: float
    size: float
    color: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Extras:
    """What a head has besides itself; nothing by default."""

    glasses: Glasses | None = None
    beard: Beard | None = None
    occluder: Occluder | None = None
    iris_scale: float = 1.0
