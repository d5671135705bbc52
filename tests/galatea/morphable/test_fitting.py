"""Head fits on landmarks that are known exactly: a made-up face, whose every coefficient and camera is known."""

import math
from dataclasses import dataclass

import pytest
import torch

from galatea.cameras import orbit, project, view_angles
from galatea.morphable.fitting import LEFT_IRIS, RIGHT_IRIS, HeadFitter, observed_points
from galatea.morphable.landmark_energy import FitSettings, LandmarkEnergy
from galatea.morphable.landmark_model import LandmarkModel

EXACT = FitSettings(expression_sparsity=0.0, expression_sigma=3.0, correlation=0.001, distance_sigma=3.0)
"""Almost no priors: exact landmarks must give back exact answers."""


@dataclass(frozen=True)
class Seen:
    points: torch.Tensor


def made_up_face(num_identity: int = 5) -> LandmarkModel:
    """A half ellipsoid of 468 points and two pupils whose coefficients each move a patch of it."""
    generator = torch.Generator().manual_seed(3)
    golden = torch.arange(468) * math.pi * (3 - math.sqrt(5))
    height = torch.linspace(-0.95, 0.95, 468)
    ring = (1 - height.square()).sqrt()
    mean = torch.stack([0.2 * ring * golden.cos(), 0.27 * height, 0.22 * (ring * golden.sin()).abs()], dim=1)
    mean = torch.cat([mean, torch.tensor([[-0.085, 0.08, 0.2], [0.085, 0.08, 0.2]])])
    centres = mean[torch.randperm(470, generator=generator)[: num_identity + 52]]
    bumps = torch.exp(-(mean[:, None] - centres).square().sum(-1) / 0.004)
    moves = bumps[:, None] * torch.randn(1, 3, num_identity + 52, generator=generator) * 0.03
    return LandmarkModel(
        mean, moves[..., :num_identity], moves[..., num_identity:], torch.full((470,), 1e4), pupil_distance=0.17
    )


def seen(face: LandmarkModel, identity, expression, camera) -> Seen:
    image, _ = project(face.points(identity, expression), camera)
    points = torch.zeros(len(image), 478, 2)
    points[:, :468], points[:, RIGHT_IRIS], points[:, LEFT_IRIS] = image[:, :468], image[:, 468], image[:, 469]
    return Seen(points)


FACE = made_up_face()


def angles(yaw=0.0, pitch=0.0, roll=0.0):
    return orbit(*(torch.tensor([value]) for value in (yaw, pitch, roll)))


@pytest.mark.parametrize(
    "pose", [{"yaw": 35.0}, {"yaw": -35.0}, {"pitch": 20.0}, {"pitch": -20.0}, {"roll": 40.0}, {"roll": -40.0}]
)
def test_one_axis_at_a_time_is_recovered(pose):
    fit = HeadFitter(FACE, EXACT).fit(seen(FACE, torch.zeros(1, 5), torch.zeros(1, 52), angles(**pose)))
    found = view_angles(fit.camera)
    for name in ("yaw", "pitch", "roll"):
        assert getattr(found, f"{name}_deg").item() == pytest.approx(pose.get(name, 0.0), abs=0.3)
    assert fit.residual.item() < 1e-3
    assert bool(fit.is_converged)


def test_identity_and_expression_are_recovered_together():
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(8, 5, generator=generator)
    expression = torch.rand(8, 52, generator=generator) * (torch.rand(8, 52, generator=generator) < 0.3)
    camera = orbit(*(20 * torch.randn(8, generator=generator) for _ in range(2)))
    fit = HeadFitter(FACE, EXACT).fit(seen(FACE, identity, expression, camera))
    assert torch.allclose(fit.identity, identity, atol=0.15)
    assert (fit.expression - expression).abs().median() < 0.02
    assert fit.expression.min() >= 0
    assert fit.expression.max() <= 1
    modelled, _ = project(FACE.points(fit.identity, fit.expression), fit.camera)
    assert torch.allclose(modelled, fit.points, atol=1e-5)


def test_faces_of_a_batch_do_not_disturb_each_other():
    landmarks = seen(FACE, torch.zeros(3, 5), torch.zeros(3, 52), orbit(torch.tensor([0.0, 20, -20]), torch.zeros(3)))
    broken = Seen(landmarks.points.clone())
    broken.points[1] = torch.nan
    fitter = HeadFitter(FACE, EXACT)
    whole, with_gap = fitter.fit(landmarks), fitter.fit(broken)
    assert with_gap.is_converged.tolist() == [True, False, True]
    assert torch.allclose(whole.camera[[0, 2]], with_gap.camera[[0, 2]], atol=1e-4)


def test_what_is_no_face_does_not_converge():
    noise = Seen(torch.rand(4, 478, 2, generator=torch.Generator().manual_seed(0)))
    assert not bool(HeadFitter(FACE).fit(noise).is_converged.any())


def test_frames_of_one_person_share_identity():
    generator = torch.Generator().manual_seed(5)
    identity = torch.randn(1, 5, generator=generator).expand(30, 5)
    expression = torch.rand(30, 52, generator=generator) * (torch.rand(30, 52, generator=generator) < 0.2)
    landmarks = seen(FACE, identity, expression, orbit(torch.linspace(-20, 20, 30), torch.zeros(30)))
    fit = HeadFitter(FACE, EXACT).fit_track(landmarks, max_identity_frames=8)
    assert torch.equal(fit.identity, fit.identity[:1].expand(30, 5))
    assert torch.allclose(fit.identity[0], identity[0], atol=0.15)
    assert bool(fit.is_converged.all())


def test_gradient_is_that_of_the_cost():
    landmarks = seen(FACE, torch.ones(2, 5), torch.full((2, 52), 0.3), orbit(torch.tensor([10.0, -5]), torch.zeros(2)))
    settings = FitSettings()
    energy = LandmarkEnergy(
        points=FACE.mean[None], basis=FACE.expression_basis, weight=FACE.weight * torch.tensor([[1.0], [0.5]]),
        observed=observed_points(landmarks.points), pupil_distance=0.17, lower=torch.zeros(52), upper=torch.ones(52),
        prior=torch.full((52,), 4.0), sparsity=torch.full((52,), 0.3), settings=settings,
        expected=torch.tensor([[0.2], [0.6]]).expand(2, 52),
    )  # fmt: skip
    rows = torch.arange(2)
    rotation = torch.tensor([1.0, 0, 0, 0, -1, 0, 0, 0, -1]).expand(2, 9)
    parameters = torch.cat([rotation, torch.tensor([[0.01, -0.02, 2.6]]).expand(2, 3), torch.full((2, 52), 0.4)], dim=1)
    step = torch.zeros(2, 58, requires_grad=True)
    retract = energy.problem().retract
    expected = torch.autograd.grad(energy.cost(retract(parameters, step), rows).sum(), step)[0]
    model = energy.linearise(parameters, rows)
    assert torch.allclose(model.gradient, expected, rtol=1e-3, atol=1e-2)


def test_landmarks_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="478"):
        observed_points(torch.zeros(1, 68, 2))
