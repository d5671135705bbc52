"""Turning a head while the body stays: camera rays that are rotated row by row.

The head rests in world space and the camera moves, so a turned head is a turned camera. Turning the camera for the
whole portrait would also turn shoulders and chest, which then no longer meet the photo around them. Rays are
therefore turned fully down to the chin and less and less below it, as a neck does; at the lower border of the crop
they are the photo's own. Along every ray depth keeps its meaning, so whatever is rendered can be traced back to the
photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import PIVOT, orbit, pack_label, project, unpack_label, view_angles
from galatea.eg3d.rays import Rays, camera_rays

_BEND_STEPS = 4
"""Fixed-point steps that find the row in which a bent view shows a point; the error after four is below 0.1 pixel."""


@dataclass(frozen=True)
class Pose:
    """A turned view of a portrait.

    Attributes:
        camera: the photo's own camera.
        angles_deg: yaw, pitch, roll to be shown, in the signs of `cameras.view_angles`.
        bend: first and last image row (0..1, downwards) between which the turn fades out; None turns everything.
    """

    camera: Float[Tensor, "batch 25"]
    angles_deg: Float[Tensor, "batch 3"]
    bend: Float[Tensor, "batch 2"] | None = None

    @staticmethod
    def of_photo(camera: Float[Tensor, "batch 25"]) -> Pose:
        """Return the photo's own view."""
        return Pose(camera, own_angles(camera))

    def share(self, rows: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        """Return how much of the turn is applied in image rows (0..1)."""
        if self.bend is None:
            return torch.ones_like(rows)
        first, last = self.bend[:, :1], self.bend[:, 1:]
        position = ((rows - first) / (last - first).clamp_min(1e-3)).clamp(0, 1)
        return 1 - position * position * (3 - 2 * position)


def own_angles(camera: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch 3"]:
    """Return yaw, pitch and roll (degrees) of cameras as one tensor."""
    angles = view_angles(camera)
    return torch.stack([angles.yaw_deg, angles.pitch_deg, angles.roll_deg], dim=1)


def turned_camera(camera: Float[Tensor, "batch 25"], angles_deg: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 25"]:
    """Return the camera rotated about the head's pivot until it shows the given yaw, pitch and roll.

    A camera that is off centre or at another distance stays so; `view_angles` of the result are `angles_deg`.
    """
    cam2world, intrinsics = unpack_label(camera)
    rotation = _turn(camera, angles_deg)
    pivot = cam2world.new_tensor(PIVOT)
    turned = cam2world.clone()
    turned[:, :3, :3] = rotation @ cam2world[:, :3, :3]
    turned[:, :3, 3] = pivot + ((cam2world[:, :3, 3] - pivot)[:, None] @ rotation.transpose(1, 2))[:, 0]
    return pack_label(turned, intrinsics)


def pose_rays(pose: Pose, resolution: int) -> Rays:
    """Return the rays of a turned view; without a bend they are those of `turned_camera`."""
    rays = camera_rays(pose.camera, resolution)
    batch = pose.camera.shape[0]
    rows = (torch.arange(resolution, dtype=pose.camera.dtype, device=pose.camera.device) + 0.5) / resolution
    turns = _turn_by_share(pose, pose.share(rows.expand(batch, resolution)))
    pivot = pose.camera.new_tensor(PIVOT)

    def turned(vectors: Tensor) -> Tensor:
        by_row = vectors.reshape(batch, resolution, resolution, 3)
        return (by_row @ turns.transpose(2, 3)).reshape(batch, -1, 3)

    return Rays(pivot + turned(rays.origins - pivot), turned(rays.directions))


def project_posed(
    points: Float[Tensor, "batch n 3"], pose: Pose
) -> tuple[Float[Tensor, "batch n 2"], Float[Tensor, "batch n"]]:
    """Return where a turned view shows world points (0..1, x right, y down), and their depth along z."""
    image, depth = project(points, turned_camera(pose.camera, pose.angles_deg))
    if pose.bend is None:
        return image, depth
    pivot = points.new_tensor(PIVOT)
    for _ in range(_BEND_STEPS):
        turns = _turn_by_share(pose, pose.share(image[..., 1]))
        unturned = (turns.transpose(2, 3) @ (points - pivot)[..., None])[..., 0] + pivot
        image, depth = project(unturned, pose.camera)
    return image, depth


def neck_bend(
    pose: Pose, chin: Float[Tensor, "batch 3"], margin: float = 0.02, min_length: float = 0.12
) -> Float[Tensor, "batch 2"]:
    """Return the rows between which a turn fades out: from just below the turned chin to the lower border.

    Args:
        pose: the view, its own bend is not looked at.
        chin: lowest point of the chin in world space, as expressed.
        margin: distance kept below the chin, in image heights.
        min_length: least height over which the turn fades out; a chin that is lowered further than that is squeezed.
    """
    points = chin[:, None]
    turned, _ = project(points, turned_camera(pose.camera, pose.angles_deg))
    resting, _ = project(points, pose.camera)
    first = torch.maximum(turned[:, 0, 1], resting[:, 0, 1]) + margin
    return torch.stack([first.clamp_max(1 - min_length), torch.ones_like(first)], dim=1)


def _turn(camera: Float[Tensor, "batch 25"], angles_deg: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """Return the rotation about the pivot that turns `camera` to the view `angles_deg`."""
    rotation = unpack_label(camera)[0][:, :3, :3]
    yaw, pitch, roll = angles_deg.to(camera.dtype).unbind(1)
    asked = unpack_label(orbit(yaw, pitch, roll))[0][:, :3, :3]
    return asked @ rotation.transpose(1, 2)


def _turn_by_share(pose: Pose, share: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n 3 3"]:
    """Return the rotations of a partial turn: angles run from the photo's own to those asked for."""
    batch, count = share.shape
    own = own_angles(pose.camera)
    partial = own[:, None] + share[..., None] * (pose.angles_deg.to(own.dtype) - own)[:, None]
    camera = pose.camera[:, None].expand(batch, count, 25).reshape(-1, 25)
    return _turn(camera, partial.reshape(-1, 3)).reshape(batch, count, 3, 3)
