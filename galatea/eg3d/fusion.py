"""Fusing what is painted with what is cast: from texture, static planes and casts to the planes of a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.carry import VIEWS, ViewCast
from galatea.eg3d.lookup import read_bilinear
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.painting import resample_axes
from galatea.eg3d.view_planes import Box

_GEOMETRY_CHANNELS = 5
"""Mask, depth and normal of a cast."""


class Boxes(NamedTuple):
    """The cubes that a head's planes and its static planes cover, and the mean head's skull in the first."""

    head: Box
    static: Box
    skull: Float[Tensor, "3 2"]


class Painted(NamedTuple):
    """What `w` paints: reflectance and the texture's other channels in UV space, the static planes of all views, the
    light on all of it (`HarmonicLight`), and how far the hair's colour in white light differs from place to place, as
    seen from the front.
    """

    reflectance: Float[Tensor, "batch 3 size size"]
    texture: Float[Tensor, "batch channels coarse coarse"]
    static: Float[Tensor, "batch views_channels static_size static_size"]
    light: Float[Tensor, "batch 27 1 1"]
    tint: Float[Tensor, "batch 3 static_size static_size"]

    def add(self, residuals: Mapping[str, Tensor]) -> Painted:
        """Add residual maps: of the reflectance (fine, coarse), the static planes, the light and the hair's colour."""
        reflectance, texture, static, light, tint = self
        if "texture" in residuals:
            reflectance = reflectance + residuals["texture"]
        if "texture_coarse" in residuals:
            size = reflectance.shape[-2:]
            coarse = F.interpolate(residuals["texture_coarse"], size, mode="bilinear", align_corners=False)
            reflectance = reflectance + coarse
        if "static" in residuals:
            static = static + residuals["static"]
        if "light" in residuals:
            light = light + residuals["light"]
        if "tint" in residuals:
            tint = tint + residuals["tint"]
        return Painted(reflectance, texture, static, light, tint)


class PlaneFusion(nn.Module):
    """Turns texture, geometry and static features of one view into plane features; `w` shifts the hidden layer.

    The shift carries what holds everywhere (the colour of the hair, say), so that maps need only say where.
    """

    def __init__(self, painted_channels: int, out_channels: int, w_dim: int, hidden: int = 24) -> None:
        super().__init__()
        in_channels = painted_channels + _GEOMETRY_CHANNELS
        self.conv0 = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.shift = FullyConnectedLayer(w_dim, hidden)
        self.conv1 = nn.Conv2d(hidden, out_channels, 1)
        nn.init.zeros_(self.shift.weight)

    def forward(
        self,
        surface: Float[Tensor, "batch size2 size2 6"],
        seen: ViewCast,
        painted: tuple[Tensor, Tensor],
        w: Float[Tensor, "batch w_dim"],
    ) -> Float[Tensor, "batch size size channels"]:
        """Return the features of a view at half the size of its cast.

        Args:
            surface: colour times mask, mask, depth and facing of the cast.
            seen: the cast.
            painted: texture without reflectance in UV space, and the static plane, aligned to the skull.
            w: the last of `w_plus`.
        """
        texture, aligned = painted
        coarse = ViewCast(*(maps[:, ::2, ::2] for maps in (seen.uv, seen.normal, seen.shade, seen.surface)))
        by_texel = [sample_texture(texture, coarse), surface[:, ::2, ::2, :_GEOMETRY_CHANNELS], coarse.normal]
        inputs = torch.cat([maps.permute(0, 3, 1, 2) for maps in by_texel] + [aligned.float()], dim=1)
        hidden = self.conv0(inputs.contiguous(memory_format=torch.channels_last)) + self.shift(w)[:, :, None, None]
        features: Tensor = self.conv1(F.leaky_relu(hidden, 0.2))
        return features.float().permute(0, 2, 3, 1)


def align_static(
    static: Float[Tensor, "batch channels static_size static_size"],
    boxes: Boxes,
    skull: Float[Tensor, "batch 3 2"],
    index: int,
    size: int,
) -> Float[Tensor, "batch channels size size"]:
    """Move a static plane of view `index` from the mean head's skull to each head's, onto a plane of `size`."""
    view = VIEWS[index]
    places = (torch.arange(size, device=skull.device, dtype=skull.dtype) + 0.5) * (2 / size) - 1

    def along(axis: int) -> Float[Tensor, "batch size"]:
        on_mean = boxes.skull[axis, 0] + (places - skull[:, axis, :1]) * (boxes.skull[axis, 1] / skull[:, axis, 1:])
        scale, shift = boxes.head.relate(boxes.static, axis)
        return on_mean * scale + shift

    return resample_axes(static, along(view.row_axis), along(view.column_axis))


def sample_texture(
    texture: Float[Tensor, "batch channels height width"], seen: ViewCast
) -> Float[Tensor, "batch rows columns channels"]:
    """Read a texture (first row at v = 1) where a cast sees the mesh; zero elsewhere."""
    batch, channels, height, width = texture.shape
    rows, columns = seen.uv.shape[1:3]
    where = seen.mask.flatten().nonzero()[:, 0]
    u, v = seen.uv.flatten(0, 2)[where].unbind(-1)
    table = texture.float().permute(0, 2, 3, 1).reshape(-1, channels)
    start = where // (rows * columns) * (height * width)
    read = read_bilinear(table, (u * width - 0.5, (1 - v) * height - 0.5), (height, width), start)
    maps = read.new_zeros(batch * rows * columns, channels).index_copy(0, where, read)
    return maps.view(batch, rows, columns, channels)
