"""The linear steps of `galatea.eg3d.winograd` on bands of tiles: patches to frequencies, and frequencies to outputs.

Every step is one-dimensional and done along columns and rows; buffers are written in place and used again.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TILE, PATCH = 4, 6
"""Outputs of a tile along an axis, and the inputs that they depend on."""
WEIGHT_TRANSFORM = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
"""The matrix G for the interpolation points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2015, section 4.3)."""
Views = tuple[Tensor, ...]


class InputBand:
    """Reads bands of tiles: a few rows of tiles over the whole width of an image, one pixel of zeros around it.

    Args:
        x: images (batch, height, width, channels).
        num_rows: rows of tiles in a band.
    """

    def __init__(self, x: Tensor, num_rows: int) -> None:
        self.num_rows, self.num_columns = num_rows, x.shape[2] // TILE
        width, channels = x.shape[2] + 2, x.shape[3]
        self.padded = x.new_zeros(num_rows * TILE + 2, width, channels)
        self.rows = x.new_empty(PATCH, num_rows, width, channels)
        self.row_spare = x.new_empty(2, num_rows, width, channels)
        self.patches = x.new_empty(PATCH, PATCH, num_rows, self.num_columns, channels)
        self.patch_spare = x.new_empty(2, PATCH, num_rows, self.num_columns, channels)

    def read(self, image: Tensor, row: int) -> Float[Tensor, "36 tiles channels"]:
        """Return the transformed patches (column, then row frequency) of the band that starts at a row of tiles."""
        start, stop = row * TILE - 1, (row + self.num_rows) * TILE + 1
        first, last = max(start, 0), min(stop, image.shape[0])
        self.padded[: first - start].zero_()
        self.padded[last - start :].zero_()
        self.padded[first - start : last - start, 1:-1].copy_(image[first:last])
        by_row = tuple(self.padded[k::TILE][: self.num_rows] for k in range(PATCH))
        _transform_inputs(by_row, self.rows.unbind(), self.row_spare.unbind())
        by_column = tuple(self.rows[:, :, k::TILE][:, :, : self.num_columns] for k in range(PATCH))
        _transform_inputs(by_column, self.patches.unbind(), self.patch_spare.unbind())
        return self.patches.view(PATCH**2, self.num_rows * self.num_columns, -1)


class OutputBand:
    """Holds the products of a band of tiles, and turns them into outputs, or gradients of outputs into theirs.

    Args:
        y: outputs (batch, height, width, channels).
        num_rows: rows of tiles in a band.
    """

    def __init__(self, y: Tensor, num_rows: int) -> None:
        tiles = (num_rows, y.shape[2] // TILE, y.shape[3])
        self.frequencies = y.new_empty(PATCH, PATCH, *tiles)
        self.products = self.frequencies.view(PATCH**2, num_rows * tiles[1], tiles[2])
        self.half = y.new_empty(TILE, PATCH, *tiles)
        self.half_spare = y.new_empty(TILE, PATCH, *tiles)
        self.whole_spare = y.new_empty(TILE, TILE, *tiles)

    def write(self, out: Float[Tensor, "rows 4 columns 4 channels"], bias: Float[Tensor, "channels"] | None) -> None:
        """Turn `products` into the outputs of a band, plus a bias."""
        if bias is not None:
            # Frequency (1, 1) counts once in every output of a tile.
            self.frequencies[1, 1].add_(bias)
        _transform_products(self.frequencies.unbind(), self.half.unbind(), self.half_spare.unbind())
        by_row = tuple(out[:, k].movedim(2, 0) for k in range(TILE))
        _transform_products(self.half.unbind(1), by_row, self.whole_spare.unbind())

    def spread(self, out: Float[Tensor, "rows 4 columns 4 channels"]) -> Float[Tensor, "36 tiles channels"]:
        """Return the transpose of `write`: what gradients of outputs mean for products (they share a buffer)."""
        by_row = tuple(out[:, k].movedim(2, 0) for k in range(TILE))
        _transpose_products(by_row, self.half.unbind(1), self.whole_spare.unbind())
        _transpose_products(self.half.unbind(), self.frequencies.unbind(), self.half_spare.unbind())
        return self.products


def _transform_inputs(x: Views, out: Views, spare: Views) -> None:
    """Multiply six values by the matrix B^T of the paper, common parts once."""
    t, u = spare
    torch.sub(x[4], x[2], alpha=4, out=t)
    torch.sub(x[3], x[1], alpha=4, out=u)
    torch.add(t, u, out=out[1])
    torch.sub(t, u, out=out[2])
    torch.sub(x[4], x[2], out=t)
    torch.sub(x[3], x[1], out=u)
    torch.add(t, u, alpha=2, out=out[3])
    torch.sub(t, u, alpha=2, out=out[4])
    torch.sub(x[0], x[2], out=out[0])
    torch.add(t, out[0], alpha=4, out=out[0])
    torch.sub(x[5], x[3], out=out[5])
    out[5].sub_(u, alpha=4)


def _transform_products(m: Views, out: Views, spare: Views) -> None:
    """Multiply six products by the matrix A^T of the paper."""
    sum1, difference1, sum2, difference2 = spare
    torch.add(m[1], m[2], out=sum1)
    torch.sub(m[1], m[2], out=difference1)
    torch.add(m[3], m[4], out=sum2)
    torch.sub(m[3], m[4], out=difference2)
    torch.add(difference1, difference2, alpha=2, out=out[1])
    torch.add(sum1, sum2, alpha=4, out=out[2])
    difference1.add_(difference2, alpha=8)
    torch.add(difference1, m[5], out=out[3])
    sum1.add_(sum2)
    torch.add(sum1, m[0], out=out[0])


def _transpose_products(y: Views, out: Views, spare: Views) -> None:
    """Multiply four gradients by the matrix A."""
    even, odd, wide_even, wide_odd = spare
    torch.add(y[0], y[2], out=even)
    torch.add(y[1], y[3], out=odd)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.add(y[0], y[2], alpha=4, out=wide_even)
    torch.add(y[1], y[3], alpha=4, out=wide_odd)
    torch.add(wide_even, wide_odd, alpha=2, out=out[3])
    torch.sub(wide_even, wide_odd, alpha=2, out=out[4])
    out[0].copy_(y[0])
    out[5].copy_(y[3])
