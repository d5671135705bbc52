"""Tri-planes: features of a 3D point from three planes, and the decoder to colour and density.

Chan et al. 2022 (EG3D, arXiv 2112.07945), section 4.2 and appendix. Which two coordinates a plane is read at belongs to
the checkpoint: the released FFHQ weights go with a third plane read at (z, x), later ones with (z, y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.mapping import FullyConnectedLayer

RELEASED_PLANE_AXES = (
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
    ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
"""Planes read at (x, y), (x, z), (z, x): EG3D's released weights. Rows are the plane's axes in world coordinates."""
CORRECTED_PLANE_AXES = (*RELEASED_PLANE_AXES[:2], ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
"""Planes read at (x, y), (x, z), (z, y)."""

RGB_WIDENING = 0.001
"""The sigmoid of colours is widened by this on both sides so that 0 and 1 can be reached (Mip-NeRF; EG3D's decoder)."""


@dataclass(frozen=True)
class DecodedPoints:
    """What a decoder says about points: `features` (first three: RGB in [0,1]), `density` before the softplus."""

    features: Float[Tensor, "batch n channels"]
    density: Float[Tensor, "batch n 1"]


class Decoder(Protocol):
    """Turns plane features into colour and density; points and directions are there for decoders that use more."""

    def __call__(
        self,
        features: Float[Tensor, "batch n plane_channels"],
        points: Float[Tensor, "batch n 3"],
        directions: Float[Tensor, "batch n 3"],
    ) -> DecodedPoints:
        """Decode features (the mean over the three planes) at world `points` seen along unit `directions`."""
        ...


def plane_projection(plane_axes: Float[Tensor, "3 3 3"]) -> Float[Tensor, "3 3 2"]:
    """Return, per plane, the matrix that turns a world point into (width, height) coordinates of the plane."""
    inverse: Tensor = torch.linalg.inv(plane_axes)
    return inverse[:, :, :2]


def sample_planes(
    planes: Float[Tensor, "planes_batch 3 channels height width"],
    points: Float[Tensor, "batch n 3"],
    plane_axes: Float[Tensor, "3 3 3"],
    box_warp: float = 1.0,
) -> Float[Tensor, "batch 3 n channels"]:
    """Read the three planes at points, bilinearly, zero outside.

    Args:
        planes: tri-planes; a batch of 1 serves every entry of `points` without being copied.
        points: world coordinates; the planes cover [-box_warp/2, box_warp/2].
        plane_axes: axes of each plane (rows), see `RELEASED_PLANE_AXES`.
        box_warp: side of the box that the planes cover.

    Raises:
        ValueError: if the batches do not go together.
    """
    planes_batch, _, channels = planes.shape[:3]
    batch, num_points = points.shape[:2]
    if planes_batch not in (1, batch):
        raise ValueError(f"planes: expected a batch of 1 or {batch} (the points' batch), got {planes_batch}")
    grid = torch.einsum("bnk,pkj->pbnj", points * (2.0 / box_warp), plane_projection(plane_axes))
    if planes_batch == 1:
        grid = grid.reshape(3, 1, batch * num_points, 2)
        sampled = F.grid_sample(planes[0], grid, align_corners=False)
        return sampled.reshape(3, channels, batch, num_points).permute(2, 0, 3, 1)
    grid = grid.transpose(0, 1).reshape(batch * 3, 1, num_points, 2)
    sampled = F.grid_sample(planes.flatten(0, 1), grid, align_corners=False)
    return sampled.reshape(batch, 3, channels, num_points).transpose(2, 3)


class OSGDecoder(nn.Module):
    """EG3D's decoder: one hidden layer of 64 with softplus, then density and colour features (section 4.2).

    Args:
        num_features: channels of a plane.
        num_outputs: colour features that come out, besides density.
        lr_multiplier: equalised learning-rate multiplier.
        hidden_dim: width of the hidden layer.
    """

    def __init__(
        self, num_features: int = 32, num_outputs: int = 32, lr_multiplier: float = 1.0, hidden_dim: int = 64
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnectedLayer(num_features, hidden_dim, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnectedLayer(hidden_dim, 1 + num_outputs, lr_multiplier=lr_multiplier),
        )

    def forward(
        self,
        features: Float[Tensor, "batch n num_features"],
        points: Float[Tensor, "batch n 3"] | None = None,
        directions: Float[Tensor, "batch n 3"] | None = None,
    ) -> DecodedPoints:
        """Decode features averaged over the planes; points and directions have no influence."""
        out = self.net(features)
        rgb = torch.sigmoid(out[..., 1:]) * (1 + 2 * RGB_WIDENING) - RGB_WIDENING
        return DecodedPoints(features=rgb, density=out[..., :1])
