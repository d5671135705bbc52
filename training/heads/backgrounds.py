"""Procedural backgrounds: gradients, blurred fields of colour, rooms out of focus, lights (bokeh), textures."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float

Background = Float[np.ndarray, "size size 3"]


def sample_background(size: int, rng: np.random.Generator) -> tuple[str, Background]:
    """Draw a background: its name, and sRGB in [0, 1]."""
    names = list(BACKGROUNDS)
    name = names[rng.choice(len(names), p=[0.15, 0.25, 0.3, 0.15, 0.15])]
    picture = BACKGROUNDS[name](size, rng)
    return name, np.clip(picture, 0, 1).astype(np.float32)


def _color(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Draw a colour: greys as often as muted colours, strong ones now and then."""
    grey = rng.beta(1.3, 1.3)
    spread = rng.choice([0.02, 0.08, 0.25], p=[0.45, 0.45, 0.1])
    return np.asarray(np.clip(grey + rng.uniform(-spread, spread, 3), 0, 1))


def _gradient(size: int, rng: np.random.Generator) -> Background:
    """A wall or paper with a soft fall-off of light."""
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size)
    along = np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]
    if rng.random() < 0.5:
        centre = rng.uniform(-0.4, 0.4, 2)
        along = np.hypot(axis[None] - centre[0], axis[:, None] - centre[1])
    share = np.clip(along + 0.5, 0, 1)[..., None] ** rng.uniform(0.7, 1.6)
    first = _color(rng)
    second = first * rng.uniform(0.4, 0.95) if rng.random() < 0.7 else _color(rng)
    return np.asarray(first * (1 - share) + second * share)


def _field(size: int, rng: np.random.Generator) -> Background:
    """Soft patches of a few colours, as of a garden or street far out of focus."""
    cells = int(rng.integers(2, 7))
    palette = np.stack([_color(rng) for _ in range(3)])
    coarse = palette[rng.integers(3, size=(cells, cells))] * rng.uniform(0.7, 1.2, (cells, cells, 1))
    return _enlarged(coarse, size)


def _room(size: int, rng: np.random.Generator) -> Background:
    """Walls, windows, shelves and doors as blurred rectangles."""
    picture = np.broadcast_to(_color(rng), (size, size, 3)).astype(np.float32).copy()
    for _ in range(int(rng.integers(4, 16))):
        x, y = (int(v) for v in rng.uniform(-0.2, 1.0, 2) * size)
        wide, high = (int(v) + 1 for v in rng.beta(1, 2.5, 2) * size)
        color = _color(rng) * (1.5 if rng.random() < 0.12 else 1.0)
        cv2.rectangle(picture, (x, y), (x + wide, y + high), color.tolist(), -1)
    return _softened(picture, size * rng.uniform(0.004, 0.06))


def _lights(size: int, rng: np.random.Generator) -> Background:
    """Discs of light before a dark or coloured ground."""
    picture = (_field(size, rng) * rng.uniform(0.15, 0.8)).astype(np.float32)
    for _ in range(int(rng.integers(5, 40))):
        x, y = (int(v) for v in rng.uniform(0, 1, 2) * size)
        layer = np.zeros((size, size), dtype=np.float32)
        cv2.circle(layer, (x, y), max(1, int(size * rng.uniform(0.01, 0.07))), 1.0, -1)
        picture += layer[..., None] * (_color(rng) * rng.uniform(0.15, 0.8)).astype(np.float32)
    return _softened(picture, size * rng.uniform(0.003, 0.012))


def _texture(size: int, rng: np.random.Generator) -> Background:
    """Plaster, cloth, foliage: noise of several scales between two colours."""
    total = np.zeros((size, size, 1))
    strength, cells = 1.0, int(rng.integers(2, 6))
    for _ in range(5):
        stretch = (cells, max(2, int(cells * rng.choice([1.0, 1.0, 0.3]))))
        total += strength * _enlarged(rng.standard_normal((*stretch, 1)), size)
        strength, cells = strength * rng.uniform(0.45, 0.8), cells * 2
    share = 1 / (1 + np.exp(-total * rng.uniform(0.5, 2.0)))
    picture = _color(rng) * share + _color(rng) * (1 - share)
    return _softened(picture.astype(np.float32), size * rng.choice([0.0, 0.004, 0.015]))


def _enlarged(coarse: np.ndarray, size: int) -> np.ndarray:
    enlarged = cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return enlarged.reshape(size, size, -1)


def _softened(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma > 0.3 else picture


BACKGROUNDS: dict[str, Callable[[int, np.random.Generator], Background]] = {
    "gradient": _gradient,
    "field": _field,
    "room": _room,
    "lights": _lights,
    "texture": _texture,
}
"""Names and what draws them."""
