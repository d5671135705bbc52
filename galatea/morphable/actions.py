"""The 52 facial actions of ARKit by name: the expression space that phones, Anny and Galatea share.

Coefficients run from 0 (rest) to 1 (fully done). Left and right are the person's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

ARKIT_ACTIONS: tuple[str, ...] = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
"""In alphabetical order, which is also Anny's; every vector of 52 coefficients in Galatea has this order. Left is the
person's left, at +x. Values are 0..1; a blink of 1 just closes the eye."""

ACTION_INDEX: Mapping[str, int] = {name: index for index, name in enumerate(ARKIT_ACTIONS)}


def expand_sides(weights: Mapping[str, float]) -> dict[str, float]:
    """Replace a name without its side (`mouthSmile`) by both sides; full names stay.

    Raises:
        ValueError: if a name is no facial action.
    """
    expanded: dict[str, float] = {}
    for name, weight in weights.items():
        sides = (name,) if name in ACTION_INDEX else (f"{name}Left", f"{name}Right")
        for side in sides:
            if side not in ACTION_INDEX:
                raise ValueError(f"facial action: expected one of the 52 ARKit names or a pair, got {name!r}")
            expanded[side] = weight
    return expanded


def action_vector(weights: Mapping[str, float]) -> Float[Tensor, "52"]:
    """Return the coefficient vector of named weights; pairs may leave out `Left` and `Right`."""
    vector = torch.zeros(len(ARKIT_ACTIONS))
    for name, weight in expand_sides(weights).items():
        vector[ACTION_INDEX[name]] = weight
    return vector


def mirror_permutation() -> tuple[int, ...]:
    """Return for every action the index of its mirror image (left <-> right; symmetric actions map to themselves)."""

    def mirrored(name: str) -> str:
        if name.endswith("Left"):
            return name[: -len("Left")] + "Right"
        return name[: -len("Right")] + "Left" if name.endswith("Right") else name

    return tuple(ACTION_INDEX[mirrored(name)] for name in ARKIT_ACTIONS)
