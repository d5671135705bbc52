"""The reader's first look: a small residual network that finds the landmarks of a face, its place and its pose.

Dense landmarks with their own uncertainty as in Wood et al. 2022, "3D Face Reconstruction with Dense Landmarks"; no
global pooling before the fully connected head, so that sub-pixel positions survive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.faces.second_look import Block, convolution, last_layer, precise

INPUT_SIZE, NUM_POINTS = 128, 478
STEM, WIDTHS, BLOCKS = 16, (64, 128, 192), (1, 3, 1)
SQUEEZE, HIDDEN = 32, 448


@dataclass(frozen=True)
class FirstReading:
    """What the first look says about regions, in region coordinates (0..1, x right, y down).

    Attributes:
        points: landmarks.
        log_sigma: natural logarithm of each point's standard deviation, in region sides.
        rotation: head to camera (x right, y down, z forward), columns orthonormal, for a camera that looks at the
            region's middle with its x axis along the region's.
        centre: where the head's middle is seen, region coordinates.
        log_scale: logarithm of the head's size in the region against the usual one.
    """

    points: Float[Tensor, "batch 478 2"]
    log_sigma: Float[Tensor, "batch 478"]
    rotation: Float[Tensor, "batch 3 3"]
    centre: Float[Tensor, "batch 2"]
    log_scale: Float[Tensor, "batch"]


class FirstLook(nn.Module):
    """Reads regions of 128 x 128 pixels in [-1, 1].

    Args:
        mean_points: where the landmarks usually are, region coordinates.
    """

    mean_points: Tensor

    def __init__(self, mean_points: Float[Tensor, "478 2"]) -> None:
        super().__init__()
        self.register_buffer("mean_points", mean_points)
        layers: list[nn.Module] = [convolution(3, STEM, 2), nn.ReLU(inplace=True)]
        width = STEM
        for wider, count in zip(WIDTHS, BLOCKS, strict=True):
            layers += [convolution(width, wider, 2), nn.ReLU(inplace=True), *(Block(wider) for _ in range(count))]
            width = wider
        self.face = nn.Sequential(*layers, nn.Conv2d(width, SQUEEZE, 1), nn.ReLU(inplace=True), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(SQUEEZE * (INPUT_SIZE // 16) ** 2, HIDDEN), nn.ReLU(inplace=True))
        self.out = last_layer(HIDDEN, NUM_POINTS * 3 + 9)

    def forward(self, regions: Float[Tensor, "batch 3 128 128"]) -> FirstReading:
        """Read faces."""
        raw = precise(self.out, self.hidden(self.face(regions)))
        moves, numbers = raw[:, : NUM_POINTS * 3].reshape(-1, NUM_POINTS, 3), raw[:, NUM_POINTS * 3 :]
        return FirstReading(
            points=self.mean_points + 0.25 * moves[..., :2],
            log_sigma=(moves[..., 2] - 3.5).clamp(-7, 1),
            rotation=rotation_from_six(numbers[:, :6]),
            centre=0.5 + 0.2 * numbers[:, 6:8],
            log_scale=0.3 * numbers[:, 8],
        )


def rotation_from_six(six: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch 3 3"]:
    """Return rotations from their first two columns (Zhou et al. 2019); zeros give a head that faces the camera."""
    first = six[:, :3] + six.new_tensor([1.0, 0.0, 0.0])
    second = six[:, 3:] + six.new_tensor([0.0, -1.0, 0.0])
    return orthonormal(torch.stack([first, second], -1))


def orthonormal(columns: Float[Tensor, "batch 3 n"]) -> Float[Tensor, "batch 3 3"]:
    """Return rotations from the first two of some columns (Gram and Schmidt)."""
    x = torch.nn.functional.normalize(columns[..., 0], dim=-1)
    second = columns[..., 1]
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.cross(x, y, dim=-1)], dim=-1)


def fold_normalisation(network: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place; the network must be in eval mode."""
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2:
            layer, norm = module
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = nn.utils.fuse_conv_bn_eval(layer, norm), nn.Identity()
