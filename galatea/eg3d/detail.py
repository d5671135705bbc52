"""From the rendered image to the final one: enlarge, and add the detail that the head's surface has of its own.

The surface channels of the planes are finer than the rendered image. One read per pixel at the rendered depth gives the
surface's colour at image size; what this holds beyond the rendered resolution is added to the enlarged image, except
where something else (hair) is seen. Unlike a learned super-resolution it is consistent between views and expressions,
keeps the texture of a photo that was lifted onto the mesh, and needs no training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.rays import Rays
from galatea.eg3d.surface import dark_mouth, surface_colour, surface_distances
from galatea.eg3d.view_planes import SurfaceTables, read_views

_NEARNESS = 0.04
"""Distance from the surface (half boxes) at which its detail has faded to 1/e."""
_LIKENESS = 0.12
"""Difference between rendered and surface colour ([0,1]) where detail has faded to 1/e: something covers the skin."""


def enlarge(maps: Float[Tensor, "batch channels h w"], size: int) -> Float[Tensor, "batch channels size size"]:
    """Enlarge smoothly."""
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bicubic", align_corners=False)


def subdivide(rays: Rays, size: int) -> Rays:
    """Return a finer grid of rays by interpolation (rays of a pinhole camera, bent or not, vary smoothly)."""
    batch, num = rays.directions.shape[:2]
    side = round(num**0.5)
    both = torch.cat([rays.origins, rays.directions], -1).transpose(1, 2).reshape(batch, 6, side, side)
    # Continue the grid linearly by one ray, so that interpolation holds up to the image's edge.
    both = torch.cat([2 * both[:, :, :1] - both[:, :, 1:2], both, 2 * both[:, :, -1:] - both[:, :, -2:-1]], 2)
    both = torch.cat([2 * both[..., :1] - both[..., 1:2], both, 2 * both[..., -1:] - both[..., -2:-1]], 3)
    factor = size // side
    fine = F.interpolate(both, scale_factor=factor, mode="bilinear", align_corners=False)
    fine = fine[:, :, factor:-factor, factor:-factor].flatten(2).transpose(1, 2)
    return Rays(fine[..., :3], F.normalize(fine[..., 3:], dim=-1))


def surface_points(rays: Rays, depth: Float[Tensor, "batch 1 h w"], size: int) -> Float[Tensor, "batch n 3"]:
    """Return the points at rendered depth on rays of the final image."""
    fine = F.interpolate(depth, (size, size), mode="bilinear", align_corners=False)
    return rays.origins + fine.flatten(1)[..., None] * rays.directions


def add_surface_detail(
    image: Float[Tensor, "batch 4 size size"], tables: SurfaceTables, q: Float[Tensor, "batch n 3"], rendered_size: int
) -> Float[Tensor, "batch 4 size size"]:
    """Add to the enlarged colour (times opacity; opacity is the fourth channel) what the surface shows beyond it.

    Args:
        image: enlarged rendering.
        tables: planes.
        q: a point per pixel, in half boxes.
        rendered_size: size at which the image was rendered.
    """
    size = image.shape[-1]
    if rendered_size >= size:
        return image
    views = read_views(tables.surface, q, 2 * tables.size, tables.num_heads)
    distances = surface_distances(views, q, tables)
    base, _, confidence = surface_colour(views, q, distances)
    base = dark_mouth(base, views, q)
    near = confidence * torch.exp(-(distances.amax(-1, keepdim=True) / _NEARNESS).square().clamp_max(20))
    base, near = (maps.transpose(1, 2).reshape(image.shape[0], -1, size, size) for maps in (base, near))
    coarse = enlarge(F.avg_pool2d(base, size // rendered_size), size)
    colour = image[:, :3] / image[:, 3:].clamp_min(0.05)
    likeness = torch.exp(-(colour - coarse).abs().mean(1, keepdim=True) / _LIKENESS)
    detail = (base - coarse) * near * likeness * image[:, 3:].clamp(0, 1)
    return torch.cat([image[:, :3] + detail, image[:, 3:]], dim=1)
