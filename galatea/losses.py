"""Image losses of the inversion: every one returns one number per image, so that a batch of portraits stays separable.

Images are RGB in [-1, 1]; weights are in [0, 1] and need not sum to one.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from kornia.filters import spatial_gradient
from kornia.metrics import ssim
from torch import Tensor

_SSIM_WINDOW = 7
_EPSILON = 1e-6


def weighted_mean(values: Float[Tensor, "batch c h w"], weight: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch"]:
    """Return the mean of `values` where `weight` says, per image."""
    weight = weight.expand(values.shape[0], 1, *values.shape[2:])
    return (values.mean(1, keepdim=True) * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(_EPSILON)


def l1_loss(
    image: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h w"], weight: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, "batch"]:
    """Return the weighted mean absolute difference."""
    return weighted_mean((image - target).abs(), weight)


def gradient_loss(
    image: Float[Tensor, "batch 3 h w"],
    target: Float[Tensor, "batch 3 h w"],
    weight: Float[Tensor, "batch 1 h w"],
    num_scales: int = 3,
) -> Float[Tensor, "batch"]:
    """Return the weighted mean difference of first derivatives over a pyramid: edges in place, whatever the tone."""
    total = image.new_zeros(image.shape[0])
    for scale in range(num_scales):
        if scale:
            image, target, weight = (F.avg_pool2d(x, 2) for x in (image, target, weight))
        difference = spatial_gradient(image - target, mode="diff").abs().mean(2)
        total = total + weighted_mean(difference, weight)
    return total / num_scales


def structure_loss(
    image: Float[Tensor, "batch 3 h w"],
    target: Float[Tensor, "batch 3 h w"],
    weight: Float[Tensor, "batch 1 h w"],
    num_scales: int = 3,
) -> Float[Tensor, "batch"]:
    """Return 1 - SSIM, averaged over a pyramid and weighted (Wang et al. 2003 multiply the scales; we average).

    The average keeps its gradient where one scale does not match at all, as in the first steps of an inversion.
    """
    total = image.new_zeros(image.shape[0])
    for scale in range(num_scales):
        if scale:
            image, target, weight = (F.avg_pool2d(x, 2) for x in (image, target, weight))
        similarity = ssim(image * 0.5 + 0.5, target * 0.5 + 0.5, _SSIM_WINDOW)
        total = total + weighted_mean(1 - similarity, weight)
    return total / num_scales


def matte_loss(alpha: Float[Tensor, "batch 1 h w"], matte: Float[Tensor, "batch 1 H W"]) -> Float[Tensor, "batch"]:
    """Return the mean absolute difference between the rendered opacity and the photo's matte."""
    matte = F.interpolate(matte, alpha.shape[-2:], mode="area")
    return (alpha - matte).abs().mean((1, 2, 3))


def total_variation(maps: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch"]:
    """Return the mean absolute difference of neighbouring texels: residual maps are to be smooth."""
    across = (maps[..., 1:] - maps[..., :-1]).abs().flatten(1).mean(1)
    down = (maps[..., 1:, :] - maps[..., :-1, :]).abs().flatten(1).mean(1)
    return across + down
