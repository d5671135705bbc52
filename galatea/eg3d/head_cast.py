"""Heads cast onto the planes: all that a generator's planes take from identity and expression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.carry import VIEWS, MeshTopology, ViewCast, cast_views
from galatea.eg3d.view_planes import Box
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.head import HeadCoefficients, HeadModel

_SKULL_HEIGHT = 0.8
"""The upper part of the head (half boxes from the crown) that static planes are aligned to: it ignores the jaw."""
_SKULL_ASPECT = 1.2
"""Height of the skull, from the crown down, in widths."""
_LOWER_TEETH_LIFT, _UPPER_TEETH_ADVANCE = 0.008, 0.007
"""World units by which modelled teeth (MakeHuman's, in the training pictures) are higher, or farther to the front, than
the coarse ones of the head model."""
SHOWN_TEETH = 0.012
"""World units (4 mm on a real head) that people show of their upper teeth when their lips part."""
_UPPER = 0.01
"""World units that the jaw moves a tooth by, at the most, for it to be an upper one."""


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
        teeth_drop: how much lower upper teeth are, world units. The head model's, and those of the training pictures,
            end where the lip does.
    """

    def __init__(self, mesh: HeadModel, box: Box, teeth_drop: float = 0.0) -> None:
        self.mesh, self.box = mesh, box
        self.used_vertices = torch.unique(mesh.faces)
        self.seat = _seat_of_teeth(mesh, teeth_drop)

    def surface(self, head: HeadCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Return the mesh that is cast, in the world: the head's, with teeth where people have them."""
        vertices = self.mesh.vertices(head.identity, head.expression).float()
        return vertices + self.seat.to(vertices.device)

    def vertices(self, head: HeadCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Return the same in the box."""
        return self.box.enter(self.surface(head))

    def cast(self, head: HeadCoefficients, plane_size: int) -> HeadCast:
        """Cast heads; differentiable in the coefficients (through depth and normals)."""
        mesh, vertices = self.mesh, self.vertices(head)
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


def _seat_of_teeth(mesh: HeadModel, drop: float) -> Float[Tensor, "vertices 3"]:
    seat = torch.zeros_like(mesh.mean)
    teeth = mesh.faces[mesh.part == mesh.part_names.index("teeth")].flatten()
    is_upper = mesh.action_basis[ACTION_INDEX["jawOpen"]].norm(dim=-1) < _UPPER
    seat[teeth[~is_upper[teeth]], 1] = _LOWER_TEETH_LIFT
    seat[teeth[is_upper[teeth]], 2] = _UPPER_TEETH_ADVANCE
    seat[teeth[is_upper[teeth]], 1] = -drop
    return seat
