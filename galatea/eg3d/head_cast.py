"""Heads cast onto the planes: all that a generator's planes take from identity and expression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.carry import VIEWS, MeshTopology, ViewCast, cast_views
from galatea.eg3d.view_planes import Box
from galatea.morphable.head import HeadCoefficients, HeadModel

_SKULL_HEIGHT = 0.8
"""The upper part of the head (half boxes from the crown) that static planes are aligned to: it ignores the jaw."""
_SKULL_ASPECT = 1.2
"""Height of the skull, from the crown down, in widths."""


@dataclass(frozen=True)
class HeadCast:
    """Heads cast onto the planes: what `planes` needs of identity and expression; reuse it while they stay the same.

    Attributes:
        views: the casts, in the order of `VIEWS`.
        skull: centre and half extent of the skull (batch, 3, 2), half boxes, to which static planes are aligned.
    """

    views: tuple[ViewCast, ...]
    skull: Float[Tensor, "batch 3 2"]

    @property
    def batch_size(self) -> int:
        """Number of heads."""
        return self.skull.shape[0]

    def select(self, index: Int[Tensor, "n"] | slice) -> HeadCast:
        """Return some of the heads."""
        views = tuple(ViewCast(v.uv[index], v.normal[index], v.surface[index]) for v in self.views)
        return HeadCast(views, self.skull[index])


class HeadCaster:
    """Casts heads of a head model onto the planes.

    Args:
        mesh: the head model.
        box: the cube that the planes cover.
    """

    def __init__(self, mesh: HeadModel, box: Box) -> None:
        self.mesh, self.box = mesh, box
        self.used_vertices = torch.unique(mesh.faces)

    def cast(self, head: HeadCoefficients, plane_size: int) -> HeadCast:
        """Cast heads; differentiable in the coefficients (through depth and normals)."""
        mesh = self.mesh
        vertices = self.box.enter(mesh.vertices(head.identity, head.expression).float())
        topology = MeshTopology(mesh.faces.to(vertices.device), mesh.uv.to(vertices.device).float())
        sizes = [2 * plane_size] * len(VIEWS)
        return HeadCast(cast_views(vertices, topology, sizes), self.measure_skull(head.identity))

    def measure_skull(self, identity: Float[Tensor, "batch num_identity"]) -> Float[Tensor, "batch 3 2"]:
        """Return centre and half extent (half boxes) of the upper head along each axis, at rest."""
        neutral = self.mesh.vertices(identity, identity.new_zeros(identity.shape[0], 52)).float()
        neutral = self.box.enter(neutral[:, self.used_vertices.to(neutral.device)])
        is_skull = (neutral[..., 1] > neutral[..., 1].amax(1, keepdim=True) - _SKULL_HEIGHT)[..., None]
        low = torch.where(is_skull, neutral, torch.full_like(neutral, 9.0)).amin(1)
        high = torch.where(is_skull, neutral, torch.full_like(neutral, -9.0)).amax(1)
        bottom = high[:, 1] - _SKULL_ASPECT * (high[:, 0] - low[:, 0])
        low = torch.stack([low[:, 0], bottom, low[:, 2]], 1)
        return torch.stack([(low + high) / 2, (high - low) / 2], dim=-1)
