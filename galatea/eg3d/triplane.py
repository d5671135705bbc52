"""Tri-planes: features of a 3D point from three planes, and the decoder to colour and density.

Chan et al. 2022 (EG3D, arXiv 2112.07945), section 4.2 and appendix. Which two coordinates a plane is read at belongs to
the checkpoint: the released FFHQ weights go with a third plane read at (z, x), later ones with (z, y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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


@dataclass(frozen=True)
class PlaneTable:
    """Tri-planes laid out for reading: a row per texel, so that a point costs twelve contiguous rows in one gather.

    Attributes:
        rows: texels of all planes in order, each plane with a margin of zeros: 1 before and 2 after on both axes.
        batch: number of tri-planes; 1 serves points of any batch.
        height: texels without the margin.
        width: texels without the margin.
    """

    rows: Float[Tensor, "texels channels"]
    batch: int
    height: int
    width: int

    @classmethod
    def from_planes(cls, planes: Float[Tensor, "batch 3 channels height width"]) -> PlaneTable:
        """Lay out tri-planes (one copy; differentiable)."""
        batch, _, channels, height, width = planes.shape
        rows = F.pad(planes.permute(0, 1, 3, 4, 2), (0, 0, 1, 2, 1, 2)).reshape(-1, channels)
        return cls(rows, batch, height, width)

    def sample(
        self,
        points: Float[Tensor, "batch n 3"],
        projection: Float[Tensor, "3 3 2"],
        box_warp: float = 1.0,
    ) -> Float[Tensor, "batch n channels"]:
        """Read the three planes at points, bilinearly, zero outside, and return their mean.

        Texel centres lie at (i + 0.5) / size of the box (EG3D; `grid_sample` without aligned corners).

        Args:
            points: world coordinates; the planes cover [-box_warp/2, box_warp/2]. Finite.
            projection: see `plane_projection`.
            box_warp: side of the box that the planes cover.

        Raises:
            ValueError: if the batches do not go together.
        """
        batch, num_points = points.shape[:2]
        if self.batch not in (1, batch):
            raise ValueError(f"planes: expected a batch of 1 or {batch} (the points' batch), got {self.batch}")
        size = torch.tensor([self.width, self.height], dtype=points.dtype, device=points.device)
        # Two columns (width, height) per plane; the margin makes reads outside zero without a branch.
        matrix = (projection * size / box_warp).permute(1, 0, 2).reshape(3, 6)
        texels = (points.reshape(-1, 3) @ matrix).reshape(-1, 3, 2) + (size - 1) / 2
        texels = torch.minimum(texels.clamp_min(-1.0), size)
        corner = texels.detach().floor()
        x, y = (texels - corner).unbind(-1)
        both = x * y
        weights = torch.stack([1 - x - y + both, x - both, y - both, both], dim=-1) / 3
        indices = self._indices(corner.to(torch.int32), num_points)
        features = F.embedding_bag(
            indices.reshape(-1, 12), self.rows, per_sample_weights=weights.reshape(-1, 12), mode="sum"
        )
        return features.reshape(batch, num_points, -1)

    def _indices(self, corner: Int[Tensor, "points 3 2"], num_points: int) -> Int[Tensor, "points 3 4"]:
        """Return the rows of the four texels around every point on every plane."""
        stride = self.width + 3
        plane = stride * (self.height + 3)
        device = corner.device
        first = (corner[..., 1] + 1) * stride + (corner[..., 0] + 1)
        first = first + torch.arange(3, dtype=torch.int32, device=device) * plane
        if self.batch > 1:
            first = first.reshape(self.batch, num_points, 3)
            first = first + torch.arange(self.batch, dtype=torch.int32, device=device)[:, None, None] * (3 * plane)
            first = first.reshape(-1, 3)
        return first[..., None] + torch.tensor([0, 1, stride, stride + 1], dtype=torch.int32, device=device)


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
