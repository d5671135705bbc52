"""What the first look is trained for: likelihood of landmarks with their own uncertainty, pose, and place.

Landmarks: Gaussian negative log-likelihood with a standard deviation that the network gives for each point (Wood et
al. 2022, eq. 1). The rest: Gaussian likelihood with one learned standard deviation for each number, which balances the
parts (Kendall et al. 2018, "Multi-Task Learning Using Uncertainty").
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.faces.reader_network import FirstReading

SHARES = {"rotation": 0.5, "place": 0.1}
"""Weights beside the landmarks' 1."""
MIN_LOG_SCALE = -4.5
HUBER = 4.0
"""Squared errors grow linearly beyond as many standard deviations: occluded points stay calm."""


def points_likelihood(
    points: Float[Tensor, "batch n 2"], log_sigma: Float[Tensor, "batch n"], true: Float[Tensor, "batch n 2"]
) -> Float[Tensor, ""]:
    """Return the landmarks' negative log-likelihood, up to a constant."""
    distance = (points - true).norm(dim=-1) * torch.exp(-log_sigma)
    calm = torch.where(distance < HUBER, 0.5 * distance.square(), HUBER * (distance - 0.5 * HUBER))
    return (2 * log_sigma + calm).mean()


def balanced(squared: Float[Tensor, "batch n"], log_scale: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Return squared errors divided by their learned variances, and the price of large variances."""
    scale = log_scale.clamp_min(MIN_LOG_SCALE)
    return (0.5 * squared.mean(0) * torch.exp(-2 * scale) + scale).mean()


def losses(reading: FirstReading, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the points' likelihood (a number) and squared errors of the other parts (a row for each example)."""
    place = (reading.centre - batch["centre"]).square()
    return {
        "points": points_likelihood(reading.points, reading.log_sigma, batch["points"]),
        "rotation": (reading.rotation - batch["rotation"]).square().flatten(1).mean(1, keepdim=True),
        "place": torch.cat([place, (reading.log_scale - batch["log_scale"]).square()[:, None]], 1),
    }


class Balance(nn.Module):
    """Adds the parts up."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"rotation": 1, "place": 3}
        self.log_scale = nn.ParameterDict({name: nn.Parameter(torch.full((n,), -2.5)) for name, n in sizes.items()})

    def forward(self, parts: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the total."""
        total = parts["points"]
        for name, share in SHARES.items():
            total = total + share * balanced(parts[name], self.log_scale[name])
        return total
