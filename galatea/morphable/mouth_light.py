"""The dark inside of mouths: how much light comes in between the lips of a head mesh."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.morphable.head import HeadModel

_INSIDE = ("teeth", "tongue", "mouth")
_WALLS = (0.5, 0.15, 0.12)
"""Share of red, green and blue light that the walls of a mouth send back."""
_LIPS = 0.015
"""Thickness of lips (world units; 5 mm on a real head): what leans against them, as teeth do, is not behind them."""


def inside_vertices(mesh: HeadModel) -> Float[Tensor, "vertices 1"]:
    """Return 1 for vertices that only the inside of the mouth has, 0 for the others."""
    inside = mesh.mean.new_zeros(len(mesh.mean), 1)
    is_inside = torch.isin(mesh.part, mesh.part.new_tensor([mesh.part_names.index(name) for name in _INSIDE]))
    inside[mesh.faces[is_inside].flatten()] = 1
    inside[mesh.faces[~is_inside].flatten()] = 0
    return inside


def mouth_shade(mesh: HeadModel, vertices: Float[Tensor, "batch vertices 3"]) -> Float[Tensor, "batch vertices 3"]:
    """Return which share of the red, green and blue light around does not reach vertices: 0 outside the mouth."""
    inside = inside_vertices(mesh)[:, 0].nonzero()[:, 0]
    lips, behind = vertices[:, mesh.mouth_ring], vertices[:, inside]
    height = (lips[..., 1].amax(1) - lips[..., 1].amin(1))[:, None]
    nearest = torch.cdist(behind[..., :2], lips[..., :2]).argmin(-1)
    depth = (lips[..., 2].gather(1, nearest) - behind[..., 2] - _LIPS).clamp_min(0)
    light = light_behind(depth[..., None], height[..., None])
    return torch.zeros_like(vertices).index_copy(1, inside, 1 - light)


def light_behind(depth: Float[Tensor, "*batch 1"], height: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 3"]:
    """Return the share of the red, green and blue light around that reaches a depth behind a gap of some height.

    The gap is taken for a long slit: seen from a distance d behind it, a gap of height h lets in
    h / sqrt(h^2 + 4 d^2) of what would fall in without lips. Light that the walls send back comes on top, as in a box
    with that opening.
    """
    let_in = height / (height.square() + 4 * depth.square()).sqrt()
    return let_in / (1 - depth.new_tensor(_WALLS) * (1 - let_in))
