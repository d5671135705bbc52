"""Bilinear reads from tables of texels: fast on CPU, differentiable in the table and in the place.

A table holds texels as rows. `grid_sample` reads channel by channel; a table is read row by row, which is several times
faster on CPU, and one table can hold planes of many heads and views.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class _WeightedRows(torch.autograd.Function):
    """Weighted sum of four rows; torch's own gradient of `embedding_bag` sorts all indices, which costs far more."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, texels: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, texels, weights)
        return F.embedding_bag(texels, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, texels, weights = ctx.saved_tensors
        of_table = of_weights = None
        if ctx.needs_input_grad[0]:
            of_table = torch.zeros_like(table)
            for tap in range(texels.shape[1]):
                of_table.index_add_(0, texels[:, tap], gradient * weights[:, tap, None])
        if ctx.needs_input_grad[2]:
            taps = [(table.index_select(0, texels[:, tap]) * gradient).sum(-1) for tap in range(texels.shape[1])]
            of_weights = torch.stack(taps, dim=-1)
        return of_table, None, of_weights


def read_bilinear(
    table: Float[Tensor, "texels channels"],
    places: tuple[Float[Tensor, "n"], Float[Tensor, "n"]],
    size: tuple[int, int],
    start: Int[Tensor, "n"],
) -> Float[Tensor, "n channels"]:
    """Read images that are stored in a table.

    Args:
        table: texels of one or more images, row by row.
        places: column and row in texels, the centre of an image's first texel is (0, 0); held at the border.
        size: rows and columns of an image.
        start: the table's row where the image of each read starts.
    """
    rows, columns = size
    x, y = places[0].clamp(0, columns - 1), places[1].clamp(0, rows - 1)
    x0, y0 = x.detach().floor().clamp_max(columns - 2), y.detach().floor().clamp_max(rows - 2)
    right, below = x - x0, y - y0
    left, above = 1 - right, 1 - below
    first = (y0 * columns + x0).long() + start
    texels = torch.stack([first, first + 1, first + columns, first + columns + 1], dim=-1)
    weights = torch.stack([left * above, right * above, left * below, right * below], dim=-1)
    read: Tensor = _WeightedRows.apply(table, texels, weights.to(table.dtype))  # type: ignore[no-untyped-call]
    return read
