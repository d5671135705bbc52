"""Skulls of heads: where hair that hangs on all of a head has to follow."""

import pytest
import torch

from galatea.eg3d.fusion import Boxes, align_static
from galatea.eg3d.head_cast import HeadCaster
from galatea.eg3d.view_planes import Box
from galatea.morphable.head import HeadModel


@pytest.fixture(scope="module")
def mesh():
    return HeadModel.load()


@pytest.fixture(scope="module")
def caster(mesh):
    return HeadCaster(mesh, Box())


def test_skulls_follow_the_head_s_own_stretch(mesh, caster):
    identity = 1.5 * torch.randn(6, mesh.num_identity, generator=torch.Generator().manual_seed(2))
    mean, skull = caster.measure_skull(torch.zeros(1, mesh.num_identity))[0], caster.measure_skull(identity)
    heads = caster.box.enter(mesh.vertices(identity, torch.zeros(6, 52)).float())[:, caster.upper_vertices]
    rest = caster.box.enter(mesh.mean[caster.upper_vertices].float())
    carried = skull[:, None, :, 0] + (rest - mean[:, 0]) * (skull[:, :, 1] / mean[:, 1])[:, None]
    error = (carried - heads).square().mean(1)
    for axis in range(3):
        for scale, shift in ((1.02, 0.0), (0.98, 0.0), (1.0, 0.01), (1.0, -0.01)):
            other = ((carried - carried.mean(1, keepdim=True)) * scale + carried.mean(1, keepdim=True) + shift)[
                ..., axis
            ]
            assert (error[:, axis] < (other - heads[..., axis]).square().mean(1)).all()


def test_static_planes_keep_their_place_on_the_mean_head(mesh, caster):
    skull = caster.measure_skull(torch.zeros(1, mesh.num_identity))
    small = Box(caster.box.centre, caster.box.half / 2)
    static = torch.zeros(1, 1, 16, 16)
    static[..., 8, 8] = 1
    same = align_static(static, Boxes(caster.box, caster.box, skull[0]), skull, 0, 16)
    torch.testing.assert_close(same, static, atol=1e-4, rtol=0)
    # A static cube of half the size fills the middle half of the plane.
    inner = align_static(static, Boxes(caster.box, small, skull[0]), skull, 0, 32)
    torch.testing.assert_close(inner[..., 8:24, 8:24], static, atol=1e-4, rtol=0)


def test_boxes_relate(caster):
    other, point = Box((0.1, -0.2, 0.3), 0.3), torch.tensor([0.05, -0.1, 0.2])
    for axis in range(3):
        scale, shift = caster.box.relate(other, axis)
        torch.testing.assert_close(caster.box.enter(point)[axis] * scale + shift, other.enter(point)[axis])
