"""Plausible expressions: neutral faces, single actions, smiles, open mouths, blinks, brows, visemes, gaze."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from galatea.morphable.actions import ARKIT_ACTIONS

PAIRS = sorted({name[:-4] for name in ARKIT_ACTIONS if name.endswith("Left") and name[:-4] + "Right" in ARKIT_ACTIONS})
SINGLES = [name for name in ARKIT_ACTIONS if not name.startswith("eyeLook") and name != "tongueOut"]
VISEMES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.55, "mouthLowerDown": 0.3},
    {"jawOpen": 0.3, "mouthStretch": 0.4, "mouthUpperUp": 0.2},
    {"jawOpen": 0.25, "mouthFunnel": 0.7},
    {"jawOpen": 0.12, "mouthPucker": 0.8},
    {"mouthPress": 0.5, "mouthClose": 0.05, "mouthRollLower": 0.3, "mouthRollUpper": 0.2},
    {"jawOpen": 0.12, "mouthRollLower": 0.4, "mouthUpperUp": 0.35},
    {"jawOpen": 0.15, "mouthLowerDown": 0.45, "mouthUpperUp": 0.35, "mouthSmile": 0.15},
    {"jawOpen": 0.3, "tongueOut": 0.35, "mouthLowerDown": 0.2},
)
"""Mouth shapes of speech: aa, ee, oh, oo, m/b/p, f/v, s/t, th."""
MOODS: tuple[dict[str, float], ...] = (
    {"mouthSmile": 0.9, "cheekSquint": 0.5, "eyeSquint": 0.3},
    {"mouthSmile": 0.8, "jawOpen": 0.3, "mouthUpperUp": 0.3, "cheekSquint": 0.5},
    {"jawOpen": 0.6, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.8},
    {"mouthFrown": 0.8, "browInnerUp": 0.5, "mouthShrugLower": 0.4},
    {"browDown": 0.9, "eyeSquint": 0.5, "mouthPress": 0.5, "noseSneer": 0.3},
    {"noseSneer": 0.9, "mouthUpperUp": 0.6, "browDown": 0.4},
    {"mouthSmile": 0.45, "mouthDimple": 0.4},
    {"cheekPuff": 0.8, "mouthPress": 0.3},
)
"""Smile, laugh, surprise, sadness, anger, disgust, faint smile, puffed cheeks."""


class _Face:
    """Collects action values by name; a name without a side sets both."""

    def __init__(self) -> None:
        self.values = np.zeros(len(ARKIT_ACTIONS), dtype=np.float32)

    def add(self, name: str, value: float, skew: float = 0.0) -> None:
        if name in PAIRS:
            self._set(f"{name}Left", value * (1 + min(skew, 0)))
            self._set(f"{name}Right", value * (1 - max(skew, 0)))
        else:
            self._set(name, value)

    def _set(self, name: str, value: float) -> None:
        row = ARKIT_ACTIONS.index(name)
        self.values[row] = np.clip(max(self.values[row], value), 0.0, 1.0)


def sample_expression(rng: np.random.Generator) -> Float[np.ndarray, "52"]:
    """Draw an expression: 15% neutral (with gaze), else one kind of mouth or mood, brows, lids and gaze on top."""
    face = _Face()
    kind = rng.random()
    if kind >= 0.15:
        _add_kind(face, (kind - 0.15) / 0.85, rng)
        if rng.random() < 0.3:
            face.add(str(rng.choice(["browInnerUp", "browOuterUp", "browDown"])), rng.uniform(0.2, 1.0))
        if rng.random() < 0.2:
            face.add("eyeBlink", rng.choice([1.0, rng.uniform(0.2, 0.9)]), rng.choice([0.0, 0.0, -1.0, 1.0]))
    _add_gaze(face, rng)
    return face.values


def _add_kind(face: _Face, kind: float, rng: np.random.Generator) -> None:
    """Add the main ingredient; `kind` in [0, 1) chooses it."""
    if kind < 0.2:
        name = str(rng.choice(SINGLES))
        if name[-4:] == "Left" and name[:-4] in PAIRS and rng.random() < 0.5:
            name = name[:-4]
        face.add(name, rng.uniform(0.3, 1.0))
    elif kind < 0.5:
        mood = MOODS[rng.integers(len(MOODS))]
        strength, skew = rng.uniform(0.4, 1.15), rng.normal(0, 0.15)
        for name, value in mood.items():
            face.add(name, value * strength * rng.uniform(0.7, 1.2), skew)
    elif kind < 0.7:
        viseme = VISEMES[rng.integers(len(VISEMES))]
        for name, value in viseme.items():
            face.add(name, value * rng.uniform(0.6, 1.2))
    elif kind < 0.82:
        face.add("jawOpen", rng.uniform(0.25, 1.0))
        face.add("mouthFunnel", max(0.0, rng.uniform(-0.5, 0.5)))
    elif kind < 0.9:
        face.add("eyeBlink", rng.choice([1.0, 1.0, rng.uniform(0.3, 1.0)]))
        face.add("mouthSmile", max(0.0, rng.uniform(-0.6, 0.6)))
    else:
        for name in rng.choice(SINGLES, 3, replace=False):
            face.add(str(name), rng.uniform(0.1, 0.7))


def _add_gaze(face: _Face, rng: np.random.Generator) -> None:
    """Turn both eyes: usually near the middle, sometimes far off it."""
    spread = 0.18 if rng.random() < 0.6 else 0.55
    right, up = np.clip(rng.normal(0, spread, 2), -1, 1)
    if right > 0:
        face.add("eyeLookOutRight", right)
        face.add("eyeLookInLeft", right)
    else:
        face.add("eyeLookOutLeft", -right)
        face.add("eyeLookInRight", -right)
    face.add("eyeLookUp" if up > 0 else "eyeLookDown", abs(up) * (0.8 if up > 0 else 0.9))
