"""Square, rotated regions of images: cut them out differentiably, and bring points found in them back.

Coordinates are normalised: (0, 0) is the upper left corner of the image, (1, 1) the lower right one; images are square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Regions:
    """One square region for each image: centre, side length, clockwise angle in radians, optionally mirrored."""

    centre: Float[Tensor, "batch 2"]
    side: Float[Tensor, " batch"]
    angle: Float[Tensor, " batch"]
    is_mirrored: Bool[Tensor, " batch"] | None = None

    def select(self, rows: Int[Tensor, " rows"]) -> Regions:
        """Return the regions of some images."""
        mirrored = None if self.is_mirrored is None else self.is_mirrored[rows]
        return Regions(self.centre[rows], self.side[rows], self.angle[rows], mirrored)

    def replaced(self, rows: Int[Tensor, " rows"], other: Regions) -> Regions:
        """Return the regions with some of them taken from `other`, in order; none may be mirrored."""
        return Regions(
            self.centre.index_copy(0, rows, other.centre),
            self.side.index_copy(0, rows, other.side),
            self.angle.index_copy(0, rows, other.angle),
        )

    def axes(self) -> Float[Tensor, "batch 2 2"]:
        """Return (x axis, y axis) of each region as vectors of one side length in the image."""
        cos, sin = torch.cos(self.angle) * self.side, torch.sin(self.angle) * self.side
        x_axis, y_axis = torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)
        if self.is_mirrored is not None:
            x_axis = torch.where(self.is_mirrored[:, None], -x_axis, x_axis)
        return torch.stack([x_axis, y_axis], 1)

    def to_image(self, points: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Bring points from region coordinates (0..1) to image coordinates."""
        return (points - 0.5) @ self.axes() + self.centre[:, None]

    def to_region(self, points: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Bring points from image coordinates to region coordinates (0..1)."""
        axes = self.axes() / self.side[:, None, None] ** 2
        return (points - self.centre[:, None]) @ axes.transpose(1, 2) + 0.5

    def cut(
        self, images: Float[Tensor, "images channels size size"], size: int
    ) -> Float[Tensor, "batch channels {size} {size}"]:
        """Resample each region to `size` pixels, bilinearly; the image's edge pixels continue beyond it.

        Where there are more regions than images, each image has as many of them in turn.
        """
        ticks = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size - 0.5
        # Steps along the axes are added once for each pixel: a product for each costs a third of a cut's time.
        across, down = (2 * self.axes()[:, :, None] * ticks[:, None]).unbind(1)
        grid = across[:, None] + (down + 2 * self.centre[:, None] - 1)[:, :, None]
        num, times = len(images), len(grid) // len(images)
        cuts = F.grid_sample(
            images, grid.reshape(num, -1, size, 2), mode="bilinear", padding_mode="border", align_corners=False
        )
        return cuts.reshape(num, -1, times, size, size).transpose(1, 2).flatten(0, 1) if times > 1 else cuts


def around_points(
    points: Float[Tensor, "batch points 2"],
    line_start: Float[Tensor, "batch 2"],
    line_end: Float[Tensor, "batch 2"],
    scale: float,
) -> Regions:
    """Return square regions around points, turned so that the line is horizontal, `scale` times the longer extent."""
    direction = line_end - line_start
    angle = torch.atan2(direction[:, 1], direction[:, 0])
    unturned = Regions(torch.zeros_like(line_start), torch.ones_like(angle), angle)
    local = unturned.to_region(points)
    low, high = local.amin(1), local.amax(1)
    centre = unturned.to_image(((low + high) / 2)[:, None])[:, 0]
    return Regions(centre, scale * (high - low).amax(1), angle)
