"""Modulated convolution and FIR up-sampling of StyleGAN2 (Karras et al. 2020, section 2, appendix B)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d import winograd

NoiseMode = Literal["const", "random", "none"]
"""Per-pixel noise: the stored map, fresh noise, or nothing."""

DEMODULATION_EPS = 1e-8
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)
"""Binomial low-pass used between resolutions (StyleGAN2, appendix B)."""
LARGE_LAYER = 64
"""Layers with more channels take the ways that pay for large ones."""
_FEW_CHANNELS = 8
"""Mixtures to so few channels (an image) come first in products of matrices: their gradient is ten times faster."""


def fir_filter() -> Float[Tensor, "4 4"]:
    """Return the separable low-pass as a 4x4 kernel of sum one."""
    taps = torch.tensor(FIR_TAPS)
    kernel = taps[:, None] * taps[None, :]
    return kernel / kernel.sum()


def upsample_2x(
    image: Float[Tensor, "batch channels height width"], kernel: Float[Tensor, "4 4"]
) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Double the size: zeros between pixels, then the low-pass with gain 4 (the skip path between resolutions)."""
    channels = image.shape[1]
    weight = (kernel * 4.0).to(image.dtype).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(image, weight, stride=2, padding=1, groups=channels)


def demodulation(
    weight: Float[Tensor, "out_channels in_channels k k"], styles: Float[Tensor, "batch in_channels"]
) -> Float[Tensor, "batch out_channels"]:
    """Return what scales outputs back to unit variance (StyleGAN2, equation 3)."""
    return (styles.square() @ weight.square().sum(dim=(2, 3)).t() + DEMODULATION_EPS).rsqrt()


def modulated_conv2d(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "*batch out_channels in_channels k k"],
    styles: Float[Tensor, "batch in_channels"],
    bias: Float[Tensor, "*batch out_channels"],
    *,
    is_demodulated: bool = True,
    upsampling_kernel: Float[Tensor, "4 4"] | None = None,
    gain: float = 1.0,
) -> Float[Tensor, "batch out_channels out_height out_width"]:
    """Convolve with weights that are scaled by the style of each sample, times `gain`, plus `bias`.

    A single sample, or samples with weights of their own (a tuned generator per identity), scale the weights:
    activations are then written once. A batch with shared weights scales the activations instead, equal up to
    rounding, so that one convolution serves it.

    Args:
        x: input activations.
        weight: shared weights, or one set per sample with a leading batch axis.
        styles: scale of each input channel.
        bias: added after the gain; may have a leading batch axis, too.
        is_demodulated: scale the output back to unit variance (StyleGAN2, equation 3).
        upsampling_kernel: double the resolution with this low-pass; None keeps it.
        gain: factor of the output before the bias.
    """
    batch = x.shape[0]
    if weight.ndim == 4 and batch > 1:
        y = convolve(x * styles[:, :, None, None], weight, None, upsampling_kernel)
        scale = styles.new_full((1, weight.shape[0]), gain)
        if is_demodulated:
            scale = gain * demodulation(weight, styles)
        return torch.addcmul(bias.reshape(-1, weight.shape[0], 1, 1), y, scale[:, :, None, None])
    scaled = weight * styles[:, None, :, None, None]
    if is_demodulated:
        scaled = scaled * (scaled.square().sum(dim=(2, 3, 4), keepdim=True) + DEMODULATION_EPS).rsqrt()
    out_channels = scaled.shape[1]
    flat_bias = bias.expand(batch, out_channels).reshape(-1)
    if batch == 1:
        # Not reshaped to groups: that would hide from torch that channels lie last.
        return convolve(x, scaled[0] * gain, flat_bias, upsampling_kernel)
    y = convolve(x.reshape(1, -1, *x.shape[2:]), scaled * gain, flat_bias, upsampling_kernel)
    return y.reshape(batch, out_channels, *y.shape[2:])


def modulated_mixture(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "*batch out_channels in_channels 1 1"],
    styles: Float[Tensor, "batch in_channels"],
    bias: Float[Tensor, "*batch out_channels"],
) -> Float[Tensor, "batch out_channels height width"]:
    """Mix channels by weights that are scaled by the style of each sample, plus `bias`: a 1x1 modulated convolution.

    As a product of matrices for large layers on a CPU: activations are neither scaled nor written, for any batch.
    """
    if x.device.type != "cpu" or x.shape[1] <= LARGE_LAYER:
        return modulated_conv2d(x, weight, styles, bias, is_demodulated=False)
    scaled = weight[..., 0, 0] * styles[:, None, :]
    pixels = with_channels_last(x).permute(0, 2, 3, 1).flatten(1, 2)
    if scaled.shape[1] <= _FEW_CHANNELS:
        y = torch.baddbmm(bias.reshape(-1, scaled.shape[1], 1), scaled, pixels.transpose(1, 2))
        return y.reshape(*y.shape[:2], *x.shape[2:])
    y = torch.baddbmm(bias.reshape(-1, 1, scaled.shape[1]), pixels, scaled.transpose(1, 2))
    return y.reshape(y.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)


def convolve(
    x: Float[Tensor, "batch channels height width"],
    weight: Float[Tensor, "*groups out_channels in_channels k k"],
    bias: Float[Tensor, "all_out_channels"] | None,
    upsampling_kernel: Float[Tensor, "4 4"] | None,
) -> Float[Tensor, "batch all_out_channels out_height out_width"]:
    """Convolve, one group per entry of a leading axis of `weight`; with a kernel, double the size and low-pass."""
    groups = 1 if weight.ndim == 4 else weight.shape[0]
    if groups == 1 and x.device.type == "cpu" and weight.shape[-4] > LARGE_LAYER:
        x = with_channels_last(x)
        if upsampling_kernel is None and weight.shape[-1] == 3 and winograd.is_worthwhile(x, weight.shape[-4]):
            return winograd.convolve(x, weight.flatten(0, -4), bias)
    if upsampling_kernel is None:
        return F.conv2d(x, weight.flatten(0, -4), bias, padding=weight.shape[-1] // 2, groups=groups)
    y = F.conv_transpose2d(x, weight.transpose(-4, -3).flatten(0, -4), stride=2, groups=groups)
    # Padded by one zero on each side; the result is one pixel smaller than what the transposed convolution gave.
    kernel = (upsampling_kernel * 4.0).to(y.dtype).expand(y.shape[1], 1, 4, 4)
    return F.conv2d(y, kernel, bias, padding=1, groups=y.shape[1])


def convolve_transposed(
    y: Float[Tensor, "batch out_channels out_height out_width"],
    weight: Float[Tensor, "out_channels in_channels 3 3"],
    upsampling_kernel: Float[Tensor, "4 4"] | None,
) -> Float[Tensor, "batch in_channels height width"]:
    """Return the transpose of `convolve` without bias: what a gradient of its result means for its input."""
    if upsampling_kernel is None:
        return convolve(y, weight.flip(2, 3).transpose(0, 1), None, None)
    kernel = (upsampling_kernel * 4.0).to(y.dtype).flip(0, 1).expand(y.shape[1], 1, 4, 4)
    return F.conv2d(F.conv2d(y, kernel, padding=2, groups=y.shape[1]), weight.transpose(0, 1), stride=2)


def with_channels_last(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Return activations whose channels lie last in memory: torch's convolutions on a CPU are faster by half then."""
    rows = x.permute(0, 2, 3, 1).contiguous()
    # The stride of a batch of one is arbitrary, but another one than this would keep torch from seeing the layout.
    rows = rows[0][None] if rows.shape[0] == 1 else rows
    return rows.permute(0, 3, 1, 2)


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
