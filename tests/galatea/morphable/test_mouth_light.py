"""The inside of a mouth gets the light that comes in between the lips."""

import pytest
import torch

from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.head import HeadModel
from galatea.morphable.mouth_light import inside_vertices, mouth_shade


@pytest.fixture(scope="module")
def mesh():
    return HeadModel.load()


def test_lips_belong_to_the_outside(mesh):
    inside = inside_vertices(mesh)[:, 0]
    assert 0 < inside.mean() < 0.2
    skin = mesh.faces[mesh.part == mesh.part_names.index("skin")]
    assert inside[skin.flatten()].max() == 0


def test_a_mouth_is_darker_farther_back_and_lighter_when_it_opens(mesh):
    expression = torch.zeros(2, 52)
    expression[:, ACTION_INDEX["jawOpen"]] = torch.tensor([0.2, 0.8])
    vertices = mesh.vertices(torch.zeros(2, mesh.num_identity), expression)
    shade = mouth_shade(mesh, vertices)
    inside = inside_vertices(mesh)[:, 0] > 0
    assert shade[:, ~inside].max() == 0
    assert shade.max() < 1
    teeth, tongue, throat = (_inside(mesh, inside, name) for name in ("teeth", "tongue", "mouth"))
    front, tip = (part[mesh.mean[part, 2].argsort()[-8:]] for part in (teeth, tongue))
    back = throat[mesh.mean[throat, 2].argsort()[:8]]
    means = [shade[:, part].mean((1, 2)) for part in (front, tip, back)]
    assert (means[0] < means[1]).all()
    assert (means[1] < means[2]).all()
    assert (shade[1, tip] < shade[0, tip]).all()
    assert means[0].max() < 0.2  # front teeth lean against the lips
    # What walls send back is red.
    assert (shade[:, back, 0] < shade[:, back, 2]).all()


def _inside(mesh, inside, name):
    vertices = torch.unique(mesh.faces[mesh.part == mesh.part_names.index(name)])
    return vertices[inside[vertices]]
