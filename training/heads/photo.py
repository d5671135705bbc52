"""From a rendered head to a photo of it: a background, then what lenses, sensors and encoders do."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from training.heads.backgrounds import sample_background
from training.heads.settings import Look

BEST_QUALITY = 95


@dataclass(frozen=True)
class Photo:
    """An encoded picture, and what its background is."""

    data: bytes
    background: str


def take(
    rgb: UInt8[np.ndarray, "h h 3"],
    alpha: UInt8[np.ndarray, "h h"],
    rng: np.random.Generator,
    look: Look,
    image_format: str,
) -> Photo:
    """Put a head before a background, photograph and encode it.

    Args:
        rgb: sRGB, not premultiplied.
        alpha: coverage.
        rng: what is drawn comes from it alone.
        look: probabilities.
        image_format: `jpeg`, `webp` or `png`.
    """
    chances = rng.random(6)
    size = rgb.shape[0]
    name, behind = sample_background(size, rng) if chances[0] < look.background else ("none", None)
    cover = alpha[..., None].astype(np.float32) / 255
    picture = rgb.astype(np.float32) / 255 * cover
    if behind is not None:
        picture += behind * (1 - cover)
    if chances[1] < look.color:
        picture = _graded(picture, rng)
    if chances[2] < look.blur:
        picture = _blurred(picture, rng)
    if chances[3] < look.noise:
        picture = _noisy(picture, rng)
    pixels = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    quality = int(rng.uniform(35, BEST_QUALITY)) if chances[4] < look.compression else BEST_QUALITY
    if image_format == "png" and chances[4] < look.compression:
        kind = "jpeg" if chances[5] < 0.7 else "webp"
        pixels = np.array(Image.open(io.BytesIO(encode(pixels, kind, quality))).convert("RGB"))
    return Photo(encode(pixels, image_format, quality), name)


def _graded(picture: Float[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Change white balance, exposure, contrast and saturation a little."""
    warmth = rng.normal(0, 0.04)
    gain = np.exp(rng.normal(0, 0.1)) * np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth])
    picture = np.clip(picture * gain.astype(np.float32), 0, None) ** np.float32(np.exp(rng.normal(0, 0.12)))
    grey = picture.mean(2, keepdims=True)
    saturation = np.float32(np.clip(np.exp(rng.normal(-0.08, 0.18)), 0.5, 1.2))
    lift = np.float32(rng.uniform(0, 0.04))
    return np.asarray(lift + (1 - lift) * (grey + (picture - grey) * saturation), dtype=np.float32)


def _blurred(picture: Float[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Out of focus, moved during the exposure, or enlarged from a smaller picture."""
    kind, size = rng.random(), picture.shape[0]
    if kind < 0.45:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), size * rng.uniform(0.002, 0.009)))
    if kind < 0.65:
        length, angle = max(2.0, size * rng.uniform(0.008, 0.035)), rng.uniform(0, np.pi)
        reach = int(np.ceil(length / 2))
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
        step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        start, end = (tuple(int(v) for v in np.round(reach + sign * step)) for sign in (-1, 1))
        cv2.line(kernel, start, end, 1.0)
        return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT))
    small = max(12, int(size * rng.uniform(0.35, 0.8)))
    shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_CUBIC))


def _noisy(picture: Float[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Add shot and read noise, sometimes coarse as after a phone's processing."""
    strength = rng.uniform(0.004, 0.03)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    if rng.random() < 0.4:
        noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * np.float32(2.2)
    grey = noise.mean(2, keepdims=True) * np.float32(1.5)
    share = np.float32(rng.uniform(0.2, 1.0))
    level = np.float32(strength) * np.sqrt(0.25 + np.clip(picture, 0, 1))
    return np.asarray(picture + level * (share * grey + (1 - share) * noise))


def encode(image: UInt8[np.ndarray, "h w *c"], kind: str, quality: int = BEST_QUALITY) -> bytes:
    """Encode an image; `quality` (1..100) counts for JPEG and WebP."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1} if kind == "png" else {"quality": quality}
    if kind == "webp":
        options["method"] = 2
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
