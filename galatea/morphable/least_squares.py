"""Batched Levenberg-Marquardt with box bounds: many small non-linear least-squares problems at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MIN_DAMPING, MAX_DAMPING = 1e-6, 1e6
NEGLIGIBLE_COST = 1e-3
"""Costs are negative log likelihoods: below this, a perfect fit, changes are rounding."""


@dataclass(frozen=True)
class NormalEquations:
    """Gauss-Newton model of a cost 0.5 |r|^2 around the current parameters.

    Attributes:
        cost: the cost itself.
        gradient: J^T r.
        hessian: J^T J.
    """

    cost: Float[Tensor, "batch"]
    gradient: Float[Tensor, "batch n"]
    hessian: Float[Tensor, "batch n n"]


@dataclass(frozen=True)
class Problem:
    """A batch of problems of one shape. The functions get parameters and the rows of the batch that these belong to.

    Attributes:
        linearise: -> cost, gradient and approximate Hessian.
        cost: -> cost only (cheaper, for trial steps).
        retract: (parameters, step) -> new parameters; this is where rotations compose.
        lower, upper: bounds of each parameter (n,), infinite where there is none. They belong to the last n numbers of
            the parameters, of which there may be more than of the step; `retract` must be additive where they bind.
    """

    linearise: Callable[[Tensor, Tensor], NormalEquations]
    cost: Callable[[Tensor, Tensor], Tensor]
    retract: Callable[[Tensor, Tensor], Tensor]
    lower: Float[Tensor, "n"]
    upper: Float[Tensor, "n"]


@dataclass(frozen=True)
class Solution:
    """Parameters, their cost, and whether the last step had stopped to matter."""

    parameters: Float[Tensor, "batch m"]
    cost: Float[Tensor, "batch"]
    is_converged: Bool[Tensor, "batch"]


def solve(
    problem: Problem, start: Float[Tensor, "batch m"], max_iterations: int = 20, tolerance: float = 1e-3
) -> Solution:
    """Minimise every problem of the batch; those that have converged leave it, so stragglers cost only themselves.

    Damping is per problem: a third after a good step, times four after a bad one. A bounded parameter that sits on its
    bound and is pushed outwards is left out of the step (Bertsekas 1982, projected Newton).

    Args:
        problem: the functions.
        start: parameters within bounds.
        max_iterations: number of linearisations.
        tolerance: a problem has converged when a step changes its cost by less than this share.
    """
    parameters, damping = start.clone(), torch.full_like(start[:, 0], 1e-2)
    cost = torch.full_like(damping, torch.inf)
    is_converged = torch.zeros_like(damping, dtype=torch.bool)
    for _ in range(max_iterations):
        if bool(is_converged.all()):
            break
        rows = torch.nonzero(~is_converged)[:, 0]
        current = parameters[rows]
        model = problem.linearise(current, rows)
        trial = problem.retract(current, _step(problem, current, model, damping[rows]))
        trial_cost = problem.cost(trial, rows)
        is_better = trial_cost <= model.cost
        parameters[rows] = torch.where(is_better[:, None], trial, current)
        cost[rows] = torch.minimum(trial_cost, model.cost)
        factor = torch.where(is_better, torch.tensor(1 / 3), torch.tensor(4.0))
        damping[rows] = (damping[rows] * factor).clamp(MIN_DAMPING, MAX_DAMPING)
        is_converged[rows] = (model.cost - trial_cost).abs() <= tolerance * (model.cost + NEGLIGIBLE_COST)
    return Solution(parameters, cost, is_converged)


def _step(
    problem: Problem, parameters: Float[Tensor, "batch m"], model: NormalEquations, damping: Float[Tensor, "batch"]
) -> Float[Tensor, "batch n"]:
    bounded = parameters[:, -problem.lower.shape[0] :]
    is_stuck = ((bounded <= problem.lower) & (model.gradient > 0)) | ((bounded >= problem.upper) & (model.gradient < 0))
    is_free = (~is_stuck).to(parameters.dtype)
    diagonal = model.hessian.diagonal(dim1=-2, dim2=-1)
    hessian = model.hessian * is_free[:, :, None] * is_free[:, None, :]
    hessian = hessian + torch.diag_embed(damping[:, None] * diagonal + (1 - is_free) + 1e-9)
    step = -torch.linalg.solve(hessian, (model.gradient * is_free)[..., None])[..., 0]
    return torch.minimum(torch.maximum(step, problem.lower - bounded), problem.upper - bounded)
