"""Clothes cover the skin below a neckline, in one colour."""

import pytest
import torch

from galatea.eg3d.clothes import Clothes, neckline_cover
from galatea.morphable.head import HeadModel


@pytest.fixture(scope="module")
def mesh():
    return HeadModel.load()


def test_a_neckline_covers_what_lies_below_it():
    places = torch.tensor([[0.0, -0.5, 0.05], [0.0, -0.3, 0.05], [0.0, 0.1, 0.05]])
    assert neckline_cover(places, torch.tensor(0.0), torch.tensor(0.0)).tolist() == [1, 0, 0]
    assert neckline_cover(places, torch.tensor(1.0), torch.tensor(0.0)).tolist() == [1, 1, 0]


def test_a_tilted_neckline_is_higher_at_the_nape():
    nape, throat = torch.tensor([0.0, -0.25, -0.1]), torch.tensor([0.0, -0.25, 0.2])
    height, tilt = torch.tensor(0.5), torch.tensor(0.5)
    assert neckline_cover(nape, height, tilt) > neckline_cover(throat, height, tilt)


def test_heads_are_bare_before_anything_is_learned(mesh):
    clothes, reflectance = Clothes(8, mesh, 32), torch.rand(1, 3, 32, 32)
    assert torch.equal(clothes(torch.randn(1, 8), reflectance), reflectance)


def test_clothes_take_their_colour_and_leave_the_face(mesh):
    clothes, reflectance = Clothes(8, mesh, 64), torch.full((1, 3, 64, 64), 0.5)
    with torch.no_grad():
        clothes.read.bias.copy_(torch.tensor([0.1, 0.9, 0.2, 0.0, 0.0]))
    dressed = clothes(torch.zeros(1, 8), reflectance)[0].permute(1, 2, 0)
    is_low, is_face = clothes.places[..., 1] < -0.45, clothes.places[..., 1] > -0.15
    assert is_low.any()
    torch.testing.assert_close(dressed[is_low], torch.tensor([0.1, 0.9, 0.2]).expand(int(is_low.sum()), 3))
    assert (dressed[is_face] == 0.5).all()
