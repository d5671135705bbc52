"""Chunks of a large computation whose gradients are found by computing them again: memory for one chunk only.

`torch.utils.checkpoint` per chunk would do in principle, but its small leftovers lie between the large buffers of the
chunks, so that the allocator cannot use those again, and memory grows with the image all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Part: TypeAlias = Callable[[slice, tuple[Tensor, ...], torch.Generator | None], tuple[Tensor, ...]]
"""From a range of rays, tensors that may have gradients, and randomness: outputs whose second axis is the range."""


def in_parts(
    compute: Part, parts: Sequence[slice], inputs: Sequence[Tensor], generator: torch.Generator | None
) -> tuple[Tensor, ...]:
    """Return the outputs of all parts side by side, differentiable once in `inputs`.

    Args:
        compute: gives the outputs of a part; called again, with the same random numbers, when gradients are found.
        parts: ranges of the second axis of the outputs, in order.
        inputs: everything that outputs depend on and that may have a gradient.
        generator: randomness; None for none.
    """
    outputs: tuple[Tensor, ...] = _InParts.apply(compute, parts, generator, *inputs)  # type: ignore[no-untyped-call]
    return outputs


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, compute: Part, parts: Sequence[slice], generator: torch.Generator | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.compute, ctx.parts, ctx.states = compute, parts, []
        ctx.save_for_backward(*inputs)
        outputs: tuple[Tensor, ...] = ()
        for part in parts:
            ctx.states.append(None if generator is None else generator.get_state())
            found = compute(part, inputs, generator)
            if not outputs:
                outputs = tuple(v.new_empty(v.shape[0], parts[-1].stop, *v.shape[2:]) for v in found)
            for whole, piece in zip(outputs, found, strict=True):
                whole[:, part] = piece
        ctx.device = None if generator is None else generator.device
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[3:]
        leaves = tuple(v.detach().requires_grad_(n) for v, n in zip(ctx.saved_tensors, needs, strict=True))
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        totals = [torch.zeros_like(leaf) for leaf in wanted]
        for part, state in zip(ctx.parts, ctx.states, strict=True):
            generator = None
            if state is not None:
                generator = torch.Generator(ctx.device)
                generator.set_state(state)
            with torch.enable_grad():
                found = ctx.compute(part, leaves, generator)
            pairs = [(v, g[:, part]) for v, g in zip(found, gradients, strict=True) if v.requires_grad]
            outputs, weights = zip(*pairs, strict=True)
            for total, some in zip(
                totals, torch.autograd.grad(outputs, wanted, weights, allow_unused=True), strict=True
            ):
                if some is not None:
                    total += some
        each = iter(totals)
        return None, None, None, *(next(each) if need else None for need in needs)
