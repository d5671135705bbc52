"""Fully connected layers with equalised learning rate, and the mapping network from z and camera to w.

Karras et al. 2020 (StyleGAN2, arXiv 1912.04958), conditioned on the camera as in EG3D (Chan et al. 2022, section 4.1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)
"""Slope and gain of the leaky ReLU that keep the second moment (StyleGAN2's code; used in every layer)."""
SECOND_MOMENT_EPS = 1e-8


def normalise_second_moment(x: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch channels"]:
    """Scale every row to a mean square of one."""
    return x * (x.square().mean(dim=1, keepdim=True) + SECOND_MOMENT_EPS).rsqrt()


class FullyConnectedLayer(nn.Module):
    """Linear layer whose weights are stored at unit scale and multiplied at run time (equalised learning rate).

    Args:
        in_features: width of the input.
        out_features: width of the output.
        activation: "linear" or "lrelu" (slope 0.2, gain sqrt 2).
        lr_multiplier: scale of weight and bias at run time; the stored weight is divided by it.
        bias_init: initial value of the bias at run time.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ("linear", "lrelu"):
            raise ValueError(f"activation: expected 'linear' or 'lrelu', got {activation!r}")
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Apply the layer over the last axis."""
        bias = self.bias if self.bias_gain == 1.0 else self.bias * self.bias_gain
        y = F.linear(x, self.weight * self.weight_gain, bias)
        return F.leaky_relu(y, LRELU_SLOPE) * LRELU_GAIN if self.activation == "lrelu" else y


class MappingNetwork(nn.Module):
    """Maps a latent code and a conditioning camera to `w`, the same for each of `num_ws` layers.

    Args:
        z_dim: width of z (0: none).
        c_dim: width of the conditioning label (0: none).
        w_dim: width of w.
        num_ws: number of copies of w that the synthesis network reads.
        num_layers: number of fully connected layers.
        lr_multiplier: learning-rate multiplier of the layers (0.01 in StyleGAN2).
    """

    w_avg: Tensor

    def __init__(
        self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, num_layers: int = 8, lr_multiplier: float = 0.01
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        for index in range(num_layers):
            layer = FullyConnectedLayer(widths[index], widths[index + 1], "lrelu", lr_multiplier)
            setattr(self, f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        c: Float[Tensor, "batch c_dim"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Return `w` for every layer.

        Args:
            z: latent codes, standard normal.
            c: conditioning labels.
            truncation_psi: 1 keeps w, 0 returns the mean `w_avg` (the truncation trick, StyleGAN2).
            truncation_cutoff: truncate the first so many layers only; None means all.

        Raises:
            ValueError: if z or c has another width than the network.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z: expected shape (batch, {self.z_dim}), got {tuple(z.shape)}")
        x = normalise_second_moment(z) if self.z_dim > 0 else z
        if self.c_dim > 0:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                raise ValueError(
                    f"c: expected shape (batch, {self.c_dim}), got {None if c is None else tuple(c.shape)}"
                )
            x = torch.cat([x, normalise_second_moment(self.embed(c))], dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        ws = x[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1.0:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)
