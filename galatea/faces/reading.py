"""What the reader of faces says about crops, and the squares of crops that it looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from galatea.cameras import FOCAL, RADIUS, intrinsics_matrix, pack_label, view_angles
from galatea.faces.landmarks import FaceLandmarks
from galatea.faces.locating import Place
from galatea.faces.reader_network import INPUT_SIZE
from galatea.faces.regions import Regions

MIDDLE_HEIGHT = -0.0158
"""World height of the point that regions are centred on, at the pivot's depth."""
REGION_SIDE = 0.72
"""Side of a region in portrait crops, for a head at the usual distance."""
FIRST_LOOK = (0.5, 0.5 - MIDDLE_HEIGHT * FOCAL / RADIUS, REGION_SIDE)
"""Where a portrait crop has its face: centre x, centre y, side."""
MAX_STEP, MAX_RESIZE = 0.35, 0.5
"""The second look moves by at most this share of the side, and changes size by at most this logarithm."""
NEAR, NEAR_ANGLE = 0.09, 0.3
"""A face that is found within this of where it was expected (region sides and log size; radians) is not looked for
again; training saw faces about so far off."""
FINDER_RAISE = 0.035
"""Regions lie so much of their side above those of the face detector, which have the same size."""


@dataclass(frozen=True)
class FaceReading:
    """What a batch of square crops shows; angles and gaze are those of EG3D's camera for portrait crops.

    Attributes:
        points: 478 landmarks, normalised in the crop, in `FaceLandmarks`' order.
        sigma: standard deviation of each point, in crop sides.
        expression: 52 ARKit coefficients in [0, 1].
        gaze: directions of the right and the left eye in the camera's frame (x right, y down, z forward), unit length.
        rotation: head to camera.
        confidence: 0..1, that this is a face that the reader knows how to read.
    """

    points: Float[Tensor, "batch 478 2"]
    sigma: Float[Tensor, "batch 478"]
    expression: Float[Tensor, "batch 52"]
    gaze: Float[Tensor, "batch 2 3"]
    rotation: Float[Tensor, "batch 3 3"]
    confidence: Float[Tensor, "batch"]

    def angles_deg(self) -> Float[Tensor, "batch 3"]:
        """Return yaw, pitch and roll with `cameras.view_angles`' signs."""
        cam2world = torch.eye(4, device=self.rotation.device).repeat(len(self.rotation), 1, 1)
        cam2world[:, :3, :3] = self.rotation.transpose(1, 2)
        intrinsics = intrinsics_matrix(device=self.rotation.device).expand(len(self.rotation), 3, 3)
        angles = view_angles(pack_label(cam2world, intrinsics))
        return torch.stack([angles.yaw_deg, angles.pitch_deg, angles.roll_deg], 1)

    def landmarks(self) -> FaceLandmarks:
        """Return the landmarks as other parts take them; their depth is not read."""
        depth = torch.zeros_like(self.points[:, :468, 0])
        return FaceLandmarks(self.points, depth, self.confidence, self.sigma, self.expression)


def usual_regions(batch: int, device: torch.device, dtype: torch.dtype) -> Regions:
    """Return where portrait crops have their faces."""
    x, y, side = FIRST_LOOK
    centre = torch.tensor([[x, y]], device=device, dtype=dtype).expand(batch, 2)
    full = torch.full((batch,), side, device=device, dtype=dtype)
    return Regions(centre, full, torch.zeros_like(full))


def next_regions(regions: Regions, found: Place) -> Regions:
    """Return the regions that the network would have liked to see: centred, upright, of the usual size."""
    centre = regions.to_image(found.centre.clamp(0.5 - MAX_STEP, 0.5 + MAX_STEP)[:, None])[:, 0]
    roll = torch.atan2(found.rotation[:, 1, 0], found.rotation[:, 0, 0])
    side = regions.side * torch.exp(found.log_scale.clamp(-MAX_RESIZE, MAX_RESIZE))
    return Regions(centre, side, regions.angle + roll)


def far(expected: Regions, found: Regions) -> Int[Tensor, "rows"]:
    """Return which faces are further from where they were expected than the first look is good at."""
    moved = (found.centre - expected.centre).norm(dim=1) / expected.side + (found.side / expected.side).log().abs()
    is_far = (moved > NEAR) | ((found.angle - expected.angle).abs() > NEAR_ANGLE)
    return torch.nonzero(is_far)[:, 0]


def raised(regions: Regions) -> Regions:
    """Return regions that fit the first look from those of the face detector."""
    up = torch.stack([torch.sin(regions.angle), -torch.cos(regions.angle)], 1) * regions.side[:, None]
    return Regions(regions.centre + FINDER_RAISE * up, regions.side, regions.angle)


def pooled(crops: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 smaller smaller"]:
    """Average large crops down to about what the networks see, because resampling alone would skip pixels."""
    factor = max(1, int(crops.shape[-1] * REGION_SIDE / INPUT_SIZE + 0.25))
    while crops.shape[-1] % factor:
        factor -= 1
    if factor == 1:
        return crops
    # Sums of slices, in place: five times as fast on a processor as a pooling layer.
    rows = crops[..., ::factor, :] + crops[..., 1::factor, :]
    for start in range(2, factor):
        rows += crops[..., start::factor, :]
    total = rows[..., ::factor] + rows[..., 1::factor]
    for start in range(2, factor):
        total += rows[..., start::factor]
    return total.div_(factor**2)


def cut_region(crops: Tensor, regions: Regions) -> Float[Tensor, "batch 3 128 128"]:
    """Return what the first look sees of regions."""
    return regions.cut(crops, INPUT_SIZE).contiguous(memory_format=torch.channels_last)


def repeated(regions: Regions, times: int) -> Regions:
    """Return each region so many times in a row."""
    centre, side, angle = (v.repeat_interleave(times, 0) for v in (regions.centre, regions.side, regions.angle))
    return Regions(centre, side, angle)


def within(outer: Regions, inner: Regions) -> Regions:
    """Return regions of regions in the coordinates of the picture; the inner ones are upright in the outer."""
    centre = outer.to_image(inner.centre[:, None])[:, 0]
    return Regions(centre, outer.side * inner.side, outer.angle, inner.is_mirrored)


def flipped(points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """Return points of the mirrored picture."""
    return torch.stack([1 - points[..., 0], points[..., 1]], -1)


def to_portrait(regions: Regions) -> Float[Tensor, "batch 3 3"]:
    """Return the turn from a camera that looks at a region, upright in it, to the portrait crop's camera."""
    ray = torch.cat([(regions.centre - 0.5) / FOCAL, torch.ones_like(regions.side)[:, None]], 1)
    x, y, z = F.normalize(ray, dim=-1).unbind(-1)
    one, share = torch.ones_like(z), 1 / (1 + z)
    to_ray = torch.stack(
        [one - x * x * share, -x * y * share, x, -x * y * share, one - y * y * share, y, -x, -y, z], -1
    ).reshape(-1, 3, 3)
    cos, sin, zero = torch.cos(regions.angle), torch.sin(regions.angle), torch.zeros_like(z)
    roll = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return to_ray @ roll
