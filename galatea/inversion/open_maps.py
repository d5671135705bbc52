"""What a photo may change in a portrait's residual maps.

Where it shows next to nothing (inside the mouth), or where what it shows belongs elsewhere (a collar beside the chin,
painted into the air in front of it), maps stay as the latent paints them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.carry import VIEWS
from galatea.eg3d.painting import resample_axes
from galatea.morphable.head import HeadCoefficients, HeadModel

_HIDDEN_PARTS = ("mouth", "teeth", "tongue", "socket")
_FACE_DEPTH = 0.12
"""World units (40 mm on a real head) behind the eyes where the face ends, in front of the ears."""
_FACE_MARGIN = 2
"""Texels around the face that are kept free, too."""


def open_texture(mesh: HeadModel | None, size: int) -> Float[Tensor, "1 size size"]:
    """Return 0 in the texture islands of what a photo hardly shows (mouth, teeth, tongue, sockets), 1 elsewhere.

    A few pixels between the lips would decide what a wide open mouth looks like, and blurred renderings paint a
    smile's teeth onto the tongue.
    """
    weight = torch.ones(1, size, size)
    if mesh is None:
        return weight
    for name in _HIDDEN_PARTS:
        corners = mesh.uv[mesh.part == mesh.part_names.index(name)].flatten(0, 1)
        if len(corners):
            (left, bottom), (right, top) = corners.amin(0).tolist(), corners.amax(0).tolist()
            # v runs upwards, rows downwards.
            rows = slice(math.floor((1 - top) * size), math.ceil((1 - bottom) * size))
            weight[:, rows, math.floor(left * size) : math.ceil(right * size)] = 0
    return weight


def open_planes(generator: AnchoredGenerator, size: int) -> Float[Tensor, "views 1 size size"]:
    """Return 0 in static planes where they see the face below the eyes, 1 elsewhere.

    Static planes hold hair and clothes. Before the lower face there is nothing of either that the texture could not
    show, but a photo from the side explains a collar beside the chin as well by a ball in front of it. The plane seen
    from above stays open: what it holds counts for the hair over the face, too.
    """
    mesh, box, static_box = generator.mesh, generator.config.box, generator.config.static_box
    neutral = HeadCoefficients(mesh.mean.new_zeros(1, mesh.num_identity), mesh.mean.new_zeros(1, 52))
    vertices = mesh.vertices(neutral.identity, neutral.expression).float()
    eyes = box.enter(mesh.eye_centres(vertices)[0].mean(0))
    places = (torch.arange(2 * size, device=eyes.device) + 0.5) / size - 1
    weights = []

    def in_box(axis: int) -> Float[Tensor, "1 places"]:
        scale, shift = static_box.relate(box, axis)
        return (places * scale + shift)[None]

    for view, seen in zip(VIEWS, generator.caster.cast(neutral, size).views, strict=True):
        at = {
            view.column_axis: places[None, :],
            view.row_axis: places[:, None],
            view.depth_axis: seen.surface[0, :, :, 1] * view.depth_sign,
        }
        is_face = (at[1] < eyes[1]) & (at[2] > eyes[2] - _FACE_DEPTH / box.half) & (seen.mask[0] > 0)
        face = (is_face & (view.name != "top")).float()[None, None]
        face = resample_axes(face, in_box(view.row_axis), in_box(view.column_axis))[0]
        wide = F.max_pool2d(face.ceil(), 4 * _FACE_MARGIN + 1, 1, 2 * _FACE_MARGIN)
        weights.append(1 - F.avg_pool2d(wide, 2))
    return torch.stack(weights)
