"""Image quality against a reference, inside a mask: PSNR, SSIM, MS-SSIM, one value per image.

Images are RGB in [-1, 1]. The mask selects what counts (for portraits: the face); without one the whole image counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.metrics import ssim as ssim_map
from torch import Tensor

from galatea.losses import weighted_mean

_WINDOW = 11
"""Window of Wang et al. (2004)."""
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, Wang et al. (2003), section 3.2."""
_MAX_PSNR = 100.0
"""Reported for equal images instead of infinity, so that means stay finite."""


def psnr(
    image: Float[Tensor, "batch 3 h w"],
    reference: Float[Tensor, "batch 3 h w"],
    mask: Float[Tensor, "batch 1 h w"] | None = None,
) -> Float[Tensor, "batch"]:
    """Return the peak signal-to-noise ratio in dB (peak = the range of 2 of [-1, 1] images), at most 100."""
    error = weighted_mean((image - reference).square(), _mask_for(image, mask))
    return (10 * torch.log10(4 / error.clamp_min(1e-12))).clamp_max(_MAX_PSNR)


def ssim(
    image: Float[Tensor, "batch 3 h w"],
    reference: Float[Tensor, "batch 3 h w"],
    mask: Float[Tensor, "batch 1 h w"] | None = None,
) -> Float[Tensor, "batch"]:
    """Return the structural similarity (Wang et al. 2004, 11 x 11 Gaussian window) as a mean over the mask."""
    similarity = ssim_map(image * 0.5 + 0.5, reference * 0.5 + 0.5, _WINDOW)
    return weighted_mean(similarity, _mask_for(image, mask))


def ms_ssim(
    image: Float[Tensor, "batch 3 h w"],
    reference: Float[Tensor, "batch 3 h w"],
    mask: Float[Tensor, "batch 1 h w"] | None = None,
) -> Float[Tensor, "batch"]:
    """Return multi-scale structural similarity: the weighted geometric mean of SSIM over up to five octaves.

    Differs from Wang et al. (2003) in using the full SSIM at each scale (they leave luminance to the coarsest), and in
    stopping before the image is smaller than the window; the weights of the scales in use are normalised.
    """
    mask = _mask_for(image, mask)
    scales: list[Tensor] = []
    while len(scales) < len(_SCALE_WEIGHTS) and min(image.shape[-2:]) >= _WINDOW:
        scales.append(ssim(image, reference, mask).clamp_min(0))
        image, reference, mask = (F.avg_pool2d(x, 2) for x in (image, reference, mask))
    if not scales:
        raise ValueError(f"ms_ssim: expected images of at least {_WINDOW} pixels, got {tuple(image.shape)}")
    weights = image.new_tensor(_SCALE_WEIGHTS[: len(scales)])
    return torch.stack(scales).pow((weights / weights.sum())[:, None]).prod(0)


def _mask_for(image: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return image.new_ones(image.shape[0], 1, *image.shape[2:])
    if mask.shape[-2:] != image.shape[-2:]:
        raise ValueError(f"mask: expected the size of the images {tuple(image.shape)}, got {tuple(mask.shape)}")
    return mask
