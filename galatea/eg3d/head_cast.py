"""Heads cast onto the planes: all that a generator's planes take from identity and expression."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.carry import VIEWS, MeshTopology, ViewCast, cast_views
from galatea.eg3d.view_planes import Box
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.head import HeadCoefficients, HeadModel
from galatea.morphable.mouth_light import mouth_shade

_SKULL_HEIGHT = 0.336
"""The upper part of the head (world units from the crown) that static planes are aligned to: it ignores the jaw."""
_SKULL_ASPECT = 1.2
"""Height of the skull, from the crown down, in widths."""
_UPPER_TEETH, _LOWER_TEETH, _TONGUE = (-0.013, 0.007), (-0.008, 0.0), (-0.032, 0.0)
"""World units (y, z) by which people's teeth and tongue, those of the training pictures on average, are higher and
farther to the front than the head model's coarse ones; people show some 5 mm of their upper teeth when lips part."""
_MOLARS_FROM, _MOLARS_TO, _SUNK_MOLARS = 0.18, 0.12, 0.04
"""Molars, from the first z on, sink into their gums, by the third number from the second z on (upper ones by half of
it), as in the training pictures."""
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
        views = tuple(ViewCast(*(getattr(v, f.name)[index] for f in fields(v))) for v in self.views)
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
        self.teeth, self.tongue = _seat_of_teeth(mesh), _seat_of_tongue(mesh)
        crown = mesh.mean[self.used_vertices, 1].max()
        self.upper_vertices = self.used_vertices[mesh.mean[self.used_vertices, 1] > crown - _SKULL_HEIGHT]

    def surface(self, head: HeadCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Return the mesh that is cast, in the world: the head's, with teeth and tongue where people have them."""
        vertices = self.mesh.vertices(head.identity, head.expression).float()
        at_rest = 1 - head.expression[:, ACTION_INDEX["tongueOut"], None, None].to(vertices)
        return vertices + self.teeth.to(vertices) + at_rest * self.tongue.to(vertices)

    def vertices(self, head: HeadCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Return the same in the box."""
        return self.box.enter(self.surface(head))

    def cast(self, head: HeadCoefficients, plane_size: int) -> HeadCast:
        """Cast heads; differentiable in the coefficients (through depth and normals)."""
        mesh, surface = self.mesh, self.surface(head)
        topology = MeshTopology(mesh.faces.to(surface.device), mesh.uv.to(surface.device).float())
        sizes = [2 * plane_size] * len(VIEWS)
        views = cast_views(self.box.enter(surface), mouth_shade(mesh, surface), topology, sizes)
        return HeadCast(views, self.measure_skull(head.identity))

    def measure_skull(self, identity: Float[Tensor, "batch num_identity"]) -> Float[Tensor, "batch 3 2"]:
        """Return centre and half extent (half boxes) of the skull along each axis, at rest.

        The mean head's extents, carried over by the least-squares map of its upper vertices along each axis: what
        hangs on the head follows all of it. (Extents of each head would follow its farthest vertices only; hair would
        then sit some 5% of a picture too high or too low.)
        """
        neutral = self.mesh.vertices(identity, identity.new_zeros(identity.shape[0], 52)).float()
        found = self.box.enter(neutral[:, self.upper_vertices.to(neutral.device)])
        mean = self.box.enter(self.mesh.mean[self.upper_vertices.to(self.mesh.mean.device)].to(found))
        middle = mean.mean(0)
        centred = mean - middle
        scale = (centred * found).sum(1) / centred.square().sum(0)
        low, high = mean.amin(0), mean.amax(0)
        low = torch.stack([low[0], high[1] - _SKULL_ASPECT * (high[0] - low[0]), low[2]])
        centre = found.mean(1) + scale * ((low + high) / 2 - middle)
        return torch.stack([centre, scale * (high - low) / 2], dim=-1)


def _seat_of_teeth(mesh: HeadModel) -> Float[Tensor, "vertices 3"]:
    seat = torch.zeros_like(mesh.mean)
    teeth = _vertices_of(mesh, "teeth")
    is_upper = mesh.action_basis[ACTION_INDEX["jawOpen"]][teeth].norm(dim=-1) < _UPPER
    back = ((_MOLARS_FROM - mesh.mean[teeth, 2]) / (_MOLARS_FROM - _MOLARS_TO)).clamp(0, 1)
    seat[teeth, 1:] = torch.where(is_upper[:, None], seat.new_tensor(_UPPER_TEETH), seat.new_tensor(_LOWER_TEETH))
    seat[teeth, 1] += torch.where(is_upper, _SUNK_MOLARS / 2, -_SUNK_MOLARS) * back
    return seat


def _seat_of_tongue(mesh: HeadModel) -> Float[Tensor, "vertices 3"]:
    seat = torch.zeros_like(mesh.mean)
    seat[_vertices_of(mesh, "tongue"), 1:] = seat.new_tensor(_TONGUE)
    return seat


def _vertices_of(mesh: HeadModel, part: str) -> Int[Tensor, "n"]:
    vertices: Tensor = torch.unique(mesh.faces[mesh.part == mesh.part_names.index(part)])
    return vertices
