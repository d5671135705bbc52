"""What an inversion is to reproduce: the photo's crop, who stands where in it, and how much each pixel counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.morphable.head import HeadCoefficients

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Outline of the face in MediaPipe's face mesh, in order."""
RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
"""Outlines of eyes and lips in the same mesh."""
_FACE_WEIGHT, _FEATURE_WEIGHT, _BACKGROUND_WEIGHT = 2.0, 3.0, 0.01
"""How much more than the rest of the person face pixels count, and eyes and lips on top of that."""


@dataclass(frozen=True)
class InversionTarget:
    """A batch of portraits to invert.

    Attributes:
        image: portrait crops at the generator's image size, [-1, 1].
        background: the same without the person, [-1, 1].
        matte: the person, 0..1; ones for generators that render the background too.
        face: the face oval, 0..1: what image quality is measured in.
        weight: how much each pixel counts in the losses.
        camera: fitted camera labels.
        head: fitted head coefficients; None for generators without a head.
    """

    image: Float[Tensor, "batch 3 size size"]
    background: Float[Tensor, "batch 3 size size"]
    matte: Float[Tensor, "batch 1 size size"]
    face: Float[Tensor, "batch 1 size size"]
    weight: Float[Tensor, "batch 1 size size"]
    camera: Float[Tensor, "batch 25"]
    head: HeadCoefficients | None

    def at(self, size: int) -> InversionTarget:
        """Return the target with its images at another size."""
        if size == self.image.shape[-1]:
            return self
        images: dict[str, Any] = {n: F.interpolate(x, (size, size), mode="area") for n, x in self.images.items()}
        return replace(self, **images)

    def select(self, index: int) -> InversionTarget:
        """Return one portrait as a batch of one."""
        head = self.head
        if head is not None:
            head = HeadCoefficients(head.identity[index : index + 1], head.expression[index : index + 1])
        images = {name: x[index : index + 1] for name, x in self.images.items()}
        return replace(self, **images, camera=self.camera[index : index + 1], head=head)

    @property
    def images(self) -> dict[str, Any]:
        """All that is an image, by field."""
        return {name: getattr(self, name) for name in ("image", "background", "matte", "face", "weight")}


def polygon_mask(points: Float[Tensor, "batch n 2"], size: int) -> Float[Tensor, "batch 1 size size"]:
    """Return the inside of polygons given in normalised coordinates (even-odd rule at pixel centres).

    Args:
        points: corners in order, x right, y down, 0..1.
        size: pixels a side.
    """
    centres = (torch.arange(size, dtype=points.dtype, device=points.device) + 0.5) / size
    y = centres.view(1, size, 1, 1)
    x = centres.view(1, 1, size, 1)
    start, stop = points[:, None, None], points.roll(-1, 1)[:, None, None]
    crosses = (start[..., 1] > y) != (stop[..., 1] > y)
    height = stop[..., 1] - start[..., 1]
    height = torch.where(height.abs() < 1e-9, torch.full_like(height, 1e-9), height)
    at_x = start[..., 0] + (y - start[..., 1]) / height * (stop[..., 0] - start[..., 0])
    return ((crosses & (x < at_x)).sum(-1) % 2).to(points.dtype)[:, None]


def face_mask(landmarks: Float[Tensor, "batch n 2"], size: int) -> Float[Tensor, "batch 1 size size"]:
    """Return the face oval of face-mesh landmarks (normalised)."""
    return polygon_mask(landmarks[:, list(FACE_OVAL)], size)


def pixel_weight(
    landmarks: Float[Tensor, "batch n 2"], matte: Float[Tensor, "batch 1 size size"]
) -> Float[Tensor, "batch 1 size size"]:
    """Return how much each pixel counts: the person, more so the face, most of all eyes and lips."""
    size = matte.shape[-1]
    features = torch.stack([polygon_mask(landmarks[:, list(part)], size) for part in (RIGHT_EYE, LEFT_EYE, LIPS)])
    grown = F.max_pool2d(features.amax(0), 2 * (size // 48) + 1, 1, size // 48)
    # Shrunk: pixels at the person's edge hold background, which would be painted onto the head's sides.
    inner = -F.max_pool2d(-matte, 2 * (size // 64) + 1, 1, size // 64)
    weight = _BACKGROUND_WEIGHT + inner * (1 + _FACE_WEIGHT * face_mask(landmarks, size) + _FEATURE_WEIGHT * grown)
    return weight / (1 + _FACE_WEIGHT + _FEATURE_WEIGHT)
