"""The cost of a head-model fit: robust landmark errors plus priors, with analytic derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import FOCAL, PIVOT, RADIUS
from galatea.morphable.least_squares import NormalEquations, Problem

MIN_DEPTH = 0.1
"""Points nearer to the camera than this (EG3D units) only occur in failing steps; kept from dividing by zero."""
RIGID = 12
"""Parameters are [rotation 9 (row-major), shift 3, coefficients]; steps are [turn 3, shift 3, coefficients]."""


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit.

    Attributes:
        num_identity: how many of the model's identity coefficients are estimated; the rest, which landmarks hardly
            show, stay zero.
        correlation: how many neighbouring landmarks err together, and so count as one observation.
        expression_sigma: usual size of an expression coefficient.
        expression_sparsity: pull towards zero that does not grow with the coefficient; keeps actions that explain
            little at exactly zero.
        distance_sigma: usual deviation of the camera's distance from 2.7.
        robust_scale: errors beyond as many standard deviations lose influence (Cauchy).
        read_correlation: as `correlation`, for landmarks whose own spread is known.
        read_sigma: standard deviation of coefficients that were read from the picture, around what was read.
        max_iterations: of the full problem; the pose alone is solved before.
    """

    num_identity: int = 60
    correlation: float = 4.0
    expression_sigma: float = 0.5
    expression_sparsity: float = 0.3
    distance_sigma: float = 0.15
    robust_scale: float = 3.0
    max_iterations: int = 40
    read_correlation: float = 12.0
    read_sigma: float = 0.12


@dataclass(frozen=True)
class LandmarkEnergy:
    """Landmark errors of points that move rigidly and along a linear basis.

    Attributes:
        points: at rest, world space; one set for all, or one for each face.
        basis: movement for a coefficient of one.
        weight: of each point, 1 / variance in inter-pupil distances; one set for all, or one for each face.
        observed: normalised image coordinates.
        pupil_distance: world units, the ruler of errors.
        lower, upper, prior, sparsity: of the coefficients; prior is 1 / variance.
        expected: the prior's mean; one set for all, or one for each face.
        settings: the rest.
    """

    points: Float[Tensor, "#batch points 3"]
    basis: Float[Tensor, "points 3 n"]
    weight: Float[Tensor, "#batch points"]
    observed: Float[Tensor, "batch points 2"]
    pupil_distance: float
    lower: Float[Tensor, "n"]
    upper: Float[Tensor, "n"]
    prior: Float[Tensor, "n"]
    sparsity: Float[Tensor, "n"]
    expected: Float[Tensor, "#batch n"]
    settings: FitSettings

    def problem(self) -> Problem:
        """Return the solver's view."""
        free = torch.full((6,), torch.inf)
        return Problem(
            linearise=self.linearise,
            cost=self.cost,
            retract=retract,
            lower=torch.cat([-free, self.lower]),
            upper=torch.cat([free, self.upper]),
        )

    def place(
        self, parameters: Float[Tensor, "batch m"], rows: Tensor
    ) -> tuple[Float[Tensor, "batch points 3"], Float[Tensor, "batch points 3"]]:
        """Return the points turned about the pivot, and the same in camera coordinates."""
        moved = (parameters[:, RIGID:] @ self.basis.flatten(0, 1).T).reshape(len(parameters), -1, 3)
        rest = _of(self.points, rows)
        centred = rest - torch.tensor(PIVOT) + moved
        turned = centred @ parameters[:, :9].reshape(-1, 3, 3).transpose(1, 2)
        return turned, turned + parameters[:, None, 9:RIGID]

    @property
    def ruler(self) -> float:
        """The inter-pupil distance in the image at the usual camera distance.

        A constant, so that no fit can shrink its errors by going nearer.
        """
        return FOCAL * self.pupil_distance / RADIUS

    def errors(self, camera_points: Float[Tensor, "batch points 3"], rows: Tensor) -> Float[Tensor, "batch points 2"]:
        """Return errors in inter-pupil distances."""
        return (project(camera_points) - self.observed[rows]) / self.ruler

    def cost(self, parameters: Float[Tensor, "batch m"], rows: Tensor) -> Float[Tensor, "batch"]:
        """Return the negative log posterior."""
        return self._total(parameters, self.errors(self.place(parameters, rows)[1], rows), rows)

    def _total(self, parameters: Tensor, error: Tensor, rows: Tensor) -> Tensor:
        squared, limit = error.square().sum(-1) * _of(self.weight, rows), self.settings.robust_scale**2
        data = 0.5 * (limit * torch.log1p(squared / limit)).sum(1) / self.settings.correlation
        coeffs = parameters[:, RIGID:]
        distance = (parameters[:, RIGID - 1] - RADIUS) / self.settings.distance_sigma
        away = coeffs - _of(self.expected, rows)
        prior = 0.5 * (away.square() * self.prior).sum(1) + (coeffs * self.sparsity).sum(1)
        return data + prior + 0.5 * distance.square()

    def linearise(self, parameters: Float[Tensor, "batch m"], rows: Tensor) -> NormalEquations:
        """Return cost, gradient and Gauss-Newton Hessian (iteratively reweighted for the robust errors)."""
        turned, camera_points = self.place(parameters, rows)
        error = self.errors(camera_points, rows)
        weight = _of(self.weight, rows)
        squared = error.square().sum(-1) * weight
        robust = weight / (1 + squared / self.settings.robust_scale**2) / self.settings.correlation
        scale = robust.sqrt()[..., None]
        jacobian = self._jacobian(parameters, turned, camera_points, scale / self.ruler)
        residual = (error * scale).flatten(1)
        gradient = (jacobian.transpose(1, 2) @ residual[..., None])[..., 0]
        hessian = jacobian.transpose(1, 2) @ jacobian
        gradient[:, 6:] += (parameters[:, RIGID:] - _of(self.expected, rows)) * self.prior + self.sparsity
        gradient[:, 5] += (parameters[:, RIGID - 1] - RADIUS) / self.settings.distance_sigma**2
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        diagonal[:, 6:] += self.prior
        diagonal[:, 5] += 1 / self.settings.distance_sigma**2
        return NormalEquations(self._total(parameters, error, rows), gradient, hessian)

    def _jacobian(
        self,
        parameters: Float[Tensor, "batch m"],
        turned: Float[Tensor, "batch points 3"],
        camera_points: Float[Tensor, "batch points 3"],
        scale: Float[Tensor, "batch points 1"],
    ) -> Float[Tensor, "batch rows n"]:
        """Return scaled d(image point) / d(turn, shift, coefficients)."""
        x, y, depth = camera_points[..., 0], camera_points[..., 1], camera_points[..., 2].clamp_min(MIN_DEPTH)
        zero = torch.zeros_like(depth)
        projection = torch.stack([depth, zero, -x, zero, depth, -y], dim=-1).reshape(*depth.shape, 2, 3)
        projection = projection * (FOCAL * scale / depth.square()[..., None])[..., None]
        columns = [-projection @ cross_matrix(turned), projection]
        if self.basis.shape[-1]:
            rotated = projection @ parameters[:, :9].reshape(-1, 1, 3, 3)
            # One matrix product per point, over all faces at once.
            moved = rotated.transpose(0, 1).flatten(1, 2) @ self.basis
            columns.append(moved.reshape(len(moved), -1, 2, moved.shape[-1]).transpose(0, 1))
        return torch.cat(columns, dim=-1).flatten(1, 2)


def project(camera_points: Float[Tensor, "batch points 3"]) -> Float[Tensor, "batch points 2"]:
    """Return normalised image coordinates."""
    return FOCAL * camera_points[..., :2] / camera_points[..., 2:].clamp_min(MIN_DEPTH) + 0.5


def _of(values: Float[Tensor, "#batch *n"], rows: Tensor) -> Float[Tensor, "#rows *n"]:
    """Return the rows of per-face values; values that all faces share stay as they are."""
    return values if values.shape[0] == 1 else values[rows]


def retract(parameters: Float[Tensor, "batch m"], step: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m"]:
    """Turn the rotation by the first three numbers of the step (axis times angle), add the others."""
    rotation = torch.linalg.matrix_exp(cross_matrix(step[:, :3])) @ parameters[:, :9].reshape(-1, 3, 3)
    return torch.cat([rotation.flatten(1), parameters[:, 9:] + step[:, 3:]], dim=1)


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the matrix that takes the cross product with `vector`."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape, 3)
