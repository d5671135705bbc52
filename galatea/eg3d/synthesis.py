"""StyleGAN2's synthesis network with skip connections (Karras et al. 2020, arXiv 1912.04958, figures 2 and 7).

It paints the tri-planes of EG3D; with other resolutions and channel counts it paints neural textures just as well.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.mapping import LRELU_GAIN, LRELU_SLOPE, FullyConnectedLayer
from galatea.eg3d.modulation import (
    NoiseMode,
    demodulation,
    fir_filter,
    modulated_conv2d,
    modulated_mixture,
    pixel_noise,
    upsample_2x,
)
from galatea.eg3d.styled import is_applicable, styled_layer


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU.

    Parameters may carry a leading batch axis through `torch.func.functional_call` (`weight`, `bias`, `noise_const`):
    then every sample has its own.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        is_upsampling: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.is_upsampling, self.conv_clamp = is_upsampling, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.register_buffer("resample_filter", fir_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self,
        x: Float[Tensor, "batch in_channels height width"],
        w: Float[Tensor, "batch w_dim"],
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Apply the layer.

        The activation's gain is applied before it, to weights, noise and bias (the same, as it is positive): so
        activations are written once, and changed in place afterwards.
        """
        kernel = self.resample_filter if self.is_upsampling else None
        styles, bias = self.affine(w), self.bias * LRELU_GAIN
        noise = pixel_noise(noise_mode, self.noise_const, x.shape[0], generator)
        if noise is not None:
            noise = noise * (self.noise_strength * LRELU_GAIN)
        if is_applicable(x, self.weight, styles, bias, noise):
            scale = demodulation(self.weight, styles) * LRELU_GAIN
            y = styled_layer(x, self.weight, styles, scale, bias, noise, kernel, LRELU_SLOPE)
        else:
            y = modulated_conv2d(x, self.weight, styles, bias, upsampling_kernel=kernel, gain=LRELU_GAIN)
            y = F.leaky_relu_(y if noise is None else y.add_(noise), LRELU_SLOPE)
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation, plus bias."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch img_channels height width"]:
        """Return this resolution's contribution to the image."""
        styles = self.affine(w) * self.weight_gain
        y = modulated_mixture(x, self.weight, styles, self.bias)
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution: two convolutions (one in the constant 4x4 block) and a contribution to the image.

    Args:
        in_channels: channels of the block before; 0 makes this the first block, which starts from a learned constant.
        out_channels: channels of this block.
        w_dim: width of w.
        resolution: size of the block's output.
        img_channels: channels of the image.
        is_upsampling: double the resolution in the first convolution and of the image that comes in.
        conv_clamp: clamp of activations (used by networks trained in half precision), None for none.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        is_upsampling: bool = True,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.is_upsampling = in_channels, is_upsampling
        self.register_buffer("resample_filter", fir_filter())
        self.num_conv = 1 if in_channels == 0 else 2
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, resolution, is_upsampling=is_upsampling, conv_clamp=conv_clamp
            )
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp)

    def forward(
        self,
        x: Float[Tensor, "batch in_channels height width"] | None,
        image: Float[Tensor, "batch img_channels height width"] | None,
        ws: Float[Tensor, "batch layers w_dim"],
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return activations and the image so far; `ws` holds one w per convolution, then one for the image."""
        if x is None:
            const = self.const if self.const.ndim == 4 else self.const[None]
            x = const.expand(ws.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x, ws[:, 0], noise_mode, generator)
        x = self.conv1(x, ws[:, self.num_conv - 1], noise_mode, generator)
        contribution = self.torgb(x, ws[:, self.num_conv])
        if image is None:
            return x, contribution
        if self.is_upsampling:
            image = upsample_2x(image, self.resample_filter)
        return x, image + contribution


class SynthesisNetwork(nn.Module):
    """From `w_plus` to an image of any channel count: blocks of 4, 8, ... up to `img_resolution`.

    Args:
        w_dim: width of w.
        img_resolution: output size, a power of two of at least 4.
        img_channels: output channels (96 for tri-planes of 32).
        channel_base: channels at resolution r are `min(channel_base // r, channel_max)`.
        channel_max: see above.
        conv_clamp: clamp of activations, None for none.

    Raises:
        ValueError: if the resolution is not a power of two.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution: expected a power of two >= 4, got {img_resolution}")
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = tuple(2**power for power in range(2, img_resolution.bit_length()))
        self.num_ws = 0
        in_channels = 0
        for resolution in self.block_resolutions:
            channels = min(channel_base // resolution, channel_max)
            block = SynthesisBlock(in_channels, channels, w_dim, resolution, img_channels, conv_clamp=conv_clamp)
            setattr(self, f"b{resolution}", block)
            self.num_ws += block.num_conv
            in_channels = channels
        self.num_ws += 1

    def forward(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch img_channels size size"]:
        """Return the image.

        Args:
            ws: one w per layer; a block's image layer shares its w with the next block's first convolution.
            noise_mode: "const" (stored noise), "random" (drawn from `generator`) or "none".
            generator: source of randomness for "random" noise.

        Raises:
            ValueError: if `ws` has another shape.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws: expected shape (batch, {self.num_ws}, {self.w_dim}), got {tuple(ws.shape)}")
        x: Tensor | None = None
        image: Tensor | None = None
        start = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            x, image = block(x, image, ws[:, start : start + block.num_conv + 1], noise_mode, generator)
            start += block.num_conv
        if image is None:
            raise ValueError("the network has no block")
        return image
