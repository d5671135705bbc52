"""Folds of the skin: lines that come with expressions, and with age stay.

Raised brows crease the forehead, smiles the cheeks and the corners of the eyes, frowns the chin; they are what tells an
expression from a face that was built that way (tension-based wrinkles: Wood et al. 2021, "Fake it till you make it").
A fold is a bent line on the face of the mean head, seen from the front; skin carries it along when it moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from galatea.morphable.actions import ACTION_INDEX

NUM_VALUES = 8
"""Numbers of a fold in the ray caster: middle (2), direction (2), half length, bend, half width, depth."""
CREASED, STILL_FAINT = 1.2, 0.02
"""Exponent: slight expressions crease little. Folds fainter than this are left out."""


@dataclass(frozen=True)
class Fold:
    """A line of the left half of the face (or across it), world units of the mean head.

    Attributes:
        middle: x, y of its middle.
        angle_deg: of its direction against the horizontal.
        length, width: half of them.
        bend: how much its ends fall below its middle (to the right of its direction), 1 / world units.
        actions: what creases it, and by how much; sided names without their side.
        at_rest: how deep it is in an old face at rest.
    """

    middle: tuple[float, float]
    angle_deg: float
    length: float
    width: float
    actions: dict[str, float]
    bend: float = 0.0
    at_rest: float = 0.3
    side: str = "Left"

    def mirrored(self) -> Fold:
        """Return the same fold of the other half of the face."""
        return replace(
            self,
            middle=(-self.middle[0], self.middle[1]),
            angle_deg=180 - self.angle_deg,
            bend=-self.bend,
            side="Right",
        )

    def creased(self, expression: Float[np.ndarray, "52"]) -> float:
        """Return how far an expression creases it, 0..1."""
        total = 0.0
        for name, share in self.actions.items():
            at = ACTION_INDEX[name] if name in ACTION_INDEX else ACTION_INDEX[name + self.side]
            total += share * float(expression[at])
        return float(min(total, 1.0) ** CREASED)


_FOREHEAD = {"browInnerUp": 0.95, "browOuterUp": 0.15}
_TEMPLE = {"browOuterUp": 0.9, "browInnerUp": 0.2}
_CROW = {"cheekSquint": 0.5, "mouthSmile": 0.45, "eyeSquint": 0.4, "eyeBlink": 0.12}
_CHEEK = {"mouthSmile": 0.8, "noseSneer": 0.5, "mouthUpperUp": 0.5, "cheekSquint": 0.3, "mouthDimple": 0.4}
_LEFT = (
    *(Fold((0.032, y), -3, 0.042, 0.0042, _FOREHEAD, bend=1.2) for y in (0.156, 0.175, 0.195)),
    *(Fold((0.088, y), -9, 0.036, 0.0042, _TEMPLE, bend=3.0) for y in (0.168, 0.185, 0.203)),
    Fold((0.013, 0.122), 82, 0.015, 0.0036, {"browDown": 0.9, "noseSneer": 0.15}),
    Fold((0.026, 0.124), 72, 0.012, 0.0034, {"browDown": 0.6}, at_rest=0.15),
    Fold((0.017, 0.078), 60, 0.013, 0.0034, {"noseSneer": 1.0, "browDown": 0.2}, at_rest=0.05),
    Fold((0.077, -0.031), -64, 0.05, 0.0058, _CHEEK, bend=2.5, at_rest=0.6),
    Fold((0.105, -0.075), -72, 0.03, 0.0055, {"mouthSmile": 0.6, "mouthDimple": 0.5}, bend=3.0, at_rest=0.1),
    Fold((0.073, -0.12), -78, 0.03, 0.0062, {"mouthFrown": 0.7, "mouthShrugLower": 0.2}, at_rest=0.4),
    Fold((0.083, 0.06), -4, 0.03, 0.0036, {"cheekSquint": 0.7, "eyeSquint": 0.5, "mouthSmile": 0.2}, bend=-5.0),
    *(Fold((0.14, y), angle, 0.016, 0.003, _CROW) for y, angle in ((0.104, 28), (0.092, 3), (0.08, -22))),
    *(Fold((x, -0.058), 90, 0.011, 0.0032, {"mouthPucker": 0.7}, at_rest=0.2) for x in (0.012, 0.028)),
)
FOLDS = (
    *_LEFT,
    *(fold.mirrored() for fold in _LEFT),
    Fold((0.0, 0.098), 0, 0.018, 0.0036, {"noseSneerLeft": 0.4, "browDownLeft": 0.3, "browDownRight": 0.3}),
    Fold((0.0, -0.148), 0, 0.032, 0.006, {"mouthShrugLower": 0.8, "mouthFrownLeft": 0.3, "mouthFrownRight": 0.3}, 9.0),
)


@dataclass(frozen=True)
class Creases:
    """How a person's skin folds: how deep when creased (0..1.3), how much of it stays (0..1), where exactly."""

    depth: float
    stays: float
    each: Float[np.ndarray, "folds"]
    shift: Float[np.ndarray, "folds 2"]


def sample_creases(age: float, rng: np.random.Generator) -> Creases:
    """Draw how a person's skin folds; `age` is Anny's (0.33 a child, 0.67 a young adult, 1 old)."""
    usual = float(np.interp(age, [0.5, 0.62, 0.75, 0.88, 1.0], [0.15, 0.4, 0.65, 0.9, 1.05]))
    half = len(_LEFT)
    each, shift = rng.uniform(0.45, 1.25, len(FOLDS)), rng.normal(0, 0.0022, (len(FOLDS), 2))
    # Both sides of a face fold nearly alike.
    each[half : 2 * half] = 0.7 * each[:half] + 0.3 * each[half : 2 * half]
    shift[half : 2 * half] = shift[:half] * np.array([-1, 1])
    stays = float(np.clip((age - 0.72) / 0.28, 0, 1) * rng.uniform(0.1, 1.0))
    return Creases(float(np.clip(rng.normal(usual, 0.22), 0.05, 1.3)), stays, each, shift)


def fold_values(creases: Creases, expression: Float[np.ndarray, "52"]) -> Float[np.ndarray, "n 8"]:
    """Return the folds that can be seen, in the ray caster's numbers."""
    rows = []
    for fold, share, shift in zip(FOLDS, creases.each, creases.shift, strict=True):
        depth = creases.depth * share * max(fold.creased(expression), creases.stays * fold.at_rest)
        if depth > STILL_FAINT:
            angle = np.radians(fold.angle_deg)
            middle = (fold.middle[0] + shift[0], fold.middle[1] + shift[1])
            rows.append([*middle, np.cos(angle), np.sin(angle), fold.length, fold.bend, fold.width, depth])
    return np.array(rows, dtype=np.float32).reshape(-1, NUM_VALUES)
