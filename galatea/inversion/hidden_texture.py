"""What a photo does not show of a head's texture: taken from the other half of the face, or from around it.

Texels that are seen at a grazing angle, beside the nose's edge, or not at all, would keep what outlines smear onto
them (background, hair, collar, the nose), or nothing. They take on the mirrored texel where that one is seen well, and
the tone of the seen texels around them elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import project, unpack_label
from galatea.eg3d.atlas import AtlasTexels, mirrored_uv
from galatea.eg3d.posing import Pose
from galatea.eg3d.seen_surface import see_surface
from galatea.morphable.head import HeadCoefficients, HeadModel, vertex_normals

GRAZING, FRONTAL = 0.15, 0.5
"""Cosines between normal and direction to the camera: at the first a texel tells nothing, at the second all."""
MIRROR_TRUST = 0.5
"""Weight of a mirrored texel against a seen one."""
_COARSEST = 4
_OCCLUSION_SIZE = 128
"""Pixels a side of the view in which occlusion is found."""
_EDGE = 4
"""Pixels there around whatever stands in front that are not trusted: the fit is not exact."""
_BEHIND = 0.03
"""World units (10 mm on a real head) behind what is nearest at which a texel counts as hidden."""


@dataclass(frozen=True)
class TextureVisibility:
    """How well photos see the texels of the atlas.

    Attributes:
        seen: 0..1.
        mirror: where the mirrored texel lies, for `grid_sample`.
    """

    seen: Float[Tensor, "batch 1 size size"]
    mirror: Float[Tensor, "1 size size 2"]

    def complete(self, maps: Float[Tensor, "batch channels size size"]) -> Float[Tensor, "batch channels size size"]:
        """Return maps whose hidden texels are filled from what is seen; no gradient flows through the filling."""
        known = maps.detach() * self.seen
        mirror = self.mirror.expand(len(maps), -1, -1, -1)
        both = F.grid_sample(torch.cat([known, self.seen], 1), mirror, align_corners=False, padding_mode="border")
        hidden = MIRROR_TRUST * (1 - self.seen)
        filled = spread(known + hidden * both[:, :-1], self.seen + hidden * both[:, -1:])
        return self.seen * maps + (1 - self.seen) * filled


def texture_visibility(
    mesh: HeadModel, head: HeadCoefficients, camera: Float[Tensor, "batch 25"], size: int
) -> TextureVisibility:
    """Return how well cameras see the texels of an atlas of `size`, by the surface's angle and what is in front."""
    texels = AtlasTexels.of(mesh, size)
    vertices = mesh.vertices(head.identity, head.expression).float()
    both = torch.cat([vertices, vertex_normals(vertices, mesh.faces)], -1)
    at = texels.interpolate(both[:, mesh.faces])
    cam2world, _ = unpack_label(camera)
    towards = F.normalize(cam2world[:, None, :3, 3] - at[..., :3], dim=-1)
    facing = (F.normalize(at[..., 3:], dim=-1) * towards).sum(-1)
    share = ((facing - GRAZING) / (FRONTAL - GRAZING)).clamp(0, 1)
    share = share * share * (3 - 2 * share) * _unoccluded(mesh, vertices, at[..., :3], camera)
    seen = at.new_zeros(len(at), 1, size, size)
    seen[:, 0, texels.rows, texels.columns] = share
    uv = texels.interpolate(mirrored_uv(mesh).float())
    mirror = at.new_zeros(1, size, size, 2)
    mirror[0, texels.rows, texels.columns] = torch.stack([uv[:, 0] * 2 - 1, 1 - uv[:, 1] * 2], -1)
    return TextureVisibility(seen, mirror)


def _unoccluded(
    mesh: HeadModel,
    vertices: Float[Tensor, "batch vertices 3"],
    points: Float[Tensor, "batch texels 3"],
    camera: Float[Tensor, "batch 25"],
) -> Float[Tensor, "batch texels"]:
    """Return 1 for points that nothing of the mesh stands in front of, or close beside, and 0 for hidden ones."""
    centre = unpack_label(camera)[0][:, None, :3, 3]
    distance = (vertices - centre).norm(dim=-1, keepdim=True)
    view = see_surface(vertices, mesh.faces, distance, Pose.of_photo(camera), _OCCLUSION_SIZE)
    near = torch.where(view.is_hit > 0, view.values, torch.full_like(view.values, math.inf))
    near = -F.max_pool2d(-near, 2 * _EDGE + 1, 1, _EDGE)
    image, _ = project(points, camera)
    nearest = F.grid_sample(near, image[:, None] * 2 - 1, mode="nearest", align_corners=False, padding_mode="border")
    behind = (points - centre).norm(dim=-1) - nearest[:, 0, 0]
    share: Tensor = (2 - behind / _BEHIND).clamp(0, 1)
    return share


def spread(
    values: Float[Tensor, "batch channels size size"], weight: Float[Tensor, "batch 1 size size"]
) -> Float[Tensor, "batch channels size size"]:
    """Return values over weight, continued from coarse to fine where there is little weight (pull and push)."""
    if values.shape[-1] > _COARSEST:
        coarse = spread(F.avg_pool2d(values, 2), F.avg_pool2d(weight, 2))
        around = F.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False)
    else:
        around = (values.sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-4))[:, :, None, None].expand_as(values)
    trust = weight.clamp(0, 1)
    return trust * values / weight.clamp_min(1e-4) + (1 - trust) * around
