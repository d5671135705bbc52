"""Modulated convolution and FIR up-sampling of StyleGAN2 (Karras et al. 2020, section 2, appendix B)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

NoiseMode = Literal["const", "random", "none"]
"""Per-pixel noise: the stored map, fresh noise, or nothing."""

DEMODULATION_EPS = 1e-8
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)
"""Binomial low-pass used between resolutions (StyleGAN2, appendix B)."""


def fir_filter() -> Float[Tensor, "4 4"]:
    """Return the separable low-pass as a 4x4 kernel of sum one."""
    taps = torch.tensor(FIR_TAPS)
    kernel = taps[:, None] * taps[None, :]
    return kernel / kernel.sum()


def _blur(x: Float[Tensor, "batch channels height width"], kernel: Float[Tensor, "4 4"]) -> Tensor:
    """Filter every channel, padding one zero on each side; the result is one pixel smaller on each axis."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.to(x.dtype).expand(channels, 1, 4, 4), padding=1, groups=channels)


def upsample_2x(
    image: Float[Tensor, "batch channels height width"], kernel: Float[Tensor, "4 4"]
) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Double the size: zeros between pixels, then the low-pass with gain 4 (the skip path between resolutions)."""
    channels = image.shape[1]
    weight = (kernel * 4.0).to(image.dtype).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(image, weight, stride=2, padding=1, groups=channels)


def demodulation(
    weight: Float[Tensor, "*batch out_channels in_channels k k"], styles: Float[Tensor, "batch in_channels"]
) -> Float[Tensor, "batch out_channels"]:
    """Return the factors that give every output channel unit variance (StyleGAN2, equation 3)."""
    energy = weight.square().sum(dim=(-1, -2))
    if weight.ndim == 4:
        return (styles.square() @ energy.t() + DEMODULATION_EPS).rsqrt()
    return (torch.einsum("bi,boi->bo", styles.square(), energy) + DEMODULATION_EPS).rsqrt()


def modulated_conv2d(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "*batch out_channels in_channels k k"],
    styles: Float[Tensor, "batch in_channels"],
    *,
    is_demodulated: bool = True,
    upsampling_kernel: Float[Tensor, "4 4"] | None = None,
) -> Float[Tensor, "batch out_channels out_height out_width"]:
    """Convolve with weights that are scaled by the style of each sample.

    The scaling is applied to the activations, not to the weights (equal up to rounding), so that one convolution serves
    the batch; where every sample has weights of its own (a tuned generator per identity) it is one grouped convolution.

    Args:
        x: input activations.
        weight: shared weights, or one set per sample with a leading batch axis.
        styles: scale of each input channel.
        is_demodulated: scale the output back to unit variance.
        upsampling_kernel: double the resolution with this low-pass; None keeps it.
    """
    batch, in_channels = x.shape[:2]
    x = x * styles[:, :, None, None]
    groups = 1
    if weight.ndim == 5:
        groups = batch
        x = x.reshape(1, batch * in_channels, *x.shape[2:])
    if upsampling_kernel is None:
        y = F.conv2d(x, weight.flatten(0, -4), padding=weight.shape[-1] // 2, groups=groups)
    else:
        y = F.conv_transpose2d(x, weight.transpose(-4, -3).flatten(0, -4), stride=2, groups=groups)
        y = _blur(y, upsampling_kernel * 4.0)
    y = y.reshape(batch, -1, *y.shape[2:])
    return y * demodulation(weight, styles)[:, :, None, None] if is_demodulated else y


def pixel_noise(
    mode: NoiseMode, noise_const: Float[Tensor, "height width"], batch: int, generator: torch.Generator | None
) -> Float[Tensor, "batch 1 height width"] | None:
    """Return the noise map of a layer, before its strength.

    Raises:
        ValueError: if the mode is not one of "const", "random", "none".
    """
    if mode == "none":
        return None
    if mode == "const":
        return noise_const.reshape(-1, 1, *noise_const.shape[-2:])
    if mode == "random":
        shape = (batch, 1, *noise_const.shape[-2:])
        return torch.randn(shape, generator=generator, device=noise_const.device, dtype=noise_const.dtype)
    raise ValueError(f"noise_mode: expected 'const', 'random' or 'none', got {mode!r}")
