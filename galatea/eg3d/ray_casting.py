"""Rendering of an anchored head's planes: along rays, of whole images, and only where there is something to see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from galatea.cameras import RADIUS
from galatea.eg3d.guided_sampling import SurfaceSampling, guided_depths
from galatea.eg3d.rays import Rays
from galatea.eg3d.surface_decoder import SurfaceDecoder
from galatea.eg3d.view_planes import Box, SurfaceTables

_SPARSE_FACTOR, _SPARSE_ALPHA, _CHUNK_RAYS = 4, 0.02, 4096
"""`render_seen` renders smaller by the factor first; rays near opacity follow, so many at a time."""


@dataclass(frozen=True)
class RayCaster:
    """What rays are cast through.

    Attributes:
        tables: planes.
        decoder: from planes to colour and density at points.
        box: the cube that the planes cover.
        hair_box: the cube in which hair may be.
        sampling: how rays are sampled.
    """

    tables: SurfaceTables
    decoder: SurfaceDecoder
    box: Box
    hair_box: Box
    sampling: SurfaceSampling

    def render(
        self, rays: Rays, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch rays channels"], Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"]]:
        """Return colour [0,1] and features times opacity, alpha and depth along rays (as many heads as ray batches)."""
        depths, ends = guided_depths(self.tables, rays, (self.box, self.hair_box), self.sampling, generator)
        points = rays.origins[..., None, :] + depths[..., None] * rays.directions[..., None, :]
        values, density = self.decoder(self.tables, self.box.enter(points).flatten(1, 2))
        values = values.view(*depths.shape, -1)
        return composite(values, density.view(depths.shape) / self.box.half, depths, ends)

    def render_seen(
        self, rays: Rays, size: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch rays channels"], Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"]]:
        """Render only rays near which a small rendering shows something, in chunks that fit the processor's cache."""
        batch, coarse = rays.origins.shape[0], size // _SPARSE_FACTOR
        grid = torch.arange(size * size, device=rays.origins.device).view(size, size)
        first = _SPARSE_FACTOR // 2
        sparse = grid[first::_SPARSE_FACTOR, first::_SPARSE_FACTOR][:coarse, :coarse].flatten()
        _, alpha, _ = self.render(_choose(rays, sparse))
        is_seen = F.max_pool2d(alpha.amax(0).view(1, 1, coarse, coarse), 3, 1, 1) > _SPARSE_ALPHA
        is_seen = F.interpolate(is_seen.float(), (size, size), mode="nearest")
        chosen = is_seen.flatten().nonzero()[:, 0]
        shape = (batch, size * size)
        outs = [rays.origins.new_zeros(*shape, width) for width in (3 + self.decoder.num_outputs, 1, 1)]
        outs[2] += RADIUS + self.box.half
        for out, found in zip(outs, self.render_chunks(_choose(rays, chosen), generator), strict=True):
            out[:, chosen] = found
        return outs[0], outs[1], outs[2]

    def render_chunks(
        self, rays: Rays, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch rays channels"], Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"]]:
        """Do what `render` does, in chunks that fit the processor's cache."""
        step = max(1, _CHUNK_RAYS // rays.origins.shape[0])
        chunks = zip(torch.split(rays.origins, step, 1), torch.split(rays.directions, step, 1), strict=True)
        parts = [self.render(Rays(*chunk), generator) for chunk in chunks]
        values, alpha, depth = (torch.cat(found, 1) for found in zip(*parts, strict=True))
        return values, alpha, depth


def _choose(rays: Rays, index: Int[Tensor, "n"]) -> Rays:
    return Rays(rays.origins[:, index], rays.directions[:, index])


def composite(
    values: Float[Tensor, "batch rays samples channels"],
    density: Float[Tensor, "batch rays samples"],
    depths: Float[Tensor, "batch rays samples"],
    ends: Float[Tensor, "batch rays"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values times opacity, alpha (both summed along rays) and expected depth (NeRF, equation 3)."""
    steps = torch.diff(torch.cat([depths, torch.maximum(ends[..., None], depths[..., -1:])], -1), dim=-1)
    optical = density * steps
    alpha = 1 - torch.exp(-optical)
    before = F.pad(torch.cumsum(optical, -1)[..., :-1], (1, 0))
    weights = alpha * torch.exp(-before)
    total = weights.sum(-1, keepdim=True).clamp_max(1)
    depth = ((weights * depths).sum(-1, keepdim=True) + 1e-6 * ends[..., None]) / (total + 1e-6)
    return (weights[..., None, :] @ values)[..., 0, :], total, depth


def unpremultiply(colour: Float[Tensor, "batch 3 h w"], alpha: Float[Tensor, "batch 1 h w"]) -> Tensor:
    """Return colours in [-1,1] from colours [0,1] times opacity; black where there is nothing."""
    return (colour / alpha.clamp_min(0.02)).clamp(-0.1, 1.1) * 2 - 1
