"""Rays of EG3D cameras, one per pixel of a square image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import unpack_label
from galatea.errors import InputError

ORTHONORMALITY_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Rays:
    """Rays in world space: `origins` and unit `directions`, both (batch, resolution*resolution, 3), row by row."""

    origins: Float[Tensor, "batch rays 3"]
    directions: Float[Tensor, "batch rays 3"]


def camera_rays(label: Float[Tensor, "batch 25"], resolution: int) -> Rays:
    """Return the rays through the pixel centres.

    Args:
        label: camera labels (`galatea.cameras.pack_label`), intrinsics normalised to an image of size 1.
        resolution: pixels per side; ray index = row * resolution + column.
    """
    cam2world, intrinsics = unpack_label(label)
    fx, fy = intrinsics[:, 0, 0, None], intrinsics[:, 1, 1, None]
    cx, cy, skew = intrinsics[:, 0, 2, None], intrinsics[:, 1, 2, None], intrinsics[:, 0, 1, None]
    centres = (torch.arange(resolution, device=label.device, dtype=label.dtype) + 0.5) / resolution
    v, u = (axis.reshape(1, -1) for axis in torch.meshgrid(centres, centres, indexing="ij"))
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    y = (v - cy) / fy
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = F.normalize(in_camera @ cam2world[:, :3, :3].transpose(1, 2), dim=-1)
    return Rays(cam2world[:, None, :3, 3].expand_as(directions), directions)


def validate_label(label: Float[Tensor, "batch 25"]) -> None:
    """Check that labels are usable cameras.

    Raises:
        InputError: if a label has NaN, its rotation is not one, or its focal length is not positive.
    """
    cam2world, intrinsics = unpack_label(label.detach())
    if not bool(torch.isfinite(label).all()):
        raise InputError("camera label: expected 25 finite numbers, found NaN or infinity")
    rotation = cam2world[:, :3, :3]
    residual = (rotation @ rotation.transpose(1, 2) - torch.eye(3, device=label.device, dtype=label.dtype)).abs().amax()
    if float(residual) > ORTHONORMALITY_TOLERANCE or float(torch.linalg.det(rotation).amin()) < 0:
        raise InputError(
            f"camera label: the first 16 numbers must be a cam2world matrix whose 3x3 part is a rotation; "
            f"it is off by {float(residual):.3g}"
        )
    if float(intrinsics[:, (0, 1), (0, 1)].amin()) <= 0:
        raise InputError("camera label: expected positive focal lengths at positions 16 and 20")
