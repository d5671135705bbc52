"""The light on an anchored head: lamps that `w` names as diffuse light on surfaces, and what shadows take of it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.mapping import FullyConnectedLayer

NUM_HARMONICS = 9
"""Spherical harmonics up to degree 2 describe diffuse light to about 1% (Ramamoorthi and Hanrahan 2001)."""
NUM_LAMP_NUMBERS = 12
"""Direction (3) and colour (3) of the key light, colours of sky (3) and ground (3), in linear RGB."""
SURROUNDING_LIGHT = 0.8
"""Share of sky and ground that reaches an average place of a head."""
_WRAP = 0.15
"""Cosine by which the key light reaches round the terminator: skin scatters."""
_NUM_NORMALS = 256


class HarmonicLight(nn.Module):
    """Diffuse light from all directions, read from `w`; starts as plain white light.

    `w` names the lamps; how they light a bare surface follows by formula, as products of what is read. A linear map of
    that, and what is read from `w` besides, say what reaches an average place of a head; and `transfer` how much of
    each harmonic every place of the atlas gets beyond that or loses in shadows of the head itself (precomputed
    radiance transfer, Sloan et al. 2002).

    Args:
        w_dim: width of w.
        atlas_size: texels per side of `transfer`.
    """

    normals: Tensor
    projection: Tensor

    def __init__(self, w_dim: int, atlas_size: int) -> None:
        super().__init__()
        self.lamps = FullyConnectedLayer(w_dim, NUM_LAMP_NUMBERS)
        self.average = FullyConnectedLayer(3 * NUM_HARMONICS, 3 * NUM_HARMONICS)
        self.read = FullyConnectedLayer(w_dim, 3 * NUM_HARMONICS)
        self.transfer = nn.Parameter(torch.zeros(NUM_HARMONICS, atlas_size, atlas_size))
        for layer in (self.average, self.read):
            nn.init.zeros_(layer.weight)
        normals = _frontal_normals()
        self.register_buffer("normals", normals, persistent=False)
        self.register_buffer("projection", torch.linalg.pinv(harmonics(normals)), persistent=False)

    def bare(self, lamps: Float[Tensor, "batch 12"]) -> Float[Tensor, "batch 27"]:
        """Return the harmonics of the light that lamps throw on bare surfaces, beyond white light."""
        beyond = falling_light(lamps, self.normals.expand(len(lamps), -1, -1)) - 1
        bare: Tensor = (self.projection @ beyond).flatten(1)
        return bare

    def forward(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch 27 1 1"]:
        """Return how much of each harmonic, in red, green and blue, differs from white light."""
        # Light would lose steps in half precision.
        with torch.autocast(w.device.type, enabled=False):
            w = w.float()
            light: Tensor = self.average(self.bare(self.lamps(w))) + self.read(w)
        return light[..., None, None]

    def shadow(self, light: Float[Tensor, "batch 27 1 1"]) -> Float[Tensor, "batch 3 size size"]:
        """Return, for every place of the atlas, what is to be added to the light on it (`harmonic_shading`)."""
        with torch.autocast(light.device.type, enabled=False):
            coefficients = light.float().view(-1, NUM_HARMONICS, 3).transpose(1, 2)
            shadow: Tensor = (coefficients @ self.transfer.flatten(1)).view(-1, 3, *self.transfer.shape[1:])
        return shadow


def falling_light(lamps: Float[Tensor, "batch 12"], normals: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
    """Return how much brighter (in displayed colours) surfaces of these normals are than their reflectance.

    Without shadows: a wrapped key light, and sky and ground dimmed by the surroundings.
    """
    direction, key, sky, ground = torch.split(lamps[:, None], 3, dim=-1)
    cosine = (normals * direction).sum(-1, keepdim=True)
    lit = ((cosine + _WRAP) / (1 + _WRAP)).clamp_min(0) * key
    above = 0.5 + normals[..., 1:2] / 3
    around = SURROUNDING_LIGHT * (sky * above + ground * (1 - above))
    falling: Tensor = (lit + around).clamp_min(1e-4) ** (1 / 2.2)
    return falling


def harmonic_shading(
    light: Float[Tensor, "batch 27 1 1"], normal: Float[Tensor, "batch rows columns 3"]
) -> Float[Tensor, "batch rows columns 3"]:
    """Return the light that falls on surfaces of these normals; 1 is full white light."""
    with torch.autocast(light.device.type, enabled=False):
        coefficients = light.float().view(-1, NUM_HARMONICS, 3)
        falling: Tensor = 1.0 + (harmonics(normal.float()).flatten(1, 2) @ coefficients).view(normal.shape)
    return falling


def harmonics(normal: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """Return real spherical harmonics of degree 0 to 2, without their constant factors."""
    x, y, z = normal.unbind(-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], dim=-1)


def _frontal_normals() -> Float[Tensor, "n 3"]:
    """Return evenly spread normals, pulled towards the front, where most pictures look."""
    step = torch.arange(_NUM_NORMALS, dtype=torch.float32, device="cpu")
    height = 1 - (2 * step + 1) / _NUM_NORMALS
    turn = step * (math.pi * (3 - math.sqrt(5)))
    ring = (1 - height.square()).sqrt()
    sphere = torch.stack([ring * turn.cos(), height, ring * turn.sin()], -1)
    return torch.nn.functional.normalize(sphere + torch.tensor([0.0, 0.0, 0.5], device="cpu"), dim=-1)
