"""The surface of a head that planes carry: signed distances to it, and its colour at points.

The planes of an anchored head hold, besides features, the surface's depth along their axis. A point lies inside the
head if it lies behind the surface in every view, so the largest of the views' signed distances is a good distance to
the head.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.view_planes import DEPTH, FACING, MASK, MOUTH, SurfaceTables, read_views
from galatea.morphable.mouth_light import light_behind

_NEARNESS = 0.044
"""Distance from a view's surface (half boxes) at which its colour counts for 1/e."""
_SPARE, _SPARE_NEARNESS = 3e-3, 0.175
"""Weight and reach (half boxes) of colours where no view sees the surface well."""
_MIDLINE = 0.052
"""Side planes fade in over this |x| (half boxes), so that left and right meet without a seam."""
_TOOTH, _OPENING, _LINING = 0.02, 0.015, (0.1, 0.045, 0.04)
"""Thickness of teeth and height of the gap through which light comes in behind them (half boxes; 4 and 3 mm), and the
colour of a mouth in the dark."""


def view_distances(
    masks: tuple[Tensor, Tensor, Tensor],
    depths: tuple[Tensor, Tensor, Tensor],
    q: Float[Tensor, "batch n 3"],
    size: int,
) -> Float[Tensor, "batch n 3"]:
    """Return signed distances (half boxes, negative inside) along each view, outlines included.

    Where a view's bilinear mask falls under one half, the point is outside its outline, by about that part of a texel.
    """
    outline = [(0.5 - mask) * (2.0 / size) for mask in masks]
    return torch.stack([torch.maximum(a - d, o) for a, d, o in zip(_along(q), depths, outline, strict=True)], dim=-1)


def _along(q: Float[Tensor, "batch n 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return coordinates of points towards the front, the side (of the point's own half) and the top view."""
    return q[..., 2], q[..., 0].abs(), q[..., 1]


def surface_distances(
    views: tuple[Tensor, Tensor, Tensor], q: Float[Tensor, "batch n 3"], tables: SurfaceTables
) -> Float[Tensor, "batch n 3"]:
    """Return the views' signed distances from surface channels read at points."""
    return view_distances(_channel(views, MASK), _channel(views, DEPTH), q, 2 * tables.size)


def head_distance(tables: SurfaceTables, q: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
    """Return the distance to the head (half boxes, negative inside), without gradient."""
    views = read_views(tables.geometry, q, 2 * tables.size, tables.num_heads)
    return view_distances(_channel(views, 0), _channel(views, 1), q, 2 * tables.size).amax(-1)


def side_fade(q: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 1"]:
    """Return how much side planes count at points: nothing on the midline, where left meets right."""
    return (q[..., :1].abs() / _MIDLINE).clamp(0, 1)


def _channel(views: tuple[Tensor, Tensor, Tensor], index: int) -> tuple[Tensor, Tensor, Tensor]:
    front, side, top = (view[..., index] for view in views)
    return front, side, top


def surface_colour(
    views: tuple[Tensor, Tensor, Tensor], q: Float[Tensor, "batch n 3"], distances: Float[Tensor, "batch n 3"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mesh's colour at points, blended from the views that see it best, nearness, and its confidence."""
    masks = torch.stack(_channel(views, MASK), -1)
    facing = (torch.stack(_channel(views, FACING), -1) / masks.clamp_min(0.05)).clamp(0, 1)
    near = torch.exp(-(distances / _NEARNESS).square().clamp_max(20))
    # Outlines do not count here: deep inside along a view, its colour belongs to another place of the head.
    apart = torch.stack([a - d for a, d in zip(_along(q), _channel(views, DEPTH), strict=True)], -1)
    fade = torch.cat([torch.ones_like(q[..., :1]), side_fade(q), torch.ones_like(q[..., :1])], -1)
    weight = masks * torch.exp(-(apart / _NEARNESS).square().clamp_max(20)) * facing.square() * fade
    total = weight.sum(-1, keepdim=True)
    # Steps of the height fields (lip corners, ears, jaw) are seen well by no view: the nearest one serves, not black.
    spare = masks * torch.exp(-(apart / _SPARE_NEARNESS).square().clamp_max(20)) * (fade + 1e-3) * _SPARE
    colours = torch.stack([view[..., :3] for view in views], -2) / masks[..., None].clamp_min(0.05)
    blended = weight + spare
    base = (blended[..., None] * colours).sum(-2) / (blended.sum(-1, keepdim=True) + 1e-6)
    return base, near, total / (total + 1e-3)


def dark_mouth(
    colour: Float[Tensor, "batch n 3"], views: tuple[Tensor, Tensor, Tensor], q: Float[Tensor, "batch n 3"]
) -> Float[Tensor, "batch n 3"]:
    """Return colours at points, no lighter than a mouth is behind what the front sees in it.

    There the planes know of no surface: seen from below, the step from the teeth's edge to the dark behind them would
    be a wall of the teeth's colour.
    """
    behind = (views[0][..., MOUTH] - q[..., 2] - _TOOTH).clamp_min(0)[..., None]
    light = light_behind(behind, torch.full_like(behind, _OPENING))
    return torch.minimum(colour, colour * light + colour.new_tensor(_LINING))
