"""Texels of the head model's texture atlas: which place of the head each shows, and which place mirrors it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.carry import barycentric, winning_triangles
from galatea.morphable.head import HeadModel


@dataclass(frozen=True)
class AtlasTexels:
    """The texels of the atlas that lie on the head: where they are and what they show.

    Attributes:
        rows, columns: texel indices.
        triangle: triangle of the head model at each.
        weights: barycentric weights of its corners.
    """

    rows: Int[Tensor, "n"]
    columns: Int[Tensor, "n"]
    triangle: Int[Tensor, "n"]
    weights: Float[Tensor, "n 3"]

    @classmethod
    def of(cls, model: HeadModel, size: int) -> AtlasTexels:
        """Find the triangle at every texel centre of an atlas of `size`."""
        uv = model.uv.float()
        points = torch.stack([uv[..., 0] * size - 0.5, (1 - uv[..., 1]) * size - 0.5], -1).view(1, -1, 2)
        corners = torch.arange(points.shape[1], device=uv.device).view(-1, 3)
        # The atlas may hold mirrored islands: offer every triangle in both turns.
        both = torch.cat([corners, corners[:, [0, 2, 1]]])
        found = winning_triangles(points, torch.zeros_like(points[..., 0]), both, (size, size))[0]
        rows, columns = (found >= 0).nonzero(as_tuple=True)
        triangle = found[rows, columns] % corners.shape[0]
        weights = barycentric(points[0].view(-1, 3, 2)[triangle], columns.float(), rows.float())
        return cls(rows, columns, triangle, torch.stack(weights, -1))

    def interpolate(self, corner_values: Float[Tensor, "*batch faces 3 k"]) -> Float[Tensor, "*batch n k"]:
        """Interpolate values given at triangle corners."""
        return (self.weights[..., None] * corner_values[..., self.triangle, :, :]).sum(-2)


def mirrored_uv(model: HeadModel) -> Float[Tensor, "f 3 2"]:
    """Return, for every triangle corner, the texture coordinates of the mirrored corner; its own where none is."""
    mirrored = model.mirror_vertices[model.faces]
    faces, mirrored_faces = model.faces.sort(1), mirrored.sort(1)
    number = len(model.mirror_vertices)

    def key(corners: Int[Tensor, "f 3"]) -> Int[Tensor, "f"]:
        return (corners[:, 0].long() * number + corners[:, 1]) * number + corners[:, 2]

    keys, order = key(faces.values).sort()
    place = torch.searchsorted(keys, key(mirrored_faces.values)).clamp_max(len(keys) - 1)
    is_found = keys[place] == key(mirrored_faces.values)
    # Both triples sorted: the n-th smallest corner of one is the n-th smallest of the other.
    by_vertex = model.uv.gather(1, faces.indices[..., None].expand(-1, -1, 2))[order[place]]
    back = mirrored_faces.indices.argsort(1)
    uv = by_vertex.gather(1, back[..., None].expand(-1, -1, 2))
    return torch.where(is_found[:, None, None], uv, model.uv)
