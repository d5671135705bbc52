"""The planes of an anchored head, one per view of its mesh: as maps, as one tensor, as tables to read points from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.carry import VIEWS
from galatea.eg3d.lookup import read_bilinear

MASK, DEPTH, FACING, MOUTH = 3, 4, 5, 6
NUM_SURFACE_CHANNELS = 7
"""Surface channels of a view: 0-2 colour times mask, 3 mask, 4 depth, 5 normal towards the viewer times mask, 6 the
outermost depth near by where it looks into a mouth, -1 elsewhere."""


@dataclass(frozen=True)
class Box:
    """The cube that the planes cover, in world units."""

    centre: tuple[float, float, float] = (0.0, -0.015, 0.03)
    half: float = 0.48

    def enter(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Return points in half boxes: [-1, 1] inside."""
        return (points - torch.tensor(self.centre, device=points.device, dtype=points.dtype)) / self.half

    def relate(self, other: Box, axis: int) -> tuple[float, float]:
        """Return scale and shift that turn this box's coordinates along an axis into another's."""
        return self.half / other.half, (self.centre[axis] - other.centre[axis]) / other.half


@dataclass(frozen=True)
class ViewPlanes:
    """Planes of all `VIEWS` of a batch of heads, channels last so that they are tables of texels.

    Attributes:
        surface: colour times mask, mask, depth, facing and mouth (`NUM_SURFACE_CHANNELS`), at twice the size of the
            features.
        features: what the fusion painted.
    """

    surface: Float[Tensor, "batch views size2 size2 7"]
    features: Float[Tensor, "batch views size size channels"]

    def pack(self) -> Float[Tensor, "batch views channels size size"]:
        """Return one tensor: the surface, each 2x2 texels side by side as channels, then the features."""
        folded = F.pixel_unshuffle(self.surface.permute(0, 1, 4, 2, 3), 2)
        return torch.cat([folded, self.features.permute(0, 1, 4, 2, 3)], dim=2)

    @classmethod
    def unpack(cls, planes: Float[Tensor, "batch views channels size size"]) -> ViewPlanes:
        """Undo `pack`.

        Raises:
            ValueError: if the tensor cannot be one of `pack`.
        """
        folded = 4 * NUM_SURFACE_CHANNELS
        if planes.ndim != 5 or planes.shape[1] != len(VIEWS) or planes.shape[2] <= folded:
            raise ValueError(
                f"planes: expected (batch, {len(VIEWS)}, > {folded}, size, size), got {tuple(planes.shape)}"
            )
        surface = F.pixel_shuffle(planes[:, :, :folded], 2)
        return cls(surface.permute(0, 1, 3, 4, 2), planes[:, :, folded:].permute(0, 1, 3, 4, 2))


@dataclass(frozen=True)
class SurfaceTables:
    """Planes as tables of texels, ready to be read at points; views follow each other in the order of `VIEWS`."""

    surface: Float[Tensor, "texels2 7"]
    features: Float[Tensor, "texels channels"]
    geometry: Float[Tensor, "texels2 2"]
    size: int
    num_heads: int

    @classmethod
    def of(cls, planes: ViewPlanes) -> SurfaceTables:
        """Lay planes out as tables."""
        num_heads, _, size, _, channels = planes.features.shape
        surface = planes.surface.reshape(-1, NUM_SURFACE_CHANNELS)
        geometry = surface.detach()[:, MASK : DEPTH + 1].contiguous()
        return cls(surface, planes.features.reshape(-1, channels), geometry, size, num_heads)


def read_views(
    table: Float[Tensor, "texels channels"], q: Float[Tensor, "batch n 3"], size: int, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the front, side (of the point's own half) and top planes hold at points in half boxes."""
    x, y, z = ((q * 0.5 + 0.5) * size - 0.5).flatten(0, 1).unbind(-1)
    plane = size * size
    head = torch.zeros_like(x, dtype=torch.long)
    if num_heads > 1:
        head = torch.arange(num_heads, device=q.device).repeat_interleave(q.shape[1]) * (len(VIEWS) * plane)
    side = head + (1 + (q[..., 0].detach().flatten() < 0).long()) * plane
    reads = (((x, y), head), ((z, y), side), ((x, z), head + 3 * plane))
    front, aside, top = (
        read_bilinear(table, places, (size, size), start).view(*q.shape[:2], -1) for places, start in reads
    )
    return front, aside, top
