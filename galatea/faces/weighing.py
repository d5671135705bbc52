"""The reader's last step: everything that was seen of a face, weighed together.

What one patch cannot tell, the whole face can: brows that lie high on everybody's face of this shape are not raised,
and a mouth that is narrow for these jaws is a pout. What shapes tell by themselves is learned from more heads than
could be rendered, apart (`ShapeGuess`). The weighing also brings the points that no second look sees (temples, rims of
cheeks and jaw) in line with those that were seen more closely.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.faces.reader_network import FirstReading
from galatea.faces.second_look import BOTH, last_layer

HIDDEN, SHAPE_HIDDEN, GAIN, MOVE = 224, 128, 8.0, 0.02
"""Widths; what brings points to the size of other features; region sides that a move of 1 stands for."""


class ShapeGuess(nn.Module):
    """What the places of the landmarks tell of the actions, by themselves: a perceptron over points and pose."""

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(num_inputs, SHAPE_HIDDEN), nn.ReLU())
        self.out = last_layer(SHAPE_HIDDEN, 52)

    def forward(self, shape: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch 52"]:
        """Return actions."""
        guess: Tensor = self.out(self.hidden(shape))
        return guess


class Weighing(nn.Module):
    """A small perceptron over points, pose and the features of both second looks.

    Args:
        mean_points: where the landmarks usually are, region coordinates.
    """

    mean_points: Tensor

    def __init__(self, mean_points: Float[Tensor, "478 2"]) -> None:
        super().__init__()
        num = len(mean_points)
        self.register_buffer("mean_points", mean_points)
        self.shape = ShapeGuess(2 * num + 6)
        self.hidden = nn.Sequential(nn.Linear(2 * num + 6 + 3 * BOTH + 52, HIDDEN), nn.ReLU())
        self.out = last_layer(HIDDEN, 52 + 2 * num)

    def forward(
        self,
        points: Float[Tensor, "batch 478 2"],
        rotation: Float[Tensor, "batch 3 3"],
        eyes: Float[Tensor, "batch 2 features"],
        mouth: Float[Tensor, "batch features"],
    ) -> tuple[Float[Tensor, "batch 52"], Float[Tensor, "batch 478 2"]]:
        """Return what to add to the actions and to the points.

        Args:
            points: landmarks of an upright face of the usual size in the middle (`aligned`).
            rotation: head to camera.
            eyes: features of the right eye and of the mirrored left one.
            mouth: features of the mouth.
        """
        shape = self.shape_of(points, rotation)
        seen = torch.cat([shape, eyes.flatten(1), mouth, self.shape(shape)], 1)
        raw = self.out(self.hidden(seen))
        return raw[:, :52], MOVE * raw[:, 52:].reshape(points.shape)

    def shape_of(
        self, points: Float[Tensor, "batch 478 2"], rotation: Float[Tensor, "batch 3 3"]
    ) -> Float[Tensor, "batch inputs"]:
        """Return points and pose as the perceptrons take them."""
        pose = rotation[..., :2].transpose(1, 2).flatten(1)
        return torch.cat([GAIN * (points - self.mean_points).flatten(1), pose], 1)


def aligned(points: Float[Tensor, "batch 478 2"], first: FirstReading) -> Float[Tensor, "batch 478 2"]:
    """Return region points as if the region were exactly where the first look found the face."""
    size = torch.exp(first.log_scale)[:, None, None]
    return (points - first.centre[:, None]) / size + 0.5
