"""The last part of rendering an anchored head: from what its rays saw to the final image.

Enlarged, with the surface's own detail (`detail`), and with outlines drawn by rays of the final image (`edges`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.detail import add_surface_detail, enlarge, surface_points
from galatea.eg3d.edges import find_outlines, refine_outlines
from galatea.eg3d.generator import Rendering
from galatea.eg3d.ray_casting import RayCaster, unpremultiply
from galatea.eg3d.rays import Rays


@dataclass(frozen=True)
class RenderedMaps:
    """What the rays of a small image saw.

    Attributes:
        features: colour [0,1], then features, times opacity.
        alpha: opacity.
        depth: along rays, world units.
    """

    features: Float[Tensor, "batch channels size size"]
    alpha: Float[Tensor, "batch 1 size size"]
    depth: Float[Tensor, "batch 1 size size"]

    def layer(self, size: int) -> Float[Tensor, "batch 4 size size"]:
        """Return colour times opacity and opacity, enlarged."""
        return enlarge(torch.cat([self.features[:, :3], self.alpha], 1), size)


def enlarged(maps: RenderedMaps, size: int) -> Rendering:
    """Return the rendering with the final image merely enlarged: for optimisation."""
    return _rendering(maps, maps.layer(size), None)


def finished(maps: RenderedMaps, caster: RayCaster, rays: Rays, size: int) -> Rendering:
    """Return the rendering with the surface's detail and, unless gradients are wanted, outlines.

    Args:
        maps: what was rendered.
        caster: casts further rays into the same head.
        rays: of the final image's pixels, row by row.
        size: of the final image.
    """
    points = caster.box.enter(surface_points(rays, maps.depth, size))
    layer, depth = add_surface_detail(maps.layer(size), caster.tables, points, maps.depth.shape[-1]), None
    if not torch.is_grad_enabled():
        depth = F.interpolate(maps.depth, (size, size), mode="bilinear", align_corners=False)
        layer, depth = refine_outlines(layer, depth, find_outlines(maps.alpha, maps.depth), caster, rays)
    return _rendering(maps, layer, depth)


def _rendering(
    maps: RenderedMaps, layer: Float[Tensor, "batch 4 size size"], depth: Float[Tensor, "batch 1 size size"] | None
) -> Rendering:
    image, raw = unpremultiply(layer[:, :3], layer[:, 3:]), unpremultiply(maps.features[:, :3], maps.alpha)
    alpha = layer[:, 3:].clamp(0, 1)
    return Rendering(image, raw, maps.depth, maps.alpha, image_alpha=alpha, features=maps.features, image_depth=depth)
