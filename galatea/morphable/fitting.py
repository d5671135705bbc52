"""Fit the head model to landmarks: identity, expression and the EG3D camera, many faces at once.

The head stays in world space; all rigid motion goes to the camera. Focal length is EG3D's, the camera has all six
degrees of freedom (it need not look at the pivot).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from galatea.cameras import FOCAL, PIVOT, RADIUS, intrinsics_matrix, pack_label
from galatea.faces.reader_data import reader_correspondence
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.correspondence import NUM_MESH_POINTS, load_correspondence
from galatea.morphable.landmark_energy import RIGID, FitSettings, LandmarkEnergy, project
from galatea.morphable.landmark_model import LandmarkModel, LinearHead, bake
from galatea.morphable.least_squares import solve

NUM_ACTIONS = len(ARKIT_ACTIONS)
RIGHT_IRIS, LEFT_IRIS = 468, 473
"""Iris centres behind the 468 mesh points; the person's right eye, which is the image-left one, comes first."""
MAX_RESIDUAL = 0.06
"""A fit whose median landmark error is above this share of the inter-pupil distance shows another face, or none."""
MIN_SPREAD = 0.008
"""Landmarks count as no surer than this, in inter-pupil distances."""
DISTANCE_RANGE = (1.4, 6.0)
"""Plausible distances of the camera (EG3D units); beyond, the crop does not hold a face of usual size."""


class Landmarks(Protocol):
    """What is needed of detected landmarks.

    Galatea's own reader also gives `spread` (batch, 478), each point's standard deviation in crop sides, and
    `expression` (batch, 52): such landmarks lie exactly on the head model, count as they are sure, and their
    expression is what the fit starts to believe in.
    """

    @property
    def points(self) -> Float[Tensor, "batch 478 2"]:
        """Normalised image coordinates in the portrait crop, x right, y down: 468 mesh points, then the irises."""
        ...


@dataclass(frozen=True)
class HeadFit:
    """Heads and cameras that explain landmarks.

    Attributes:
        identity: coefficients in standard deviations.
        expression: 52 ARKit coefficients in [0, 1].
        camera: EG3D labels.
        residual: median distance between detected and modelled landmarks as a share of the inter-pupil distance
            (of the fitted head at its distance, so that a turned head is not measured with a shortened ruler).
        is_converged: the solver came to rest at a plausible place: residual and distance within bounds.
        points: the modelled landmarks (468 and two pupils) in the image, for drawing.
    """

    identity: Float[Tensor, "batch identity"]
    expression: Float[Tensor, "batch 52"]
    camera: Float[Tensor, "batch 25"]
    residual: Float[Tensor, "batch"]
    is_converged: Bool[Tensor, "batch"]
    points: Float[Tensor, "batch points 2"]


class HeadFitter:
    """Fits one head model; baking it costs a second, so keep the fitter."""

    def __init__(self, model: LinearHead | LandmarkModel, settings: FitSettings | None = None) -> None:
        """Bake the head model at the landmarks.

        Args:
            model: a head model, or one that is baked already.
            settings: weights of the fit; None takes the defaults.

        Raises:
            WeightsError: if the built-in correspondence is missing or damaged.
        """
        self._head: LinearHead | None = None if isinstance(model, LandmarkModel) else model
        self._baked: dict[bool, LandmarkModel] = {False: model} if isinstance(model, LandmarkModel) else {}
        self.settings = settings or FitSettings()

    def model_for(self, landmarks: Landmarks) -> LandmarkModel:
        """Return the head model at FaceMesh's landmarks, or at the reader's where they come with their spread."""
        is_read = getattr(landmarks, "spread", None) is not None and self._head is not None
        if is_read not in self._baked and self._head is not None:
            self._baked[is_read] = bake(self._head, reader_correspondence() if is_read else load_correspondence())
        return self._baked[is_read]

    def fit(self, landmarks: Landmarks, identity: Float[Tensor, "1 identity"] | None = None) -> HeadFit:
        """Fit every face of a batch on its own.

        Args:
            landmarks: detected in portrait crops; NaN marks a face without landmarks, whose fit does not converge.
            identity: known coefficients that all faces share (frames of one person); None estimates each face's.
        """
        observed = observed_points(landmarks.points)
        usable = torch.isfinite(observed).all(dim=(1, 2))
        observed = torch.where(usable[:, None, None], observed, torch.full_like(observed, 0.5))
        model = self.model_for(landmarks)
        if identity is None:
            shape, points = model.identity_basis[..., : self.settings.num_identity], model.mean[None]
        else:
            shape, points = model.identity_basis[..., :0], model.points(identity, torch.zeros(1, NUM_ACTIONS))
        seen = Observation(observed, points, self._weight(model, landmarks), _expression(landmarks))
        rigid = solve(self.energy(model, seen, None).problem(), _start(model, observed), max_iterations=10)
        energy = self.energy(model, seen, shape)
        expected = energy.expected[:, energy.basis.shape[-1] - NUM_ACTIONS :].expand(len(observed), -1)
        rest = torch.zeros(len(observed), energy.basis.shape[-1] - NUM_ACTIONS)
        start = torch.cat([rigid.parameters, rest, expected], dim=1)
        full = solve(energy.problem(), start, self.settings.max_iterations)
        fit = self._result(energy, full.parameters, full.is_converged & usable, model.num_identity)
        return fit if identity is None else replace(fit, identity=identity.expand(len(observed), -1))

    def fit_track(self, landmarks: Landmarks, max_identity_frames: int = 24) -> HeadFit:
        """Fit frames of one person: the identity is the mean over frames that are spread over the clip.

        Args:
            landmarks: one set a frame.
            max_identity_frames: how many frames the identity is estimated from.
        """
        count = landmarks.points.shape[0]
        stride = max(1, -(-count // max_identity_frames))
        sample = self.fit(_every(landmarks, stride))
        weight = sample.is_converged.float() / sample.residual.clamp_min(1e-3).square()
        if not bool(sample.is_converged.any()):
            return self.fit(landmarks)
        identity = (weight[:, None] * sample.identity.nan_to_num()).sum(0, keepdim=True) / weight.sum()
        return self.fit(landmarks, identity)

    def energy(self, model: LandmarkModel, seen: Observation, shape: Tensor | None) -> LandmarkEnergy:
        """Return the cost over pose, the identity directions `shape` and expression, or over pose alone (None)."""
        num_identity = 0 if shape is None else shape.shape[-1]
        num_actions = 0 if shape is None else NUM_ACTIONS
        actions = model.expression_basis[..., :num_actions]
        settings, is_read = self.settings, seen.expression is not None

        def each(identity: float, expression: float) -> Tensor:
            return torch.tensor([identity] * num_identity + [expression] * num_actions)

        expected = torch.zeros(1, num_identity + num_actions)
        if seen.expression is not None and num_actions:
            expected = torch.cat([torch.zeros(len(seen.observed), num_identity), seen.expression], dim=1)
        return LandmarkEnergy(
            points=seen.points,
            basis=actions if shape is None else torch.cat([shape, actions], dim=-1),
            weight=seen.weight,
            observed=seen.observed,
            pupil_distance=model.pupil_distance,
            lower=each(-torch.inf, 0.0),
            upper=each(torch.inf, 1.0),
            prior=each(1.0, (settings.read_sigma if is_read else settings.expression_sigma) ** -2),
            sparsity=each(0.0, 0.0 if is_read else settings.expression_sparsity),
            expected=expected,
            settings=settings,
        )

    def _weight(self, model: LandmarkModel, landmarks: Landmarks) -> Float[Tensor, "#batch points"]:
        """Return each point's weight: the detector's usual one, or by the reader's own word in this picture."""
        spread = getattr(landmarks, "spread", None)
        if spread is None:
            return model.weight[None]
        ruler = FOCAL * model.pupil_distance / RADIUS
        own = torch.cat([spread[:, :NUM_MESH_POINTS], spread[:, [RIGHT_IRIS, LEFT_IRIS]]], dim=1)
        variance = (own.detach().float().cpu().nan_to_num(1.0) / ruler).clamp_min(MIN_SPREAD).square()
        return self.settings.correlation / self.settings.read_correlation / variance

    @staticmethod
    def _result(energy: LandmarkEnergy, parameters: Tensor, is_converged: Tensor, num_identity: int) -> HeadFit:
        rows = torch.arange(parameters.shape[0])
        _, camera_points = energy.place(parameters, rows)
        # Residuals are reported in the pupil distance at the fitted depth; the solver's ruler is the usual depth's.
        depth = camera_points[..., 2].mean(dim=1) / RADIUS
        error = energy.errors(camera_points, rows)[:, :NUM_MESH_POINTS].norm(dim=-1)
        residual = error.median(dim=1).values * depth
        rotation, shift = parameters[:, :9].reshape(-1, 3, 3), parameters[:, 9:RIGID]
        is_near = (shift[:, 2] > DISTANCE_RANGE[0]) & (shift[:, 2] < DISTANCE_RANGE[1])
        identity = torch.zeros(parameters.shape[0], num_identity)
        num_fitted = energy.basis.shape[-1] - NUM_ACTIONS
        identity[:, :num_fitted] = parameters[:, RIGID : RIGID + num_fitted]
        return HeadFit(
            identity=identity,
            expression=parameters[:, RIGID + num_fitted :].clamp(0, 1),
            camera=_camera(rotation, shift),
            residual=residual,
            is_converged=is_converged & is_near & (residual <= MAX_RESIDUAL),
            points=project(camera_points),
        )


@dataclass(frozen=True)
class Observation:
    """What a fit explains: landmarks, the head's points at rest, weights, and the read expression, if any."""

    observed: Float[Tensor, "batch points 2"]
    points: Float[Tensor, "#batch points 3"]
    weight: Float[Tensor, "#batch points"]
    expression: Float[Tensor, "batch 52"] | None


@dataclass(frozen=True)
class _Every:
    points: Tensor
    spread: Tensor | None
    expression: Tensor | None


def _every(landmarks: Landmarks, stride: int) -> _Every:
    spread, expression = getattr(landmarks, "spread", None), getattr(landmarks, "expression", None)
    return _Every(
        landmarks.points[::stride],
        None if spread is None else spread[::stride],
        None if expression is None else expression[::stride],
    )


def _expression(landmarks: Landmarks) -> Float[Tensor, "batch 52"] | None:
    expression = getattr(landmarks, "expression", None)
    return None if expression is None else expression.detach().float().cpu().nan_to_num(0.0)


def observed_points(points: Float[Tensor, "batch 478 2"]) -> Float[Tensor, "batch points 2"]:
    """Return the 468 mesh points and the two pupils.

    Raises:
        ValueError: if the shape is another.
    """
    if points.ndim != 3 or points.shape[1:] != (478, 2):
        raise ValueError(f"landmarks: expected (batch, 478, 2), got {tuple(points.shape)}")
    return torch.cat([points[:, :NUM_MESH_POINTS], points[:, [RIGHT_IRIS, LEFT_IRIS]]], dim=1).detach().float().cpu()


def _start(model: LandmarkModel, observed: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch n"]:
    """Return the mean head, seen frontally, rolled and placed by the pupils."""
    right, left = observed[:, -2], observed[:, -1]
    across = left - right
    roll = torch.atan2(across[:, 1], across[:, 0])
    cos, sin, zero = roll.cos(), roll.sin(), torch.zeros_like(roll)
    # World to camera: y and z flip, then the image turns by `roll`.
    rotation = torch.stack([cos, sin, zero, sin, -cos, zero, zero, zero, zero - 1], dim=-1)
    distance = FOCAL * model.pupil_distance / across.norm(dim=-1).clamp_min(1e-3)
    distance = distance.clamp(*DISTANCE_RANGE)
    pupils = (model.mean[-2:].mean(0) - torch.tensor(PIVOT)).expand(observed.shape[0], 3)
    turned = (rotation.reshape(-1, 3, 3) @ pupils[..., None])[..., 0]
    centre = ((right + left) / 2 - 0.5) / FOCAL * distance[:, None]
    shift = torch.cat([centre - turned[:, :2], distance[:, None] - turned[:, 2:]], dim=1)
    return torch.cat([rotation, shift], dim=1)


def _camera(rotation: Float[Tensor, "batch 3 3"], shift: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 25"]:
    """Return EG3D labels of x_camera = rotation (x_world - PIVOT) + shift."""
    cam2world = torch.eye(4).repeat(rotation.shape[0], 1, 1)
    cam2world[:, :3, :3] = rotation.transpose(1, 2)
    cam2world[:, :3, 3] = torch.tensor(PIVOT) - (rotation.transpose(1, 2) @ shift[..., None])[..., 0]
    return pack_label(cam2world, intrinsics_matrix().expand(rotation.shape[0], 3, 3))
