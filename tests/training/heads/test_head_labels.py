"""Labels: where landmarks and irises lie, where eyes look, and what is visible."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from galatea.cameras import orbit, project
from galatea.morphable.actions import action_vector
from galatea.morphable.correspondence import load_correspondence
from galatea.morphable.head import HeadModel
from training.heads import labels
from training.heads.people import HeadSample, sample_head
from training.heads.renderer import HeadRenderer, Picture

NOSE_TIP, LEFT_CHEEK, RIGHT_CHEEK = 4, 425, 205


@pytest.fixture(scope="module")
def iris(head: HeadModel) -> labels.IrisPoints:
    return labels.iris_points(head)


def camera(yaw_deg: float) -> np.ndarray:
    return orbit(torch.tensor([yaw_deg]), torch.zeros(1))[0].numpy()


def seen(renderer: HeadRenderer, yaw_deg: float, size: int = 128, **actions: float) -> tuple[HeadSample, Picture]:
    sample = sample_head(12, 0, 1, renderer.model, renderer.assets)
    person = replace(sample.person, hair="", identity=np.zeros_like(sample.person.identity))
    expression = action_vector(actions).numpy().astype(np.float32)
    sample = replace(sample, person=person, expression=expression, cameras=camera(yaw_deg)[None])
    return sample, renderer.render(sample, size)[0]


def test_iris_points_lie_on_the_rim_of_the_drawn_iris_in_facemesh_order(
    head: HeadModel, iris: labels.IrisPoints
) -> None:
    points, centres = iris.points(head.mean[None])[0].reshape(2, 5, 3), head.eye_centres(head.mean[None])[0].flip(0)
    rays = torch.nn.functional.normalize(points - centres[:, None], dim=-1)
    torch.testing.assert_close(rays[..., 2].arccos()[:, 1:], torch.full((2, 4), labels.IRIS_ANGLE), atol=2e-3, rtol=0)
    assert rays[:, 0, 2].min() > 0.9999
    assert points[0, 0, 0] < 0 < points[1, 0, 0], "the image-left eye, the person's right one, comes first"
    for eye, towards_nose in enumerate((1, -1)):
        right, up, left, down = (points[eye, 1:, :2] - points[eye, 0, :2]).unbind(0)
        assert right[0] * towards_nose > 0 > left[0] * towards_nose
        assert up[1] > 0 > down[1]


def test_the_average_head_looks_ahead_and_actions_turn_the_eyes(head: HeadModel, iris: labels.IrisPoints) -> None:
    names = ("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft")
    expression = torch.stack([torch.zeros(52), *(action_vector({name: 1.0}) for name in names)])
    ahead, left, right, up = labels.gaze(head, iris, head.vertices(torch.zeros(4, head.num_identity), expression))
    torch.testing.assert_close(ahead, torch.tensor([[0.0, 0, 1]] * 2), atol=3e-3, rtol=0)
    assert left[1, 0] > 0.2
    assert right[0, 0] < -0.2
    assert up[1, 1] > 0.1
    assert left[0, 0] == pytest.approx(0, abs=3e-3), "the other eye stays"


def test_directions_in_the_camera_frame_are_right_down_and_away() -> None:
    label = torch.from_numpy(camera(90.0))[None]
    world = torch.tensor([[[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]])
    expected = torch.tensor([[[0.0, 0, 1], [0, -1, 0], [1, 0, 0]]])
    torch.testing.assert_close(labels.to_camera_frame(world, label), expected, atol=1e-6, rtol=0)


def test_ray_distance_of_a_sphere_around_the_camera_is_its_radius() -> None:
    label = camera(0.0)
    x = ((np.arange(8) + 0.5) / 8 - 0.5) / label[16]
    sphere = 2 / np.sqrt(1 + x[None] ** 2 + x[:, None] ** 2)
    sphere[0, 0] = 0
    distance = labels.ray_distance(sphere, label)
    assert distance[0, 0] == 0
    np.testing.assert_allclose(distance[1:, 1:], 2, rtol=1e-6)


def test_landmarks_are_where_the_renderer_puts_them_and_carry_gradients(
    renderer: HeadRenderer, head: HeadModel, iris: labels.IrisPoints
) -> None:
    sample, picture = seen(renderer, 20.0)
    expression = torch.from_numpy(sample.expression)[None].requires_grad_()
    vertices = head.vertices(torch.from_numpy(sample.person.identity)[None], expression)
    found = labels.landmarks(iris, load_correspondence(), vertices, torch.from_numpy(sample.cameras))
    np.testing.assert_allclose(found[0].detach(), picture.landmarks, atol=1e-5)
    found.sum().backward()
    assert expression.grad is not None
    assert expression.grad.abs().max() > 0


def test_visible_landmarks_have_the_depth_of_the_picture(
    renderer: HeadRenderer, head: HeadModel, iris: labels.IrisPoints
) -> None:
    sample, picture = seen(renderer, 45.0)
    vertices = head.vertices(torch.from_numpy(sample.person.identity)[None], torch.from_numpy(sample.expression)[None])
    points = labels.landmark_points(iris, load_correspondence(), vertices)
    _, reach = project(points, torch.from_numpy(sample.cameras))
    row, column = np.floor(picture.landmarks[picture.is_visible].T[::-1] * 128).astype(int)
    assert np.median(np.abs(picture.depth[row, column] - reach[0].numpy()[picture.is_visible])) < 0.004


def test_the_far_cheek_and_irises_under_closed_lids_are_hidden(renderer: HeadRenderer) -> None:
    _, ahead = seen(renderer, 0.0)
    _, turned = seen(renderer, 60.0)
    _, asleep = seen(renderer, 0.0, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    assert ahead.is_visible[[NOSE_TIP, LEFT_CHEEK, RIGHT_CHEEK, 468, 473]].all()
    assert turned.is_visible[LEFT_CHEEK]
    assert not turned.is_visible[RIGHT_CHEEK]
    assert not asleep.is_visible[[468, 473]].any()


def test_normals_have_unit_length_and_face_the_camera(renderer: HeadRenderer) -> None:
    _, picture = seen(renderer, 30.0)
    is_skin = picture.part == 1
    lengths = np.linalg.norm(picture.normal[is_skin], axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-4)
    assert (picture.normal[is_skin][:, 2] < 0.2).mean() > 0.98
    assert (picture.normal[picture.part == 0] == 0).all()
