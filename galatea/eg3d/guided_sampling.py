"""Where rays are sampled: around the head's surface, found by marching, and in front of it, where hair is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from galatea.eg3d.rays import Rays
from galatea.eg3d.surface import head_distance
from galatea.eg3d.view_planes import Box, SurfaceTables
from galatea.errors import ConfigError

_NUM_FINER = 6
"""Steps of the second march towards the surface, over two of the first march."""
_LEAST_STEP = 1e-8
"""Rays that miss the box have no steps."""


@dataclass(frozen=True)
class SurfaceSampling:
    """How rays are sampled; lengths in world units.

    Attributes:
        num_search: steps of the search for the surface (distances only, cheap).
        num_surface: decoded samples around the surface.
        num_free: decoded samples in front of it, or all the way through where hair may be if there is no surface.
        surface_width: half the length around the surface that `num_surface` samples cover.
        hair_reach: how far in front of the surface free samples start.
    """

    num_search: int = 28
    num_surface: int = 5
    num_free: int = 8
    surface_width: float = 0.012
    hair_reach: float = 0.3

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: naming the field.
        """
        for name in ("num_search", "num_surface", "num_free"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name}: expected at least 2, got {getattr(self, name)}")
        for name in ("surface_width", "hair_reach"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: expected a positive length, got {getattr(self, name)}")


def box_interval(rays: Rays, box: Box) -> tuple[Float[Tensor, "batch rays"], Float[Tensor, "batch rays"]]:
    """Return where rays enter and leave the box (world units along the ray); equal where they miss it."""
    origin = box.enter(rays.origins)
    step = rays.directions / box.half
    step = torch.where(step.abs() < 1e-9, torch.full_like(step, 1e-9), step)
    first, second = (-1 - origin) / step, (1 - origin) / step
    near = torch.minimum(first, second).amax(-1).clamp_min(0)
    return near, torch.maximum(torch.maximum(first, second).amin(-1), near)


@torch.no_grad()
def find_surface(
    tables: SurfaceTables, rays: Rays, box: Box, num_steps: int
) -> tuple[Float[Tensor, "batch rays"], Bool[Tensor, "batch rays"], Tensor, Tensor]:
    """March rays to the head: depth of the first crossing (or of the closest approach), whether it hits, near, far.

    A second march of smaller steps around what the first found keeps outlines whole: rays that graze the head would
    come nearest to it in another place than their neighbours.
    """
    near, far = box_interval(rays, box)
    step = (far - near) / num_steps
    found, _, _ = _march(tables, rays, box, near, step, num_steps)
    _, is_hit, depth = _march(tables, rays, box, found - step, 2 * step / _NUM_FINER, _NUM_FINER)
    return depth, is_hit, near, far


def _march(
    tables: SurfaceTables,
    rays: Rays,
    box: Box,
    start: Float[Tensor, "batch rays"],
    step: Float[Tensor, "batch rays"],
    num_steps: int,
) -> tuple[Float[Tensor, "batch rays"], Bool[Tensor, "batch rays"], Float[Tensor, "batch rays"]]:
    """Return the depth of the first step inside the head or else of the closest one, whether it is inside, and where
    the ray enters there.
    """
    ticks = torch.arange(num_steps, device=start.device, dtype=start.dtype) + 0.5
    depths = start[..., None] + step[..., None] * ticks
    q = box.enter(rays.origins[..., None, :] + depths[..., None] * rays.directions[..., None, :])
    distance = head_distance(tables, q.flatten(1, 2)).view(depths.shape)
    distance = torch.where(step[..., None] > _LEAST_STEP, distance, torch.ones_like(distance))
    inside = distance < 0
    is_hit = inside.any(-1)
    first = inside.to(torch.uint8).argmax(-1)
    closest = torch.where(is_hit, first, distance.argmin(-1))[..., None]
    before = (closest - 1).clamp_min(0)
    d0, d1 = distance.gather(-1, before)[..., 0], distance.gather(-1, closest)[..., 0]
    t0, t1 = depths.gather(-1, before)[..., 0], depths.gather(-1, closest)[..., 0]
    crossing = t0 + (t1 - t0) * (d0 / (d0 - d1).clamp_min(1e-6)).clamp(0, 1)
    return t1, is_hit, torch.where(is_hit, crossing, t1)


@torch.no_grad()
def guided_depths(
    tables: SurfaceTables,
    rays: Rays,
    boxes: tuple[Box, Box],
    sampling: SurfaceSampling,
    generator: torch.Generator | None,
) -> tuple[Float[Tensor, "batch rays samples"], Float[Tensor, "batch rays"]]:
    """Return sorted sample depths and the far end of every ray.

    Args:
        tables: planes.
        rays: rays.
        boxes: what the planes cover, and where hair may be.
        sampling: how many samples.
        generator: jitters within strata.
    """
    surface, is_hit, near, far = find_surface(tables, rays, boxes[0], sampling.num_search)
    first, last = box_interval(rays, boxes[1])
    start = torch.where(is_hit, torch.maximum(near, surface - sampling.hair_reach), first)
    stop = torch.where(is_hit, torch.maximum(surface, start), last)
    share = _strata(surface, sampling.num_free, generator)
    # In front of the surface hair is mostly short: samples crowd towards it.
    share = torch.where(is_hit[..., None], 1 - (1 - share).square(), share)
    free = start[..., None] + (stop - start)[..., None] * share
    around = surface[..., None] + sampling.surface_width * (2 * _strata(surface, sampling.num_surface, generator) - 1)
    depths = torch.cat([free, torch.minimum(torch.maximum(around, near[..., None]), far[..., None])], -1)
    return depths.sort(-1).values, torch.where(is_hit, torch.minimum(surface + 4 * sampling.surface_width, far), last)


def _strata(like: Tensor, count: int, generator: torch.Generator | None) -> Float[Tensor, "batch rays count"]:
    if generator is None:
        jitter = torch.full((*like.shape, count), 0.5, device=like.device, dtype=like.dtype)
    else:
        jitter = torch.rand((*like.shape, count), generator=generator, device=like.device, dtype=like.dtype)
    return (torch.arange(count, device=like.device, dtype=like.dtype) + jitter) / count
