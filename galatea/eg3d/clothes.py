"""Clothes of an anchored head: one colour below a neckline, read from `w`.

A neckline is the sharpest edge of a portrait's lower part, and lies elsewhere on everybody; no mix of basis maps draws
it. So it is drawn: a tilted, slightly wavy plane through the mean head's neck covers the skin below it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.atlas import AtlasTexels
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.morphable.head import HeadModel

_LOWEST, _HEIGHT_UNIT = -0.32, 0.1
"""Height of a neckline that is read as 0 (world units), and of a step of 1."""
_PIVOT = 0.05
"""z around which a neckline is tilted: the middle of the neck."""
_WAVE, _WAVES = 0.004, 23.0
"""Height of the neckline's waves, and radians a world unit across."""
_SHARPNESS = 160.0
"""Cover gained a world unit below the edge."""
_BARE = -10.0
"""Height that is read before anything is learned: no clothes."""


def neckline_cover(
    places: Float[Tensor, "*n 3"], height: Float[Tensor, "*n"], tilt: Float[Tensor, "*n"], sharpness: float = _SHARPNESS
) -> Float[Tensor, "*n"]:
    """Return how far (0..1) places of the head at rest are covered by clothes.

    Args:
        places: world units.
        height: of the neckline, in steps of 0.1 world units above -0.32.
        tilt: rise towards the back.
        sharpness: cover gained a world unit below the edge.
    """
    x, y, z = places.unbind(-1)
    edge = _LOWEST + _HEIGHT_UNIT * height - tilt * (z - _PIVOT) + _WAVE * torch.sin(x * _WAVES)
    return ((edge - y) * sharpness + 0.5).clamp(0, 1)


class Clothes(nn.Module):
    """Puts clothes on the reflectance of heads.

    Args:
        w_dim: width of w.
        mesh: the head model, on CPU.
        size: texels per side of the atlas.
    """

    places: Tensor
    is_skin: Tensor

    def __init__(self, w_dim: int, mesh: HeadModel, size: int) -> None:
        super().__init__()
        self.read = FullyConnectedLayer(w_dim, 5)
        with torch.no_grad():
            self.read.weight.zero_()
            self.read.bias[3] = _BARE
        texels = AtlasTexels.of(mesh, size)
        places = mesh.mean.new_zeros(size, size, 3).float()
        places[texels.rows, texels.columns] = texels.interpolate(mesh.mean[mesh.faces]).float()
        is_skin = places.new_zeros(size, size)
        part = mesh.part[texels.triangle]
        is_skin[texels.rows, texels.columns] = (part == mesh.part_names.index("skin")).float()
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("is_skin", is_skin, persistent=False)

    def forward(
        self, w: Float[Tensor, "batch w_dim"], reflectance: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """Return the reflectance of dressed heads."""
        # Colours would lose steps in half precision.
        with torch.autocast(w.device.type, enabled=False):
            colour, height, tilt = self.read(w.float()).split([3, 1, 1], dim=1)
            cover = neckline_cover(self.places, height[..., None], tilt[..., None]) * self.is_skin
            dressed: Tensor = reflectance + cover[:, None] * (colour[..., None, None] - reflectance)
        return dressed
