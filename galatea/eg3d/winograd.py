"""3x3 convolutions on a CPU with a quarter of the multiplications (Lavin and Gray 2015, arXiv 1509.09308, F(4x4, 3x3)).

An image is cut into tiles of 4x4 outputs, which 6x6 inputs feed. A linear transform of patches and weights turns the
convolution into a product per frequency: 36 products where 4x4 outputs of a direct convolution take 144. Bands of tiles
go through all steps together, while they are in the cache, in buffers that are used again. The numbers are those of a
direct convolution up to rounding (3e-6 relative in float32).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from galatea.eg3d.winograd_tiles import PATCH, TILE, WEIGHT_TRANSFORM, InputBand, OutputBand

_TILES_AT_ONCE = 128
_MIN_TILES, _MIN_CHANNELS = 256, 65
"""Smaller convolutions do not pay for the transforms."""


def is_worthwhile(x: Float[Tensor, "batch in_channels height width"], out_channels: int) -> bool:
    """Say whether `convolve` is usable and faster than torch's own convolution: large float32 activations on a CPU."""
    height, width = x.shape[2:]
    is_usable = x.device.type == "cpu" and x.dtype == torch.float32 and height % TILE == 0 and width % TILE == 0
    is_large = height * width >= _MIN_TILES * TILE**2 and min(x.shape[1], out_channels) >= _MIN_CHANNELS
    return is_usable and is_large and not torch.is_autocast_enabled("cpu")


def convolve(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels 3 3"],
    bias: Float[Tensor, "out_channels"] | None = None,
) -> Float[Tensor, "batch out_channels height width"]:
    """Convolve with one pixel of zeros around; height and width are multiples of 4.

    Differentiable in all arguments, repeatedly in `x`. The result lies channels last in memory; so should `x`.
    """
    y: Tensor = _Convolution.apply(x.permute(0, 2, 3, 1), weight, bias)  # type: ignore[no-untyped-call]
    return y.permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """Convolution of (batch, height, width, channels)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        y = x.new_empty(*x.shape[:3], weight.shape[0])
        frequencies = _transform_weight(weight)
        for patches, band, out in _bands(x, y):
            torch.bmm(patches, frequencies, out=band.products)
            band.write(out, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)
            grad_x = _Convolution.apply(grad, turned, None)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_weight = _WeightGradient.apply(x, grad)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 1, 2))
        return grad_x, grad_weight, grad_bias


class _WeightGradient(torch.autograd.Function):
    """Gradient of the weights: the transposes of the forward's linear steps, summed over tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor) -> Tensor:
        total = x.new_zeros(PATCH**2, x.shape[3], grad.shape[3])
        for patches, band, out in _bands(x, grad):
            total.baddbmm_(patches.transpose(1, 2), band.spread(out))
        by_weight = total.flatten(1).t() @ _transform_matrix(x).t()
        return by_weight.reshape(x.shape[3], grad.shape[3], 3, 3).transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError("second derivatives with respect to convolution weights are not provided")


def _transform_matrix(like: Tensor) -> Float[Tensor, "9 36"]:
    """Return what turns a flat 3x3 kernel into its 36 frequencies (column, then row)."""
    one = torch.tensor(WEIGHT_TRANSFORM, dtype=torch.float64)
    both = torch.einsum("ja,ib->baji", one, one).reshape(9, PATCH**2)
    return both.to(like.device, like.dtype)


def _transform_weight(weight: Float[Tensor, "out in 3 3"]) -> Float[Tensor, "36 in out"]:
    """Return the weights of every frequency."""
    by_input = weight.detach().transpose(0, 1).reshape(-1, 9)
    return (_transform_matrix(weight).t() @ by_input.t()).reshape(PATCH**2, weight.shape[1], weight.shape[0])


def _bands(x: Tensor, y: Tensor) -> Iterator[tuple[Float[Tensor, "36 tiles channels"], OutputBand, Tensor]]:
    """Yield, band by band of tiles, the transformed patches of `x`, buffers for `y`, and the band's view of `y`."""
    columns, rows = x.shape[2] // TILE, x.shape[1] // TILE
    step = max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * columns <= _TILES_AT_ONCE))
    patches, products = InputBand(x, step), OutputBand(y, step)
    tiles = y.reshape(-1, rows, TILE, columns, TILE, y.shape[3])
    for image, out in zip(x, tiles, strict=True):
        for row in range(0, rows, step):
            yield patches.read(image, row), products, out[row : row + step]
