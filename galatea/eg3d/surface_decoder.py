"""From planes to colour and density at points: a small network around the head's signed distance.

Density starts from the distance (VolSDF, Yariv et al. 2021, equation 2, with a logistic in place of the Laplace CDF);
colour starts from the surface's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.surface import dark_mouth, side_fade, surface_colour, surface_distances
from galatea.eg3d.view_planes import SurfaceTables, read_views

NUM_PAINTED = 7
"""The last features of the planes say the colour of whatever is not the head's surface, hair above all: how much
brighter than its mean colour it is (share), what else is added to it (3), and that mean colour (3)."""
_NUM_DISTANCE_INPUTS = 9
"""Coarse and fine signed distances and nearness, for the three views read at a point."""


class SurfaceDecoder(nn.Module):
    """From plane features and signed distances to colour, density and features for the super-resolution.

    Args:
        num_features: features of a view plane, without the surface channels.
        num_outputs: features that come out besides colour.
        hidden_dim: width of the hidden layers.
    """

    def __init__(self, num_features: int, num_outputs: int, hidden_dim: int = 48) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.fc0 = FullyConnectedLayer(num_features + _NUM_DISTANCE_INPUTS + 4, hidden_dim, "lrelu")
        self.fc1 = FullyConnectedLayer(hidden_dim, hidden_dim, "lrelu")
        self.out = FullyConnectedLayer(hidden_dim, 3 + 3 + num_outputs)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.weight[3:6] = 0
        self.log_sharpness = nn.Parameter(torch.tensor(5.0))

    def forward(
        self, tables: SurfaceTables, q: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n channels"], Float[Tensor, "batch n"]]:
        """Return colour (in [0,1], not clamped) followed by features, and density per half box, at points."""
        views = read_views(tables.surface, q, 2 * tables.size, tables.num_heads)
        front, side, top = read_views(tables.features, q, tables.size, tables.num_heads)
        fade = side_fade(q)
        distances = surface_distances(views, q, tables)
        base, near, confidence = surface_colour(views, q, distances)
        both = front + side * fade + top
        features, brighter, added, mean = torch.split(both, [both.shape[-1] - NUM_PAINTED, 1, 3, 3], -1)
        painted = added + mean * (1 + brighter)
        inputs = [features, torch.tanh(5 * distances), torch.tanh(35 * distances), near]
        x = torch.cat([*inputs, base, confidence], dim=-1)
        raw = self.out(self.fc1(self.fc0(x))).float()
        on_surface = torch.sigmoid(raw[..., :1] + 3.0) * confidence
        colour = dark_mouth(base * on_surface + painted * (1 - on_surface) + raw[..., 3:6], views, q)
        sharpness = self.log_sharpness.exp()
        offset = 0.09 * torch.tanh(raw[..., 1])
        density = sharpness * torch.sigmoid(-(distances.amax(-1) + offset) * sharpness) + 30 * F.softplus(
            raw[..., 2] - 6.0
        )
        return torch.cat([colour, raw[..., 6:]], dim=-1), density
