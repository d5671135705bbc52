"""Orthographic casts of meshes: analytic shapes, one axis at a time."""

import math

import pytest
import torch

from galatea.eg3d.carry import VIEWS, MeshTopology, ViewCast, cast_views, spread_depth, winning_triangles

SIZE = 32


def sphere(radius=0.5, rings=24):
    """Vertices and outward, counter-clockwise triangles of a sphere; uv = (longitude, latitude)."""
    theta = torch.linspace(0, math.pi, rings)
    phi = torch.linspace(0, 2 * math.pi, 2 * rings + 1)
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    vertices = radius * torch.stack([t.sin() * p.sin(), t.cos(), t.sin() * p.cos()], -1).reshape(-1, 3)
    uv = torch.stack([p / (2 * math.pi), 1 - t / math.pi], -1).reshape(-1, 2)
    row, column = torch.meshgrid(torch.arange(rings - 1), torch.arange(2 * rings), indexing="ij")
    a = (row * (2 * rings + 1) + column).flatten()
    b, c, d = a + 1, a + 2 * rings + 1, a + 2 * rings + 2
    faces = torch.cat([torch.stack([a, c, b], 1), torch.stack([b, c, d], 1)])
    return vertices, MeshTopology(faces, uv[faces])


def all_views(vertices, topology):
    return cast_views(vertices, vertices.detach() * 0.5, topology, [SIZE] * len(VIEWS))


@pytest.fixture(scope="module")
def casts():
    vertices, topology = sphere()
    return all_views(vertices[None], topology)


def texel_coordinates():
    places = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    return torch.meshgrid(places, places, indexing="ij")


@pytest.mark.parametrize("index", range(len(VIEWS)))
def test_every_view_of_a_sphere_sees_its_near_half(casts, index):
    rows, columns = texel_coordinates()
    inner = rows**2 + columns**2 < 0.45**2
    seen = casts[index]
    assert seen.mask[0][inner].all()
    assert not seen.mask[0][rows**2 + columns**2 > 0.5**2].any()
    expected = (0.25 - rows**2 - columns**2).clamp_min(0).sqrt()
    assert (seen.surface[0, ..., 1] - expected)[inner].abs().max() < 0.02


@pytest.mark.parametrize("index", range(len(VIEWS)))
def test_normals_of_a_sphere_point_outwards(casts, index):
    view = VIEWS[index]
    rows, columns = texel_coordinates()
    inner = rows**2 + columns**2 < 0.4**2
    normal = casts[index].normal[0]
    assert (normal[..., view.column_axis] * 0.5 - columns)[inner].abs().max() < 0.03
    assert (normal[..., view.row_axis] * 0.5 - rows)[inner].abs().max() < 0.03
    assert casts[index].surface[0, ..., 2][inner].min() > 0.5


def test_shade_is_interpolated(casts):
    rows, columns = texel_coordinates()
    inner = rows**2 + columns**2 < 0.4**2
    shade = casts[0].shade[0]
    assert (shade[..., 0] - 0.5 * columns)[inner].abs().max() < 0.02
    assert (shade[..., 1] - 0.5 * rows)[inner].abs().max() < 0.02


def test_uv_is_interpolated():
    vertices = torch.tensor([[-0.9, -0.9, 0.1], [0.9, -0.9, 0.1], [-0.9, 0.9, 0.1]])
    topology = MeshTopology(torch.tensor([[0, 1, 2]]), torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]))
    front = all_views(vertices[None], topology)[0]
    rows, columns = texel_coordinates()
    mask = front.mask[0] > 0
    assert mask.sum() > 300
    assert torch.allclose(front.uv[0, ..., 0][mask], ((columns + 0.9) / 1.8)[mask], atol=1e-5)
    assert torch.allclose(front.uv[0, ..., 1][mask], ((rows + 0.9) / 1.8)[mask], atol=1e-5)


def test_the_outermost_triangle_wins_and_ties_are_settled():
    points = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).repeat(3, 1)[None]
    depth = torch.tensor([[0.1] * 3 + [0.4] * 3 + [0.4] * 3])
    faces = torch.arange(9).view(3, 3)
    assert winning_triangles(points, depth, faces, (10, 10))[0, 2, 2] == 2
    assert winning_triangles(points, depth, faces[:2], (10, 10))[0, 2, 2] == 1


def test_back_faces_and_what_lies_outside_are_not_seen():
    points = torch.tensor([[[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [20.0, 20.0], [29.0, 20.0], [20.0, 29.0]]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert (winning_triangles(points, torch.zeros(1, 6), faces, (10, 10)) == -1).all()


def test_a_batch_gives_what_its_members_give(casts):
    vertices, topology = sphere()
    both = all_views(torch.stack([vertices, vertices * 0.8]), topology)
    assert torch.equal(both[1].uv[0], casts[1].uv[0])
    assert both[1].mask[1].sum() < both[1].mask[0].sum()


def test_depth_has_gradients_in_the_vertices():
    vertices, topology = sphere()
    vertices = vertices[None].clone().requires_grad_(True)
    front = all_views(vertices, topology)[0]
    (front.surface[..., 1] * front.mask).sum().backward()
    assert torch.isfinite(vertices.grad).all()
    assert vertices.grad[..., 2].sum() > 1


def test_depth_continues_two_texels():
    depth = torch.zeros(1, 7, 7)
    depth[0, 3, 3] = 0.5
    mask = depth > 0
    spread = spread_depth(depth, mask)
    assert (spread[0, 1:6, 1:6] == 0.5).all()
    assert (spread[0, 0] == -1).all()


def test_only_where_a_view_looks_into_a_mouth_is_it_told_what_stands_in_front():
    shade, surface = torch.zeros(1, 12, 12, 3), torch.zeros(1, 12, 12, 3)
    shade[:, 4:8, 4:8] = 0.5
    surface[..., 1] = 0.6
    surface[:, 4:8, 4:8, 1] = 0.1
    surface[:, 4, 4:8, 1] = 0.5
    mouth = ViewCast(surface[..., :2], surface, shade, surface).mouth[0]
    assert mouth[0, 0] == -1
    assert 0.5 < float(mouth[2, 5]) < 0.6
    assert 0.5 < float(mouth[6, 6]) < 0.6
