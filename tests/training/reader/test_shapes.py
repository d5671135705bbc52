"""Heads that nobody rendered: they are seen where rendered ones are, and what they do is learned from their shape."""

import numpy as np
import pytest
import torch

from galatea.faces.weighing import Weighing
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.head import HeadModel
from training.reader import shapes as module
from training.reader.labels import LabelModel, mean_points, picture_place, view_of
from training.reader.pictures import similarity
from training.reader.render import tight_cameras
from training.reader.shapes import Misreadings, Shapes, sample_shapes
from training.reader.train_weighing import train_shape


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return sample_shapes(600, 3)


def test_a_shape_is_seen_where_labels_of_a_render_put_it(labels: LabelModel) -> None:
    rng = np.random.default_rng(0)
    cameras = tight_cameras(rng, 5)
    rotation, distance = module._upright(cameras, np.random.default_rng(1))
    rolls = np.random.default_rng(1).normal(0, module.ROLL, 5)
    world = torch.from_numpy(labels.mean[:478]).float().expand(5, -1, -1)
    seen = module._seen(world, rotation, distance)
    for camera, roll, points in zip(cameras, rolls, seen, strict=True):
        centre, side = picture_place(camera)
        level = view_of(camera, similarity(centre, side, 0.0)).rotation
        view = view_of(camera, similarity(centre, side, float(np.arctan2(level[1, 0], level[0, 0]) + roll)))
        expected = (view.project(labels.mean[:478]) - view.centre) / np.exp(view.log_scale) + 0.5
        np.testing.assert_allclose(points.numpy(), expected, atol=2e-3)


def test_the_same_seed_draws_the_same_people(shapes: Shapes) -> None:
    again = sample_shapes(600, 3)
    assert torch.equal(shapes.points, again.points)
    assert torch.equal(shapes.actions, again.actions)
    assert not torch.equal(sample_shapes(600, 4).points, again.points)


def test_heads_are_misread_as_those_that_are_turned_as_far() -> None:
    yaw = torch.linspace(-1, 1, 2001)
    rotation = torch.eye(3).repeat(2001, 1, 1)
    rotation[:, 0, 2] = torch.sin(yaw)
    moves = yaw[:, None, None].expand(-1, 478, 2)
    rows = {"points": 0.5 + moves, "true_points": torch.full_like(moves, 0.5), "rotation": rotation}
    drawn = Misreadings.of(rows).draw(rotation[::100], torch.Generator().manual_seed(0))
    assert (drawn[:, 0, 0] - yaw[::100]).abs().max() < 0.05


def test_open_jaws_are_learned_from_shapes_alone(head: HeadModel, shapes: Shapes) -> None:
    torch.manual_seed(0)
    weighing = Weighing(torch.from_numpy(mean_points(head)))
    none = Misreadings(torch.zeros(10, 478, 2), torch.linspace(-1, 1, 10))
    train_shape(weighing, shapes, none, 150, seed=1)
    other = sample_shapes(200, 9)
    with torch.no_grad():
        guess = weighing.shape(weighing.shape_of(other.points, other.rotation))
    jaw = ACTION_INDEX["jawOpen"]
    assert torch.corrcoef(torch.stack([guess[:, jaw], other.actions[:, jaw]]))[0, 1] > 0.8
