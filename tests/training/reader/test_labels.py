"""Labels of cut, turned and mirrored pictures against the head model and plain projection."""

import numpy as np
import pytest
import torch

from galatea.cameras import orbit, project, view_angles
from galatea.faces.reader import FaceReader
from galatea.faces.reading import FIRST_LOOK, FaceReading, to_portrait
from galatea.faces.regions import Regions
from galatea.morphable.head import HeadModel
from training.heads.labels import iris_points
from training.reader.labels import LabelModel, mirror_label, picture_place, view_of
from training.reader.pictures import similarity

RNG = np.random.default_rng(4)
IDENTITY = RNG.normal(0, 0.8, 100).astype(np.float32)
EXPRESSION = RNG.uniform(0, 0.6, 52).astype(np.float32)


def camera(yaw: float = 20.0, pitch: float = -8.0, roll: float = 5.0) -> np.ndarray:
    return orbit(torch.tensor([yaw]), torch.tensor([pitch]), torch.tensor([roll]))[0].numpy()


def test_baked_points_are_those_of_the_head_model(head: HeadModel, labels: LabelModel) -> None:
    vertices = head.vertices(torch.from_numpy(IDENTITY)[None], torch.from_numpy(EXPRESSION)[None])
    points = torch.from_numpy(labels.points(IDENTITY, EXPRESSION)).float()
    assert torch.allclose(points[468:478], iris_points(head).points(vertices)[0], atol=2e-3)
    assert torch.allclose(points[478:], head.eye_centres(vertices)[0].flip(0), atol=1e-4)


def test_mirrored_head_has_mirrored_points(head: HeadModel, labels: LabelModel) -> None:
    points = labels.points(IDENTITY, EXPRESSION)
    other = labels.points(IDENTITY * head.identity_mirror.numpy(), EXPRESSION[head.action_mirror.numpy()])
    assert np.abs(other[labels.mirror] * [-1, 1, 1] - points[:478]).max() < 1e-3


def test_mirrored_camera_sees_the_mirrored_picture(labels: LabelModel) -> None:
    points = labels.points(IDENTITY, EXPRESSION)
    straight = view_of(camera(), np.eye(2, 3)).project(points)
    mirrored = view_of(mirror_label(camera()), np.eye(2, 3)).project(points * [-1, 1, 1])
    assert np.allclose(mirrored, straight * [-1, 1] + [1, 0], atol=1e-6)


def test_view_of_a_region_is_projection_then_the_cut(labels: LabelModel) -> None:
    points, label = labels.points(IDENTITY, EXPRESSION), camera()
    centre, side = picture_place(label)
    to_region = similarity(centre + 0.03, side * 1.1, np.radians(12))
    image = project(torch.from_numpy(points).float()[None], torch.from_numpy(label)[None])[0][0].numpy()
    view = view_of(label, to_region)
    assert np.allclose(view.project(points), image @ to_region[:, :2].T + to_region[:, 2], atol=1e-4)
    regions = Regions(torch.from_numpy(centre + 0.03)[None], torch.tensor([side * 1.1]), torch.tensor([np.radians(12)]))
    assert np.allclose(regions.to_region(torch.from_numpy(image).double()[None])[0], view.project(points), atol=1e-4)
    assert view.log_scale == pytest.approx(-np.log(1.1))


@pytest.mark.parametrize("angle", [0.0, 17.0])
def test_pose_in_a_region_leads_back_to_the_cameras(angle: float) -> None:
    label = camera()
    centre, side = picture_place(label)
    middle = centre + np.array([0.05, -0.04])
    view = view_of(label, similarity(middle, side, np.radians(angle)))
    regions = Regions(
        torch.from_numpy(middle).float()[None], torch.tensor([side]).float(), torch.tensor([np.radians(angle)]).float()
    )
    rotation = to_portrait(regions) @ torch.from_numpy(view.rotation).float()
    empty = torch.zeros(1)
    reading = FaceReading(empty, empty, empty, empty, rotation, empty)
    true = view_angles(torch.from_numpy(label)[None])
    expected = [true.yaw_deg.item(), true.pitch_deg.item(), true.roll_deg.item()]
    assert reading.angles_deg()[0].tolist() == pytest.approx(expected, abs=0.05)


def test_the_reader_looks_first_where_portrait_crops_have_their_face() -> None:
    centre, side = picture_place(camera(0.0, 0.0, 0.0))
    assert [*centre, side] == pytest.approx(FIRST_LOOK, abs=2e-3)
    eyes, chin = FaceReader.load().first.mean_points[[33, 152], 1].tolist()
    assert eyes > 0.15
    assert chin < 0.95
