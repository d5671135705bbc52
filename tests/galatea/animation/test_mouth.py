"""The photo's own teeth stay with the skull while the lips move over them."""

import pytest
import torch

from galatea.animation.mouth import PhotoMouth, TeethArch, is_open, teeth_arch
from galatea.cameras import orbit, project
from galatea.eg3d.head_cast import HeadCaster
from galatea.eg3d.posing import Pose, own_angles, pose_rays
from galatea.eg3d.view_planes import Box
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.atlas import BOXES
from galatea.morphable.head import HeadCoefficients, HeadModel

SIZE = 64


@pytest.fixture(scope="module")
def mesh():
    return HeadModel.load()


def test_the_arch_is_the_front_of_the_teeth_and_the_same_on_both_sides(mesh):
    arch = teeth_arch(mesh, mesh.mean[None])
    teeth = mesh.mean[mesh.faces[mesh.part == mesh.part_names.index("teeth")].flatten()]
    front = teeth[teeth[:, 0].abs() < 0.01, 2].max()
    assert abs(float(arch.top) - float(front)) < 0.006
    assert abs(float(arch.middle)) < 1e-4
    assert float(arch.bend) > 0


def test_rays_meet_the_arch_on_it():
    arch = TeethArch(torch.tensor([0.01]), torch.tensor([0.23]), torch.tensor([8.0]))
    rays = pose_rays(Pose.of_photo(orbit(torch.tensor([15.0]), torch.tensor([5.0]))), 8)
    points = arch.meet(rays.origins.expand_as(rays.directions), rays.directions)[0]
    is_near = (points[:, 0] - 0.01).abs() < 0.1
    surface = 0.23 - 8.0 * (points[:, 0] - 0.01).square()
    assert is_near.any()
    assert torch.allclose(points[is_near, 2], surface[is_near], atol=1e-4)


@pytest.mark.parametrize("yaw", [0.0, 15.0])
def test_a_tooth_is_seen_where_it_went_and_nothing_where_the_photo_s_mouth_was_shut(mesh, yaw):
    camera = orbit(torch.zeros(1), torch.zeros(1))
    arch = teeth_arch(mesh, mesh.mean[None])
    tooth = torch.stack([torch.zeros(1), torch.tensor([-0.07]), arch.top], -1)[None]
    ((column, row),) = (project(tooth, camera)[0][0] * SIZE).long().tolist()
    layer, inside = torch.zeros(1, 4, SIZE, SIZE), torch.zeros(1, 1, SIZE, SIZE)
    layer[..., row - 1 : row + 2, column - 1 : column + 2] = 1
    inside[..., row - 3 : row + 4, column - 6 : column + 7] = 1
    mouth = PhotoMouth(layer, inside, arch)
    pose = Pose(camera, own_angles(camera) + torch.tensor([[yaw, 0.0, 0.0]]))
    shown, weight = mouth.seen(pose, torch.ones(1, 1, SIZE, SIZE), SIZE)
    rays = pose_rays(pose, SIZE)
    towards = torch.nn.functional.normalize(tooth - rays.origins, dim=-1)
    at = int((towards * torch.nn.functional.normalize(rays.directions, dim=-1)).sum(-1).argmax())
    assert float((shown * weight)[0, 0].flatten()[at]) > 0.8
    assert float(weight[..., : row - 12, :].max()) == 0
    assert is_open(inside)
    assert not is_open(torch.zeros_like(inside))


@pytest.mark.parametrize("jaw_open", [0.35, 0.8])
def test_an_open_mouth_shows_upper_teeth_and_no_tongue_in_their_place(mesh, jaw_open):
    expression = torch.zeros(1, 52)
    expression[0, ACTION_INDEX["jawOpen"]] = jaw_open
    front = HeadCaster(mesh, Box()).cast(HeadCoefficients(torch.zeros(1, mesh.num_identity), expression), 192).views[0]
    column = front.uv[0, :, front.uv.shape[2] // 2]
    upper, lower, tongue = (_rows(column, BOXES[name]) for name in ("upper_teeth", "lower_teeth", "tongue"))
    assert len(upper) >= 2
    assert len(upper) > len(lower)
    assert not len(tongue) or tongue.max() < upper.min()


def _rows(column, rectangle):
    """Rows of the front view, which count upwards, where a part is seen."""
    left, bottom, right, top = rectangle
    inside = (column[:, 0] > left) & (column[:, 0] < right) & (column[:, 1] > bottom) & (column[:, 1] < top)
    return torch.nonzero(inside)[:, 0]
