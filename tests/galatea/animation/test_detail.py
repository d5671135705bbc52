"""Detail of a photo is carried to where the same surface is seen, and nowhere else."""

import pytest
import torch

from galatea.animation.detail import (
    CarriedDetail,
    carry_detail,
    enlarge_lookup,
    find_jumps,
    make_detail,
    without_cracks,
)
from galatea.animation.origins import HeadMesh, motion_from_beside
from galatea.cameras import PIVOT, orbit
from galatea.eg3d.posing import Pose
from galatea.eg3d.seen_surface import fill_unseen, see_surface

SIZE = 96


@pytest.fixture
def camera():
    return orbit(torch.zeros(1), torch.zeros(1))


def pose_at(camera, yaw):
    return Pose(camera, torch.tensor([[yaw, 0.0, 0.0]]))


def head_mesh(faces, vertices):
    """A mesh that is all skin, mirrored as the sphere is."""
    outside, skin = torch.zeros(vertices.shape[1], 1), torch.ones(vertices.shape[1], 1)
    resting = vertices[0]
    mirror = torch.cdist(resting * torch.tensor([-1.0, 1.0, 1.0]), resting).argmin(-1)
    return HeadMesh(faces, vertices, outside, skin, mirror)


def interior(alpha):
    return -torch.nn.functional.max_pool2d(-alpha, 9, 1, 4) > 0.5


def test_the_photo_s_own_view_gets_all_of_the_detail(camera, sphere):
    layer, depth, alpha = sphere.view(pose_at(camera, 0.0), SIZE)
    detail = make_detail(layer, torch.zeros_like(layer), camera, depth, alpha, grid=SIZE)
    carried = carry_detail(detail, pose_at(camera, 0.0), depth, alpha).layer
    where = interior(alpha).expand_as(layer)
    assert torch.allclose(carried[where], layer[where], atol=2e-3)


@pytest.mark.parametrize("yaw", [-20.0, 12.0])
def test_a_turned_view_shows_the_detail_where_the_surface_went(camera, sphere, yaw):
    layer, depth, alpha = sphere.view(pose_at(camera, 0.0), SIZE)
    detail = make_detail(layer, torch.zeros_like(layer), camera, depth, alpha, grid=SIZE)
    turned, turned_depth, turned_alpha = sphere.view(pose_at(camera, yaw), SIZE)
    carried = carry_detail(detail, pose_at(camera, yaw), turned_depth, turned_alpha).layer
    is_seen = (carried[:, 3:] > 0.95) & interior(turned_alpha)
    assert is_seen.float().mean() > 0.5 * turned_alpha.mean()
    assert (carried - turned)[is_seen.expand_as(turned)].abs().max() < 0.08


def test_loose_hair_stays_with_its_outline(camera, sphere):
    layer, depth, alpha = sphere.view(pose_at(camera, 0.0), SIZE)
    ring = torch.nn.functional.max_pool2d(alpha, 5, 1, 2) * (alpha == 0)
    detail = make_detail(torch.cat([layer[:, :3], alpha + ring], 1), layer, camera, depth, alpha, grid=SIZE)
    smaller = -torch.nn.functional.max_pool2d(-alpha, 5, 1, 2)
    beside, apart = (carry_detail(detail, pose_at(camera, 0.0), depth, a).layer[:, 3:] for a in (alpha, smaller))
    assert (beside * ring).sum() > 0.9 * ring.sum()
    assert (apart * ring).sum() < 0.1 * ring.sum()


def test_what_was_at_the_outline_does_not_come_into_the_face(camera, sphere):
    size = 2 * SIZE
    layer, depth, alpha = sphere.view(pose_at(camera, 0.0), size)
    rim = alpha + torch.nn.functional.max_pool2d(-alpha, 5, 1, 2)
    detail = make_detail(layer + rim, layer, camera, depth, alpha, grid=size)
    own = carry_detail(detail, pose_at(camera, 0.0), depth, alpha).layer
    _, turned_depth, turned_alpha = sphere.view(pose_at(camera, 25.0), size)
    turned = carry_detail(detail, pose_at(camera, 25.0), turned_depth, turned_alpha).layer
    assert (own * rim).sum() > 0.9 * 4 * rim.sum()
    inside = interior(interior(turned_alpha).float())
    assert turned[inside.expand_as(turned)].abs().max() < 0.2


def test_what_the_photo_did_not_see_gets_nothing(camera, sphere):
    layer, depth, alpha = sphere.view(pose_at(camera, 0.0), SIZE)
    detail = make_detail(layer, torch.zeros_like(layer), camera, depth, alpha, grid=SIZE)
    _, turned_depth, turned_alpha = sphere.view(pose_at(camera, 40.0), SIZE)
    carried = carry_detail(detail, pose_at(camera, 40.0), turned_depth, turned_alpha).layer
    columns = carried[0, 3].sum(0) / turned_alpha[0, 0].sum(0).clamp_min(1)
    hidden = turned_alpha[0, 0].sum(0).nonzero().flatten()
    # The camera went to +x: the sphere's +x side, unseen by the photo, is on the image's right.
    assert columns[hidden[-10:]].max() < 0.05


def test_the_other_half_of_a_face_gets_the_mirrored_detail(sphere):
    vertices, faces = sphere.mesh()
    mesh, camera = head_mesh(faces, vertices), orbit(torch.tensor([60.0]), torch.zeros(1))
    layer, depth, alpha = sphere.view(Pose.of_photo(camera), SIZE)
    detail = make_detail(layer, torch.zeros_like(layer), camera, depth, alpha, mesh, grid=SIZE)
    _, turned_depth, turned_alpha = sphere.view(pose_at(camera, -60.0), SIZE)
    carried = carry_detail(detail, pose_at(camera, -60.0), turned_depth, turned_alpha, mesh).layer
    # Seen from the other side, everything is the mirror image of the photo; three quarters of it the photo did not see.
    wanted, is_hidden = detail.fine.flip(3), interior(turned_alpha) & (carried[:, 3:] == 0)
    assert is_hidden.float().mean() > 0.5 * turned_alpha.mean()
    error = (carried[:, :3] - wanted).abs() * is_hidden
    assert error.sum() < 0.2 * (wanted.abs() * is_hidden).sum()


def test_the_mesh_moves_detail_with_the_expression(camera, sphere):
    vertices, faces = sphere.mesh()
    layer, depth, alpha = sphere.view(pose_at(camera, 0.0), SIZE)
    resting = head_mesh(faces, vertices)
    detail = make_detail(layer, torch.zeros_like(layer), camera, depth, alpha, resting, grid=SIZE)
    angle = torch.deg2rad(torch.tensor(10.0))
    spin = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1.0]])
    pivot = torch.tensor(PIVOT)
    expressed = (vertices - pivot) @ spin.T + pivot
    turned = head_mesh(faces, expressed)
    carried = carry_detail(detail, pose_at(camera, 0.0), depth, alpha, turned).layer
    rolled, _, _ = sphere.view(Pose(camera, torch.tensor([[0.0, 0.0, 10.0]])), SIZE)
    rolled_back, _, _ = sphere.view(Pose(camera, torch.tensor([[0.0, 0.0, -10.0]])), SIZE)
    is_seen = (carried[:, 3:] > 0.95).expand_as(rolled)
    error = min((carried - target)[is_seen].abs().mean() for target in (rolled, rolled_back))
    assert is_seen.float().mean() > 0.6 * alpha.mean()
    assert error < 0.02


def test_the_mesh_is_seen_at_the_depth_of_the_sphere(camera, sphere):
    vertices, faces = sphere.mesh()
    seen = see_surface(vertices, faces, vertices, pose_at(camera, 15.0), SIZE)
    hit = seen.is_hit[0, 0] > 0
    distance = (seen.values[0].permute(1, 2, 0)[hit] - torch.tensor(PIVOT)).norm(dim=-1)
    _, _, alpha = sphere.view(pose_at(camera, 15.0), SIZE)
    assert (hit.float() - alpha[0, 0]).abs().mean() < 0.02
    assert torch.allclose(distance, torch.tensor(sphere.radius), atol=2e-3)


def test_filling_keeps_what_is_known_and_continues_constants():
    maps, weight = torch.full((1, 2, 17, 17), 3.0), torch.zeros(1, 1, 17, 17)
    weight[..., 4:9, 5:7] = 1
    filled = fill_unseen(maps * weight, weight)
    assert torch.allclose(filled, maps, atol=1e-4)


def test_an_enlarged_lookup_is_smooth_on_a_surface_and_never_between_two():
    columns = (torch.arange(32.0) + 0.5) / 16 - 1
    smooth = torch.stack(torch.meshgrid(columns, columns, indexing="xy"))[None]
    split = smooth.clone()
    split[:, 0, :, 16:] -= 1.5
    finer = (torch.arange(64.0) + 0.5) / 32 - 1
    smooth_jumps, split_jumps = (
        find_jumps(lookup).repeat_interleave(2, 2).repeat_interleave(2, 3) for lookup in (smooth, split)
    )
    assert smooth_jumps.max() == 0
    assert split_jumps[0, 0, 8].nonzero().flatten().tolist() == [30, 31, 32, 33]
    torch.testing.assert_close(enlarge_lookup(smooth, smooth_jumps)[0, 0, 8, 1:-1], finer[1:-1])
    found = enlarge_lookup(split, split_jumps)[0, 0, 8]
    near, far = (found - finer).abs(), (found - (finer - 1.5)).abs()
    assert torch.minimum(near, far).max() < 1 / 32


def test_behind_an_outline_motion_comes_from_what_is_beside_at_the_same_depth():
    depth = torch.full((1, 1, 8, 8), 2.4)
    depth[..., 4:] = 2.7
    motion = torch.zeros(1, 3, 8, 8)
    motion[:, 0, :, :4], motion[:, 1, :, 5:] = 1.0, 2.0
    wanted = torch.zeros(1, 1, 8, 8)
    wanted[..., 4] = 1
    found, is_beside = motion_from_beside(motion, 1 - wanted, wanted, depth)
    torch.testing.assert_close(is_beside, wanted)
    torch.testing.assert_close(found[0, :, :, 4], torch.tensor([0.0, 2.0, 0.0])[:, None].expand(3, 8))


def test_detail_that_comes_to_lie_on_an_opaque_rendering_does_not_shine():
    skin = torch.tensor([0.8, 0.6, 0.5, 1.0])[None, :, None, None].expand(1, 4, 8, 8)
    carried = CarriedDetail(skin, None, torch.zeros(1, 1, 8, 8))
    assert torch.allclose(carried.added_to(skin, 1.0), skin)


def skin(size=32):
    return torch.tensor([0.8, 0.6, 0.5, 1.0])[None, :, None, None].repeat(1, 1, size, size)


def test_a_thin_line_between_rendering_and_detail_is_closed():
    cracked = skin()
    cracked[..., 10] *= 0.5
    assert torch.allclose(without_cracks(cracked), skin(), atol=1e-3)


def test_gaps_outlines_and_what_lies_beyond_them_stay_as_they_are():
    layer = skin()
    layer[..., 6], layer[..., 12:20] = layer[..., 6] * 0.05, layer[..., 12:20] * 0.5
    layer[..., 24:] = torch.tensor([-0.1, 0.05, 0.1, 0.0])[None, :, None, None]
    assert torch.allclose(without_cracks(layer), layer)
