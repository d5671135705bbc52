"""Backgrounds made of nothing: colour noise at several scales, gradients, shapes, text-like clutter, other heads."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

from galatea.faces.reader_network import INPUT_SIZE


def background(
    rng: np.random.Generator, behind: np.ndarray | None = None, size: int = INPUT_SIZE
) -> Float[np.ndarray, "s s 3"]:
    """Return a random background; `behind` is a picture that may be seen blurred in it."""
    image = colour_noise(rng, int(rng.integers(1, 5)), rng.uniform(0.1, 0.9, 3), rng.uniform(0.02, 0.3), size)
    if rng.random() < 0.5:
        image += colour_noise(rng, int(rng.integers(5, 30)), np.zeros(3), rng.uniform(0.02, 0.2), size)
    if behind is not None and rng.random() < 0.25:
        zoomed = cv2.resize(behind, (size, size))
        image = np.maximum(image * 0.6, np.roll(zoomed, int(rng.integers(size)), axis=1))
    for _ in range(int(rng.integers(0, 7)) if rng.random() < 0.7 else 0):
        _shape(image, rng)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 6)))
    return np.asarray(image.clip(0, 1), dtype=np.float32)


def colour_noise(
    rng: np.random.Generator, cells: int, mean: np.ndarray, strength: float, size: int
) -> Float[np.ndarray, "s s 3"]:
    """Return smooth noise with so many cells across."""
    grey, colour = rng.normal(0, 1, (cells + 1, cells + 1, 1)), rng.normal(0, 0.5, (cells + 1, cells + 1, 3))
    small = (mean + strength * (grey + colour)).astype(np.float32)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC))


def _shape(image: np.ndarray, rng: np.random.Generator) -> None:
    color, size = tuple(float(c) for c in rng.uniform(0, 1, 3)), image.shape[0]
    kind = rng.integers(4)
    a, b = (tuple(int(v) for v in rng.integers(-20, size + 20, 2)) for _ in range(2))
    if kind == 0:
        cv2.rectangle(image, a, b, color, -1 if rng.random() < 0.6 else int(rng.integers(1, 6)))
    elif kind == 1:
        cv2.line(image, a, b, color, int(rng.integers(1, 12)), cv2.LINE_AA)
    elif kind == 2:
        cv2.circle(image, a, int(rng.integers(3, 50)), color, -1, cv2.LINE_AA)
    else:
        step, top = int(rng.integers(4, 16)), int(rng.integers(0, size))
        for x in range(int(rng.integers(0, step)), size, step):
            cv2.line(image, (x, top), (x + int(rng.integers(-4, 5)), size), color, int(rng.integers(1, 3)))
