"""The optimisation loop that projection and pivotal tuning share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.errors import FitError

_RAMP_UP, _RAMP_DOWN = 0.05, 0.3
"""Shares of the steps over which the learning rate rises and falls (Karras et al. 2020, projection, with a longer
fall)."""
_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Group:
    """Tensors that are optimised with one learning rate.

    Attributes:
        tensors: leaves that require gradients.
        lr: peak learning rate.
        is_damped: elements whose gradient is small against the tensor's at the first step move little, instead of as
            much as all others, as they do with Adam: texels at the rim of what the photo shows would turn into noise.
    """

    tensors: Sequence[Tensor]
    lr: float
    is_damped: bool = False


def minimise(
    objective: Callable[[int], Float[Tensor, "batch"]], groups: Sequence[Group], num_steps: int
) -> Float[Tensor, "batch"]:
    """Minimise the losses of a batch with Adam; portraits do not influence each other, as Adam works element by
    element.

    Args:
        objective: from the step number to one loss per portrait.
        groups: what to optimise.
        num_steps: steps taken.

    Returns:
        The losses before the last step; none where there were no steps.

    Raises:
        FitError: if a loss is not finite.
    """
    each = [(tensor, group) for group in groups for tensor in group.tensors]
    optimiser = torch.optim.Adam([{"params": [t], "lr": g.lr, "peak": g.lr} for t, g in each], betas=_BETAS)
    losses = torch.zeros(0)
    for step in range(num_steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * _rate(step / num_steps)
        optimiser.zero_grad(set_to_none=True)
        losses = objective(step)
        if not bool(torch.isfinite(losses).all()):
            raise FitError(f"inversion: expected finite losses, got {losses.tolist()} in step {step}")
        torch.autograd.backward(losses.sum())
        if step == 0:
            _damp(optimiser, [group.is_damped for _, group in each])
        optimiser.step()
        losses = losses.detach()
    return losses


def _damp(optimiser: torch.optim.Adam, is_damped: Sequence[bool]) -> None:
    """Set the constant under Adam's square root to the size of the first gradient, for damped tensors."""
    for group, damped in zip(optimiser.param_groups, is_damped, strict=True):
        gradient = group["params"][0].grad
        if damped and gradient is not None:
            moved = gradient[gradient != 0]
            group["eps"] = max(1e-8, float(moved.square().mean().sqrt())) if moved.numel() else 1e-8


def _rate(position: float) -> float:
    """Return the learning-rate factor at a relative position: linear rise, constant, cosine fall."""
    fall = min(1.0, (1.0 - position) / _RAMP_DOWN)
    return min(1.0, (position + 1e-2) / _RAMP_UP) * (0.5 - 0.5 * math.cos(fall * math.pi))
