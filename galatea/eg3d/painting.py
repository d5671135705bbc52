"""What paints an anchored head: a neural texture in UV space and static planes, both steered by `w`.

A StyleGAN2 synthesis network gives what varies smoothly with `w`; a small basis of full-resolution maps, mixed by a
linear read-out of `w`, gives fine detail (skin, brows, lips, eyes, hair outlines) that a small network learns slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.lighting import harmonic_shading
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.synthesis import SynthesisNetwork

NUM_TYPICAL_CODES = 256
"""Codes of training people that are kept: enough to start searches from, and to see which fields go together."""


_LEAST_SPREAD = 0.05
"""Fields of the code that vary less than this are not enlarged beyond it."""


class SemanticMapping(nn.Module):
    """From a semantic code to `w`: a linear path, which keeps the code's directions straight, plus a small MLP.

    Codes are standardised with the statistics of the training codes (`measure`) first: a small variation counts
    as much as a style's.
    """

    w_avg: Tensor
    code_mean: Tensor
    code_std: Tensor
    typical_codes: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_ws: int) -> None:
        super().__init__()
        self.z_dim, self.num_ws = z_dim, num_ws
        self.direct = FullyConnectedLayer(z_dim, w_dim)
        self.fc0 = FullyConnectedLayer(z_dim, w_dim, "lrelu")
        self.fc1 = FullyConnectedLayer(w_dim, w_dim)
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.register_buffer("code_mean", torch.zeros(z_dim))
        self.register_buffer("code_std", torch.ones(z_dim))
        self.register_buffer("typical_codes", torch.zeros(NUM_TYPICAL_CODES, z_dim))

    @torch.no_grad()
    def measure(self, codes: Float[Tensor, "n z_dim"]) -> None:
        """Remember mean and spread of the codes of a population, some of them, and its mean w."""
        chosen = torch.linspace(0, len(codes) - 1, NUM_TYPICAL_CODES).round().long()
        self.typical_codes.copy_(codes[chosen])
        self.code_mean.copy_(codes.mean(0))
        self.code_std.copy_(codes.std(0))
        self.measure_average(codes)

    @torch.no_grad()
    def measure_average(self, codes: Float[Tensor, "n z_dim"]) -> None:
        """Remember the mean w of a population."""
        self.w_avg.copy_(self(codes)[:, 0].mean(0))

    def forward(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch num_ws w_dim"]:
        """Return the same `w` for every layer."""
        # Colours and styles would lose steps in half precision.
        with torch.autocast(z.device.type, enabled=False):
            standard = (z.float() - self.code_mean) / self.code_std.clamp_min(_LEAST_SPREAD)
            w: Tensor = self.direct(standard) + self.fc1(self.fc0(standard))
        return w[:, None].expand(-1, self.num_ws, -1)


class MixedMaps(nn.Module):
    """Maps painted by a small synthesis network, and finer ones mixed from a basis.

    Args:
        w_dim: width of w.
        num_channels: channels painted by the synthesis network.
        synthesis_resolution: its size.
        channel_base: its width at resolution r is `channel_base // r`, at most 64.
        basis: (maps, channels, size) of the basis, which refines the first channels.
        gain: of the painted channels that the basis refines, at the start.
    """

    def __init__(
        self,
        w_dim: int,
        num_channels: int,
        synthesis_resolution: int,
        channel_base: int,
        basis: tuple[int, int, int],
        gain: float,
    ) -> None:
        super().__init__()
        num_maps, basis_channels, self.size = basis
        self.synthesis = SynthesisNetwork(w_dim, synthesis_resolution, num_channels, channel_base, 64)
        self.mean = nn.Parameter(torch.zeros(basis_channels, self.size, self.size))
        self.basis = nn.Parameter(torch.randn(num_maps, basis_channels, self.size, self.size) * 0.02)
        self.coefficients = FullyConnectedLayer(w_dim, num_maps)
        self.synthesis_gain = nn.Parameter(torch.tensor(gain))

    @property
    def num_ws(self) -> int:
        """Layers that read a w: those of the synthesis network and the coefficients of the basis."""
        return self.synthesis.num_ws + 1

    def forward(
        self, ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> tuple[Float[Tensor, "batch basis_channels size size"], Float[Tensor, "batch rest coarse coarse"]]:
        """Return the fine maps, and the painted channels beyond them at the size of the synthesis network."""
        painted = self.synthesis(ws[:, :-1], "none").float()
        num_fine = self.basis.shape[1]
        smooth = painted[:, :num_fine] * self.synthesis_gain
        smooth = F.interpolate(smooth, (self.size, self.size), mode="bilinear", align_corners=False)
        # Colours would lose steps in half precision.
        with torch.autocast(ws.device.type, enabled=False):
            mix = self.coefficients(ws[:, -1].float()) @ self.basis.flatten(1)
        return smooth + self.mean + mix.view(-1, *self.basis.shape[1:]), painted[:, num_fine:]


class HairTint(nn.Module):
    """Colour of the hair, read from `w`, in the light that falls on a ball in the skull's place."""

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        self.read = FullyConnectedLayer(w_dim, 3, bias_init=0.3)
        nn.init.zeros_(self.read.weight)

    def forward(
        self,
        w: Float[Tensor, "batch w_dim"],
        light: Float[Tensor, "batch 27 1 1"],
        skull: Float[Tensor, "batch 3 2"],
        change: Float[Tensor, "batch size size 3"],
    ) -> Float[Tensor, "batch size size 3"]:
        """Return the lit colour for every texel of the front plane.

        Args:
            w: the last of `w_plus`.
            light: on the same head.
            skull: centre and half extent along each axis (half boxes).
            change: of the colour in white light, for every texel.
        """
        size = change.shape[1]
        places = (torch.arange(size, device=w.device, dtype=skull.dtype) + 0.5) * (2 / size) - 1
        x, y = ((places - skull[:, axis, :1]) / skull[:, axis, 1:] for axis in (0, 1))
        x, y = x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)
        z = (1 - x.square() - y.square()).clamp_min(0).sqrt()
        normal = F.normalize(torch.stack([x, y, z], -1), dim=-1)
        with torch.autocast(w.device.type, enabled=False):
            tint: Tensor = (self.read(w.float())[:, None, None] + change.float()) * harmonic_shading(light, normal)
        return tint

    @torch.no_grad()
    def shift(
        self, w: Float[Tensor, "batch w_dim"], kept: Sequence[FullyConnectedLayer], change: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch w_dim"]:
        """Return the smallest change of `w` that adds to the colour and leaves what other layers read as it is."""
        rows = torch.cat([layer.weight * layer.weight_gain for layer in (self.read, *kept)]).float()
        wanted = F.pad(change.float(), (0, len(rows) - 3))
        moved: Tensor = wanted @ torch.linalg.pinv(rows).T
        return moved.to(w.dtype)


def resample_axes(
    maps: Float[Tensor, "batch channels rows columns"],
    rows: Float[Tensor, "batch out_rows"],
    columns: Float[Tensor, "batch out_columns"],
) -> Float[Tensor, "batch channels out_rows out_columns"]:
    """Read maps on a grid whose axes are moved independently, bilinearly, held at the border.

    Two matrix products, so that it is fast in low precision and its gradient is deterministic on every device.

    Args:
        maps: what is read.
        rows: where each output row lies in the input, in [-1, 1] from the first row's edge to the last one's.
        columns: the same for columns.
    """
    by_rows = _interpolation(rows, maps.shape[2]).to(maps.dtype)
    by_columns = _interpolation(columns, maps.shape[3]).to(maps.dtype)
    return by_rows[:, None] @ maps @ by_columns[:, None].transpose(2, 3)


def _interpolation(places: Float[Tensor, "batch n"], size: int) -> Float[Tensor, "batch n size"]:
    texel = ((places * 0.5 + 0.5) * size - 0.5).clamp(0, size - 1)
    return (1 - (texel[..., None] - torch.arange(size, device=places.device, dtype=places.dtype)).abs()).clamp_min(0)
