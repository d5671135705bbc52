"""Person mattes of portrait crops: MediaPipe's selfie segmentation, sharpened along the picture's own edges."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from galatea.faces.tflite import TFLiteGraph

NETWORK_SIZE = 256
GUIDE_RADIUS = 6
"""Pixels of the network's image around which matte and colour are related."""
GUIDE_EPSILON = 3e-4
"""Variance of colour (0..1) below which an area counts as flat."""
_LOW, _HIGH = 0.12, 0.92
"""Matte values that become 0 and 1: the network leaves a haze on both sides."""
_FACE = (0.42, 0.58)
"""The crop's middle, which always belongs to the person."""


class PersonMatte(nn.Module):
    """Foreground matte of the person in the middle of a crop.

    Args:
        graph: the selfie segmentation network.
    """

    def __init__(self, graph: TFLiteGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, crops: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 1 size size"]:
        """Return how much of each pixel is the person, 0..1.

        Args:
            crops: portrait crops in [-1, 1].
        """
        full = crops * 0.5 + 0.5
        small = F.interpolate(full, (NETWORK_SIZE, NETWORK_SIZE), mode="bilinear", antialias=True)
        # Both mirror images: the network's errors at hair and shoulders are not symmetric.
        both = self.graph(torch.cat([small, small.flip(3)]))[0]
        coarse = (both[: len(crops)] + both[len(crops) :].flip(3)) / 2
        coarse = coarse * _main_component(coarse)
        matte = guided_upsample(small, coarse, full)
        return ((matte - _LOW) / (_HIGH - _LOW)).clamp(0, 1)


def guided_upsample(
    guide: Float[Tensor, "batch 3 low low"], matte: Float[Tensor, "batch 1 low low"], full: Float[Tensor, "batch 3 h w"]
) -> Float[Tensor, "batch 1 h w"]:
    """Fast guided filter (He and Sun 2015) with a colour guide: the matte as a local linear function of the picture.

    Args:
        guide: the picture at the matte's size, 0..1.
        matte: coarse matte.
        full: the picture at full size, 0..1.
    """
    mean, mean_matte = _box(guide), _box(matte)
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = torch.stack([guide[:, i] * guide[:, j] for i, j in pairs], 1)
    variance = _box(products) - torch.stack([mean[:, i] * mean[:, j] for i, j in pairs], 1)
    covariance = _box(guide * matte) - mean * mean_matte
    slope = _solve_symmetric(variance, covariance)
    offset = mean_matte - (slope * mean).sum(1, keepdim=True)
    smooth = F.interpolate(_box(torch.cat([slope, offset], 1)), full.shape[2:], mode="bilinear", align_corners=False)
    return ((smooth[:, :3] * full).sum(1, keepdim=True) + smooth[:, 3:]).clamp(0, 1)


def _box(value: Tensor) -> Tensor:
    """Mean over a square window, of what is inside the image; by rows, then by columns."""
    width, channels = 2 * GUIDE_RADIUS + 1, value.shape[1]
    ones = value.new_ones(channels, 1, width, 1)
    # Depthwise convolutions: ten times as fast as average pooling on the CPU.
    rows = F.conv2d(value, ones, padding=(GUIDE_RADIUS, 0), groups=channels)
    total = F.conv2d(rows, ones.transpose(2, 3), padding=(0, GUIDE_RADIUS), groups=channels)
    counts = [_window_sizes(length).to(value) for length in value.shape[2:]]
    return total / (counts[0][:, None] * counts[1])


def _window_sizes(length: int) -> Tensor:
    """How many pixels of an axis each window covers."""
    place = torch.arange(length)
    return (place + GUIDE_RADIUS + 1).clamp(max=length) - (place - GUIDE_RADIUS).clamp(min=0)


def _solve_symmetric(variance: Float[Tensor, "batch 6 h w"], right: Float[Tensor, "batch 3 h w"]) -> Tensor:
    """Solve the regularised 3x3 systems of every pixel by Cramer's rule."""
    rr, rg, rb, gg, gb, bb = variance.unbind(1)
    rr, gg, bb = rr + GUIDE_EPSILON, gg + GUIDE_EPSILON, bb + GUIDE_EPSILON
    c00, c01, c02 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c11, c12, c22 = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * c00 + rg * c01 + rb * c02
    x, y, z = right.unbind(1)
    solved = [c00 * x + c01 * y + c02 * z, c01 * x + c11 * y + c12 * z, c02 * x + c12 * y + c22 * z]
    return torch.stack(solved, 1) / determinant.clamp(min=GUIDE_EPSILON**3)[:, None]


@torch.no_grad()
def _main_component(matte: Float[Tensor, "batch 1 low low"]) -> Tensor:
    """1 on and near the connected area that holds the crop's middle, 0 on other people and specks."""
    masks = []
    low, high = (round(share * matte.shape[2]) for share in _FACE)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GUIDE_RADIUS + 1, 2 * GUIDE_RADIUS + 1))
    for plane in matte[:, 0].cpu().numpy():
        _, labels = cv2.connectedComponents((plane > 0.5).astype(np.uint8))
        middle = labels[low:high, low:high]
        inside = middle[middle > 0]
        # No person in the middle: leave the network's answer as it is.
        main = labels == np.bincount(inside).argmax() if inside.size else np.ones_like(plane, dtype=bool)
        masks.append(cv2.dilate(main.astype(np.float32), reach))
    return torch.from_numpy(np.stack(masks))[:, None].to(matte)
