"""What photos have and renders lack: make-up, beards, glasses, strands, hats, hands, shadows, cameras' faults.

Wood et al. 2021, "Fake it till you make it", show that such variety, not realism alone, carries over to photos.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from galatea.faces.reader_network import INPUT_SIZE
from training.reader.backgrounds import colour_noise
from training.reader.labels import View

MILD_EXAMPLES, MILD_SHARE = 0.6, 0.3
"""So many examples get everything but light and colour with this share of its usual probability: photos are mostly
clear."""


@dataclass(frozen=True)
class Scene:
    """A cut render: premultiplied colour, coverage, skin, what is behind, and where everything is."""

    rgb: Float[np.ndarray, "s s 3"]
    alpha: Float[np.ndarray, "s s"]
    skin: Float[np.ndarray, "s s"]
    behind: Float[np.ndarray, "s s 3"]
    view: View
    points3: Float[np.ndarray, "480 3"]

    @property
    def size(self) -> int:
        """Pixels across."""
        return int(self.alpha.shape[0])


def augment(scene: Scene, rng: np.random.Generator, is_plain: bool = False) -> Float[np.ndarray, "s s 3"]:
    """Return the picture; `is_plain` only puts the head on its background, most with darker lashes."""
    from training.reader.wear import wear, with_lashes  # Drawing needs this module's Scene.

    if is_plain:
        return with_lashes(scene.rgb + scene.behind * (1 - scene.alpha[..., None]), scene, rng)
    share = MILD_SHARE if rng.random() < MILD_EXAMPLES else 1.0
    head = _skin(scene, rng, share)
    if rng.random() < 0.35 * share:
        head = head * (1 - 0.8 * _shadow(rng, scene.size)[..., None] * scene.alpha[..., None])
    image = head + scene.behind * (1 - scene.alpha[..., None])
    image = wear(image, scene, rng, share)
    image = _light(image, rng)
    image = _colour(image, rng)
    return _camera(image, rng, share)


def _skin(scene: Scene, rng: np.random.Generator, share: float) -> np.ndarray:
    """Vary the skin: blotches, fine texture, specular spots."""
    head: np.ndarray = scene.rgb.copy()
    skin = (scene.skin * scene.alpha)[..., None]
    if rng.random() < 0.5 * share:
        head *= 1 + skin * colour_noise(rng, int(rng.integers(2, 9)), np.zeros(3), rng.uniform(0.02, 0.1), scene.size)
    if rng.random() < 0.5 * share:
        fine: np.ndarray = rng.standard_normal((scene.size, scene.size, 1), dtype=np.float32)
        fine = cv2.GaussianBlur(fine, (0, 0), float(rng.uniform(0.4, 1.4)))[..., None]
        head *= 1 + skin * fine * (rng.uniform(0.02, 0.12) / max(float(fine.std()), 1e-3)) * 0.6
    if rng.random() < 0.3 * share:
        head *= 1 + skin * rng.normal(0, 0.12, 3).astype(np.float32)
    if rng.random() < 0.3 * share:
        for _ in range(int(rng.integers(1, 5))):
            spot = _blob(rng, rng.uniform(0.15, 0.85, 2), rng.uniform(0.01, 0.05, 2), scene.size)
            head += skin * spot[..., None] * rng.uniform(0.1, 0.6)
    return head.clip(0, 1)


def _blob(rng: np.random.Generator, centre: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
    """Return a soft turned ellipse."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = ticks[None] - np.float32(centre[0]), ticks[:, None] - np.float32(centre[1])
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (x * cos + y * sin) / np.float32(radius[0]), (y * cos - x * sin) / np.float32(radius[1])
    return np.asarray(np.exp(-0.5 * (along**2 + across**2)))


def _shadow(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a cast shadow 0..1: a soft edge across the face, a blob, or blinds."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    across = ticks[None] * np.float32(np.cos(angle)) + ticks[:, None] * np.float32(np.sin(angle))
    across = across + 0.04 * np.float32(rng.uniform(0, 1)) * np.sin(ticks[None] * np.float32(rng.uniform(5, 30)))
    soft, strength = rng.uniform(0.01, 0.15), rng.uniform(0.2, 0.75)
    kind = rng.random()
    if kind < 0.6:
        return np.asarray(strength / (1 + np.exp(-np.clip((across - rng.uniform(-0.3, 0.4)) / soft, -30, 30))))
    if kind < 0.9:
        return np.asarray(strength * _blob(rng, rng.uniform(0.1, 0.9, 2), rng.uniform(0.05, 0.3, 2), size))
    return np.asarray(strength * (np.sin(across * rng.uniform(15, 60)) > rng.uniform(-0.5, 0.7)).astype(np.float32))


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light that differs over the picture."""
    if rng.random() < 0.4:
        cells, strength = int(rng.integers(1, 4)), rng.uniform(0.03, 0.2)
        image = image * (1 + colour_noise(rng, cells, np.zeros(3), strength, image.shape[0]))
    return image.clip(0, 1)


def _colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White balance, exposure, gamma, contrast, saturation."""
    if rng.random() < 0.7:
        warm, tint = rng.normal(0, 0.1), rng.normal(0, 0.04)
        image = image * np.array([1 + warm, 1 + tint, 1 - warm], dtype=np.float32)
    if rng.random() < 0.7:
        image = image.clip(0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.7:
        pivot = rng.uniform(0.3, 0.6)
        image = (image - pivot) * np.float32(np.exp(rng.normal(0, 0.22))) + pivot + np.float32(rng.normal(0, 0.06))
    if rng.random() < 0.6:
        grey = image.mean(2, keepdims=True)
        share = 0.0 if rng.random() < 0.2 else rng.uniform(0.3, 1.5)
        image = grey + np.float32(share) * (image - grey)
    return np.asarray(image.clip(0, 1), dtype=np.float32)


def _camera(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Blur, low resolution, sharpening, noise, JPEG."""
    kind, size = rng.random() / share, image.shape[0]
    finer = size / INPUT_SIZE
    if kind < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(finer * rng.uniform(0.3, 1.6)))
    elif kind < 0.45:
        small = int(rng.uniform(0.3, 0.9) * size)
        down = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        mode = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        image = cv2.resize(down, (size, size), interpolation=mode)
    elif kind < 0.55:
        length, angle = int(finer * rng.integers(3, 8)), rng.uniform(0, np.pi)
        kernel, middle = np.zeros((13, 13), np.float32), 6
        ends = np.round(middle + length / 2 * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        start = (2 * middle - int(ends[0]), 2 * middle - int(ends[1]))
        cv2.line(kernel, start, (int(ends[0]), int(ends[1])), 1.0, 1, cv2.LINE_AA)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    elif kind < 0.75:
        blurred = cv2.GaussianBlur(image, (0, 0), float(finer * rng.uniform(0.6, 2)))
        image = image + rng.uniform(0.3, 1.5) * (image - blurred)
    if rng.random() < 0.5 * share:
        noise: np.ndarray = rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(
            rng.uniform(0.003, 0.05)
        )
        if rng.random() < 0.4:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.7 * finer) * 2
        image = image + noise
    image = image.clip(0, 1)
    if rng.random() < 0.4 * share:
        quality = int(rng.integers(25, 95))
        _, data = cv2.imencode(".jpg", np.round(image * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.float32) / 255
    return np.asarray(image, dtype=np.float32)
