"""MediaPipe's landmarks sit on the face, follow it, and carry gradients."""

import math

import numpy as np
import pytest
import torch

from galatea.faces.landmarks import EYE_POINTS, five_points
from galatea.faces.packs import FacePack
from galatea.faces.regions import Regions, around_points

pytestmark = pytest.mark.weights


def test_points_are_in_mediapipe_order(mesh_pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    with torch.no_grad():
        found = mesh_pack.landmarks(astronaut_crop)
    points = found.points[0]
    assert points.shape == (478, 2)
    assert found.depth.shape == (1, 468)
    assert found.confidence.item() > 0.9
    assert points[33, 0] < points[133, 0] < points[362, 0] < points[263, 0]
    assert points[10, 1] < points[4, 1] < points[13, 1] < points[152, 1]
    assert points[61, 0] < points[291, 0]
    assert found.depth[0, 4] < found.depth[0, [234, 454]].min()
    for iris, corners in ((468, (33, 133)), (473, (362, 263))):
        assert points[corners[0], 0] < points[iris, 0] < points[corners[1], 0]
        radius = (points[iris + 1 : iris + 5] - points[iris]).norm(dim=1)
        assert 0.005 < radius.mean() < 0.03


def test_irises_are_dark_and_centred(mesh_pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    with torch.no_grad():
        points = mesh_pack.landmarks(astronaut_crop).points[0]
    for iris in (468, 473):
        x, y = (points[iris] * 512).round().int().tolist()
        around = astronaut_crop[0, :, y - 20 : y + 21, x - 20 : x + 21].mean(0)
        assert around[18:23, 18:23].mean() < around.mean() - 0.2


@pytest.mark.parametrize("angle", [-40.0, 25.0])
def test_landmarks_turn_with_the_face(mesh_pack: FacePack, astronaut_crop: torch.Tensor, angle: float) -> None:
    region = Regions(torch.full((1, 2), 0.5), torch.ones(1), torch.tensor([math.radians(angle)]))
    with torch.no_grad():
        upright = mesh_pack.landmarks(astronaut_crop).points
        turned = region.to_image(mesh_pack.landmarks(region.cut(astronaut_crop, 512)).points)
    eyes = (upright[0, 468] - upright[0, 473]).norm()
    assert (turned - upright).norm(dim=-1).median() < 0.05 * eyes


def test_mirrored_face_has_mirrored_irises(mesh_pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    with torch.no_grad():
        points = mesh_pack.landmarks(torch.cat([astronaut_crop, astronaut_crop.flip(3)])).points
    mirrored = torch.stack([1 - points[1, :, 0], points[1, :, 1]], -1)
    eyes = (points[0, 468] - points[0, 473]).norm()
    assert (mirrored[[473, 468]] - points[0, [468, 473]]).norm(dim=1).max() < 0.05 * eyes


def test_crops_in_a_batch_do_not_mix(mesh_pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    blank = torch.zeros_like(astronaut_crop)
    with torch.no_grad():
        alone = mesh_pack.landmarks(astronaut_crop)
        together = mesh_pack.landmarks(torch.cat([blank, astronaut_crop, astronaut_crop.flip(3)]))
    assert together.confidence[0] < 0.5
    assert torch.allclose(together.points[1], alone.points[0], atol=1e-4)


def test_gradients_reach_the_crop(mesh_pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    crop = astronaut_crop.clone().requires_grad_()
    points = mesh_pack.landmarks(crop).points
    for part in (points[:, :468], points[:, 468:]):
        (gradient,) = torch.autograd.grad(part.sum(), crop, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_five_points_are_eyes_nose_and_mouth() -> None:
    points = torch.zeros(1, 478, 2)
    for eye, place in zip(EYE_POINTS, (0.3, 0.7), strict=True):
        points[0, list(eye[:16])] = torch.tensor([place, 0.4])
    points[0, 4], points[0, 61], points[0, 291] = (torch.tensor(p) for p in ((0.5, 0.55), (0.4, 0.7), (0.6, 0.7)))
    expected = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]]
    assert np.allclose(five_points(points)[0].numpy(), expected, atol=1e-6)


def test_regions_cut_and_return() -> None:
    generator = torch.Generator().manual_seed(1)
    regions = Regions(
        torch.tensor([[0.4, 0.6], [0.5, 0.5]]),
        torch.tensor([0.3, 0.8]),
        torch.tensor([0.7, -0.2]),
        torch.tensor([True, False]),
    )
    points = torch.rand(2, 9, 2, generator=generator)
    assert torch.allclose(regions.to_region(regions.to_image(points)), points, atol=1e-6)
    whole = Regions(torch.full((1, 2), 0.5), torch.ones(1), torch.zeros(1))
    image = torch.rand(1, 3, 16, 16, generator=generator)
    assert torch.allclose(whole.cut(image, 16), image, atol=1e-5)
    mirror = Regions(torch.full((1, 2), 0.5), torch.ones(1), torch.zeros(1), torch.tensor([True]))
    assert torch.allclose(mirror.cut(image, 16), image.flip(3), atol=1e-5)


def test_region_around_points_lies_along_the_line() -> None:
    turn = torch.tensor([[math.cos(0.5), math.sin(0.5)], [-math.sin(0.5), math.cos(0.5)]])
    points = torch.tensor([[-0.2, -0.1], [0.2, -0.1], [0.2, 0.1], [-0.2, 0.1]]) @ turn + 0.5
    region = around_points(points[None], points[None, 0], points[None, 1], 1.5)
    assert torch.allclose(region.centre, torch.full((1, 2), 0.5), atol=1e-6)
    assert region.side.item() == pytest.approx(0.6)
    assert region.angle.item() == pytest.approx(0.5)
