"""A large layer of which only the style is learned, as in a search for `w`: gradients without those of its weights.

Plain differentiation of a modulated convolution either finds the gradient of all its weights, to sum most of it up
again, or scales activations, which costs several passes over them each way. Here style and demodulation scale the
weights, and their gradients come from sums over activations that are there anyway: with y = scale * conv(styles * x) +
bias + noise and a = leaky_relu(y), the sum of dL/dy * y is that of dL/da * a.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from galatea.eg3d.modulation import LARGE_LAYER, convolve, convolve_transposed, with_channels_last

_PIXELS_AT_ONCE = 4096


def is_applicable(x: Tensor, weight: Tensor, styles: Tensor, *others: Tensor | None) -> bool:
    """Say whether only the style (and what comes in) of one sample of a large layer wants a gradient."""
    is_large = weight.ndim == 4 and weight.shape[0] > LARGE_LAYER and x.device.type == "cpu" and x.shape[0] == 1
    is_frozen = not any(value is not None and value.requires_grad for value in (weight, *others))
    return is_large and is_frozen and styles.requires_grad and torch.is_grad_enabled()


def styled_layer(
    x: Float[Tensor, "1 in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels 3 3"],
    styles: Float[Tensor, "1 in_channels"],
    scale: Float[Tensor, "1 out_channels"],
    bias: Float[Tensor, "out_channels"],
    noise: Float[Tensor, "1 1 out_height out_width"] | None,
    upsampling_kernel: Float[Tensor, "4 4"] | None,
    slope: float,
) -> Float[Tensor, "1 out_channels out_height out_width"]:
    """Return leaky_relu(scale * convolution(styles * x) + bias + noise), differentiable once in x, styles and scale."""
    y: Tensor = _StyledLayer.apply(x, styles, scale, weight, bias, noise, upsampling_kernel, slope)  # type: ignore[no-untyped-call]
    return y


class _StyledLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        styles: Tensor,
        scale: Tensor,
        weight: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        upsampling_kernel: Tensor | None,
        slope: float,
    ) -> Tensor:
        x = with_channels_last(x)
        y = convolve(x, weight * styles[0, :, None, None] * scale[0, :, None, None, None], bias, upsampling_kernel)
        if noise is not None:
            y.add_(noise)
        y = F.leaky_relu_(y, slope)
        ctx.slope = slope
        ctx.save_for_backward(x, styles, scale, weight, bias, noise, upsampling_kernel, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, styles, scale, weight, bias, noise, upsampling_kernel, y = ctx.saved_tensors
        grad = with_channels_last(grad)
        by_product = _sum_of_products(grad, y)
        grad_y = torch.ops.aten.leaky_relu_backward(grad, y, ctx.slope, True)
        grad_x = convolve_transposed(grad_y, weight * scale[0, :, None, None, None], upsampling_kernel)
        pixels = grad_y[0].flatten(1)
        added = bias * pixels.sum(1)
        if noise is not None:
            added = added + pixels @ noise.flatten()
        grad_scale = ((by_product - added) / scale[0])[None]
        grad_styles = _sum_of_products(x, grad_x)[None]
        return grad_x.mul_(styles[:, :, None, None]), grad_styles, grad_scale, None, None, None, None, None


def _sum_of_products(
    a: Float[Tensor, "1 channels height width"], b: Float[Tensor, "1 channels height width"]
) -> Float[Tensor, "channels"]:
    """Return the sum over pixels of a * b, piece by piece, so that products stay in the cache."""
    first, second = (value[0].flatten(1).t() for value in (a, b))
    pieces = zip(torch.split(first, _PIXELS_AT_ONCE), torch.split(second, _PIXELS_AT_ONCE), strict=True)
    return torch.stack([(p * q).sum(0) for p, q in pieces]).sum(0)
