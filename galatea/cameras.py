"""Cameras in EG3D's convention: OpenCV axes, cam2world, normalised intrinsics, a 25-number label.

World: the head looks along +z, x to the image's right for a frontal camera, y up; the camera sits on a sphere of radius
2.7 around a pivot inside the head. Camera: x right, y down, z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RADIUS = 2.7
"""Distance of the camera from the pivot (Chan et al. 2022, FFHQ configuration)."""
FOCAL = 2985.29 / 700
"""Normalised focal length of the FFHQ crop: 2985.29 pixels for a crop of 700 (Chan et al. 2022, appendix)."""
PIVOT = (0.0, 0.0, 0.2)
"""The point that FFHQ cameras look at."""


@dataclass(frozen=True)
class ViewAngles:
    """Where a camera stands, in degrees: yaw > 0 towards world +x (nose points to image left), pitch > 0 above."""

    yaw_deg: Tensor
    pitch_deg: Tensor
    roll_deg: Tensor


def intrinsics_matrix(focal: float = FOCAL, device: torch.device | None = None) -> Float[Tensor, "3 3"]:
    """Return normalised intrinsics with the principal point in the middle of the image."""
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]], device=device)


def pack_label(
    cam2world: Float[Tensor, "batch 4 4"], intrinsics: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch 25"]:
    """Return EG3D's camera label: row-major 4x4 cam2world, then row-major 3x3 intrinsics."""
    return torch.cat([cam2world.flatten(1), intrinsics.flatten(1)], dim=1)


def unpack_label(label: Float[Tensor, "batch 25"]) -> tuple[Float[Tensor, "batch 4 4"], Float[Tensor, "batch 3 3"]]:
    """Split a camera label into cam2world and intrinsics.

    Raises:
        ValueError: if the last axis is not 25 long.
    """
    if label.ndim != 2 or label.shape[1] != 25:
        raise ValueError(f"camera label: expected shape (batch, 25), got {tuple(label.shape)}")
    return label[:, :16].reshape(-1, 4, 4), label[:, 16:].reshape(-1, 3, 3)


def look_at(
    origin: Float[Tensor, "batch 3"], pivot: Float[Tensor, "batch 3"], roll_deg: Float[Tensor, "batch"] | None = None
) -> Float[Tensor, "batch 4 4"]:
    """Return cam2world of cameras at `origin` that look at `pivot`, world y up, then rolled about the viewing axis."""
    forward = torch.nn.functional.normalize(pivot - origin, dim=-1)
    world_up = torch.tensor([0.0, 1.0, 0.0], dtype=origin.dtype, device=origin.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.cross(forward, world_up, dim=-1), dim=-1)
    down = torch.cross(forward, right, dim=-1)
    if roll_deg is not None:
        cos, sin = torch.cos(torch.deg2rad(roll_deg))[:, None], torch.sin(torch.deg2rad(roll_deg))[:, None]
        right, down = cos * right + sin * down, cos * down - sin * right
    cam2world = torch.eye(4, dtype=origin.dtype, device=origin.device).repeat(origin.shape[0], 1, 1)
    cam2world[:, :3, 0], cam2world[:, :3, 1], cam2world[:, :3, 2] = right, down, forward
    cam2world[:, :3, 3] = origin
    return cam2world


def orbit(
    yaw_deg: Float[Tensor, "batch"],
    pitch_deg: Float[Tensor, "batch"],
    roll_deg: Float[Tensor, "batch"] | None = None,
    radius: float = RADIUS,
    pivot: tuple[float, float, float] = PIVOT,
) -> Float[Tensor, "batch 25"]:
    """Return labels of cameras on a sphere around the head.

    Yaw 0, pitch 0 is frontal. Yaw > 0 moves the camera towards world +x (EG3D's sign), so the nose points to the
    image's left; pitch > 0 lifts the camera.
    """
    yaw, pitch = torch.deg2rad(yaw_deg), torch.deg2rad(pitch_deg)
    centre = torch.tensor(pivot, dtype=yaw.dtype, device=yaw.device).expand(yaw.shape[0], 3)
    direction = torch.stack(
        [torch.sin(yaw) * torch.cos(pitch), torch.sin(pitch), torch.cos(yaw) * torch.cos(pitch)], -1
    )
    cam2world = look_at(centre + radius * direction, centre, roll_deg)
    return pack_label(cam2world, intrinsics_matrix(device=yaw.device).to(yaw.dtype).expand(yaw.shape[0], 3, 3))


def view_angles(label: Float[Tensor, "batch 25"]) -> ViewAngles:
    """Return yaw, pitch and roll (degrees) of cameras, read from their viewing direction; inverse of `orbit`."""
    cam2world, _ = unpack_label(label)
    right, forward = cam2world[:, :3, 0], cam2world[:, :3, 2]
    yaw = torch.atan2(-forward[:, 0], -forward[:, 2])
    pitch = torch.asin((-forward[:, 1]).clamp(-1, 1))
    level = look_at(cam2world[:, :3, 3], cam2world[:, :3, 3] + forward)
    roll = torch.atan2((right * level[:, :3, 1]).sum(-1), (right * level[:, :3, 0]).sum(-1))
    degrees = 180 / math.pi
    return ViewAngles(yaw * degrees, pitch * degrees, roll * degrees)


def project(
    points: Float[Tensor, "batch n 3"], label: Float[Tensor, "batch 25"]
) -> tuple[Float[Tensor, "batch n 2"], Float[Tensor, "batch n"]]:
    """Project world points to normalised image coordinates (0..1, x right, y down) and their depth along z."""
    cam2world, intrinsics = unpack_label(label)
    rotation, origin = cam2world[:, :3, :3], cam2world[:, :3, 3]
    in_camera = (points - origin[:, None]) @ rotation
    image = in_camera @ intrinsics.transpose(1, 2)
    return image[..., :2] / image[..., 2:].clamp_min(1e-6), in_camera[..., 2]
