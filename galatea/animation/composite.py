"""Putting a rendered head back: over its own photo's background, and from the crop into the whole photo.

Layers are premultiplied: RGB times opacity, and opacity, all in 0..1. Rendered images of the generators are of this
kind (what is empty is black), so a layer over a background is `rgb + (1 - opacity) * background`.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from galatea.animation.background import fill_background
from galatea.errors import InputError

_HOLE_THRESHOLD = 0.02
_HOLE_GROWTH = 1 / 40
"""The person is cut out with a rim of this share of the image, so that no coloured edge of hair stays behind."""
_FEATHER = 0.04
"""Width of the soft border of a pasted crop, in crop sizes."""


def person_matte(
    matte: Float[Tensor, "batch 1 h w"], rendered: Float[Tensor, "batch 1 r r"] | None = None
) -> Float[Tensor, "batch 1 h w"]:
    """Return everything that a person may cover: the photo's matte, and the rendered opacity where it reaches
    further.
    """
    if rendered is None:
        return matte
    return torch.maximum(matte, F.interpolate(rendered, matte.shape[-2:], mode="bilinear", align_corners=False))


def clean_background(
    photo: Float[Tensor, "batch 3 size size"], person: Float[Tensor, "batch 1 size size"]
) -> Float[Tensor, "batch 3 size size"]:
    """Return the photo (0..1) without the person: the hole is filled with pieces of the background around it.

    A turned head uncovers places that the photo did not show.
    """
    size = photo.shape[-1]
    growth = max(1, round(size * _HOLE_GROWTH))
    hole = (person > _HOLE_THRESHOLD).to(photo.dtype)
    hole = F.max_pool2d(hole, 2 * growth + 1, 1, growth)
    if bool((hole.amin((1, 2, 3)) > 0).any()):
        # Nothing of the background is seen: keep the uppermost corners as the best guess of its colour.
        hole = hole.clone()
        hole[..., :growth, :growth], hole[..., :growth, -growth:] = 0, 0
    return fill_background(photo, hole)


def photo_layer(
    photo: Float[Tensor, "batch 3 size size"],
    background: Float[Tensor, "batch 3 size size"],
    matte: Float[Tensor, "batch 1 size size"],
) -> Float[Tensor, "batch 4 size size"]:
    """Return the person of a photo as a layer: over `background` it gives the photo back exactly."""
    return torch.cat([photo - (1 - matte) * background, matte], dim=1)


def compose(
    layer: Float[Tensor, "batch 4 size size"], background: Float[Tensor, "batch 3 size size"]
) -> Float[Tensor, "batch 3 size size"]:
    """Return a layer over a background (0..1)."""
    return (layer[:, :3] + (1 - layer[:, 3:].clamp(0, 1)) * background).clamp(0, 1)


def paste_back(
    photo: UInt8[np.ndarray, "height width 3"],
    frame: UInt8[np.ndarray, "size size 3"],
    crop_matrix: Float[np.ndarray, "2 3"],
    crop_size: int = 512,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the whole photo with the frame in place of its crop, softly blended at the crop's border.

    Args:
        photo: upright RGB.
        frame: what the crop shows now, at any size.
        crop_matrix: continuous photo pixels to those of a crop of `crop_size`, as `PortraitCrop` has it.
        crop_size: size for which the matrix is meant.

    Raises:
        InputError: if the matrix cannot be inverted.
    """
    matrix = np.asarray(crop_matrix, np.float64).reshape(2, 3)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-9:
        raise InputError(f"crop_matrix: expected an invertible 2x3 matrix, got {matrix.tolist()}")
    matrix = matrix * (frame.shape[0] / crop_size)
    shrinking = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrinking > 1:
        size = max(1, round(frame.shape[0] / shrinking))
        matrix = matrix * (size / frame.shape[0])
        frame = np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    matrix = _at_pixel_centres(matrix)
    height, width = photo.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    placed = cv2.warpAffine(frame, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(_border_weight(frame.shape[0]), matrix, (width, height), flags=flags)[..., None]
    blended = placed.astype(np.float32) * weight + photo.astype(np.float32) * (1 - weight)
    result: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return result


def _at_pixel_centres(matrix: Float[np.ndarray, "2 3"]) -> NDArray[np.float64]:
    """Return a map between continuous pixels as one between pixel centres at integers, as OpenCV has them."""
    linear = matrix[:, :2]
    return np.column_stack([linear, matrix[:, 2] + 0.5 * linear.sum(axis=1) - 0.5])


def _border_weight(size: int) -> NDArray[np.float32]:
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    ramp = np.clip(np.minimum(centres, 1 - centres) / _FEATHER, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.minimum(ramp[:, None], ramp[None, :])
