"""The optimisation loop that projection and pivotal tuning share, and the camera that both may refine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import PIVOT, pack_label, unpack_label
from galatea.errors import FitError

_RAMP_UP, _RAMP_DOWN = 0.05, 0.3
"""Shares of the steps over which the learning rate rises and falls (Karras et al. 2020, projection, with a longer
fall)."""
_PATIENCE = 25
_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Progress:
    """How an optimisation went: final loss of each portrait, and the steps that it took."""

    loss: Float[Tensor, "batch"]
    num_steps: int


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
    objective: Callable[[int], Float[Tensor, "batch"]], groups: Sequence[Group], num_steps: int, min_gain: float = 0.0
) -> Progress:
    """Minimise the losses of a batch with Adam; portraits do not influence each other, as Adam works element by
    element.

    Args:
        objective: from the step number to one loss per portrait.
        groups: what to optimise.
        num_steps: most steps taken.
        min_gain: stop when no portrait improved by this share of its loss within 25 steps; 0 never stops early.

    Raises:
        FitError: if a loss is not finite.
    """
    each = [(tensor, group) for group in groups for tensor in group.tensors]
    optimiser = torch.optim.Adam([{"params": [t], "lr": g.lr, "peak": g.lr} for t, g in each], betas=_BETAS)
    best, checked = torch.tensor(torch.inf), 0
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
        if min_gain and step - checked >= _PATIENCE:
            if bool((losses >= best * (1 - min_gain)).all()):
                return Progress(losses, step + 1)
            best, checked = torch.minimum(best, losses), step
    return Progress(losses, num_steps)


def _damp(optimiser: torch.optim.Adam, is_damped: Sequence[bool]) -> None:
    """Set the constant under Adam's square root to the size of the first gradient, for damped tensors."""
    for group, damped in zip(optimiser.param_groups, is_damped, strict=True):
        gradient = group["params"][0].grad
        if damped and gradient is not None:
            moved = gradient[gradient != 0]
            group["eps"] = max(1e-8, float(moved.square().mean().sqrt())) if moved.numel() else 1e-8


def move_camera(camera: Float[Tensor, "batch 25"], move: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch 25"]:
    """Return cameras turned about the head's pivot (first three: rotation vector, radians) and shifted (world
    units).
    """
    cam2world, intrinsics = unpack_label(camera)
    rotation = _rotation(move[:, :3])
    pivot = cam2world.new_tensor(PIVOT)
    origin = pivot + (rotation @ (cam2world[:, :3, 3] - pivot)[..., None])[..., 0] + move[:, 3:]
    top = torch.cat([rotation @ cam2world[:, :3, :3], origin[..., None]], dim=2)
    return pack_label(torch.cat([top, cam2world[:, 3:]], dim=1), intrinsics)


def _rotation(vector: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """Return rotation matrices of rotation vectors."""
    x, y, z = vector.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    rotation: Tensor = torch.linalg.matrix_exp(cross)
    return rotation


def _rate(position: float) -> float:
    """Return the learning-rate factor at a relative position: linear rise, constant, cosine fall."""
    fall = min(1.0, (1.0 - position) / _RAMP_DOWN)
    return min(1.0, (position + 1e-2) / _RAMP_UP) * (0.5 - 0.5 * math.cos(fall * math.pi))
