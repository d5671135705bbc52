"""Meshes of shapes whose surface is known, of every kind of generator, and the files they are written to."""

import io

import numpy as np
import pytest
import torch
import trimesh

from galatea.cameras import orbit
from galatea.eg3d.checkpoint import load_generator
from galatea.eg3d.geometry import Cube, Mesh, depth_normals, head_mesh, surface_mesh
from galatea.errors import ConfigError, InputError

CENTRE, RADIUS = torch.tensor([0.1, 0.05, -0.1]), 0.3
CUBE = Cube((0.1, 0.0, -0.1), 0.5)


def ball(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball, red towards +x; its density rises linearly through 10 at the surface."""
    offset = points - CENTRE
    colour = torch.cat([offset[:, :1] / RADIUS * 0.5 + 0.5, torch.zeros(len(points), 2)], dim=1)
    return (RADIUS - offset.norm(dim=-1)) * 1000 + 10, colour


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return surface_mesh(ball, CUBE, 40, 10.0)


def read(data: bytes, kind: str) -> trimesh.Trimesh:
    return trimesh.load(io.BytesIO(data), file_type=kind, process=False, force="mesh")


def test_a_ball_has_its_radius_and_normals(mesh) -> None:
    offset = mesh.vertices - CENTRE.numpy()
    distance = np.linalg.norm(offset, axis=1)
    np.testing.assert_allclose(distance, RADIUS, atol=1e-3)
    assert ((mesh.normals * offset).sum(1) / distance).min() > 0.99
    np.testing.assert_allclose(mesh.colours[:, 0], offset[:, 0] / RADIUS * 0.5 + 0.5, atol=1e-4)


def test_a_surface_that_saturates_within_a_cell_has_no_steps() -> None:
    def hard(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = RADIUS - (points - CENTRE).norm(dim=-1)
        return 400 * torch.sigmoid(inside * 500), points * 0

    found, level = surface_mesh(hard, CUBE, 40, 40.0), np.log(9) / 500
    offset = found.vertices - CENTRE.numpy()
    distance = np.linalg.norm(offset, axis=1)
    np.testing.assert_allclose(distance, RADIUS + level, atol=1e-4)
    assert ((found.normals * offset).sum(1) / distance).min() > 0.997


@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_files_read_back_closed_and_turned_outwards(mesh, kind, tmp_path) -> None:
    mesh.save(tmp_path / f"ball.{kind}")
    data = (tmp_path / f"ball.{kind}").read_bytes()
    assert data.startswith(b"ply\nformat binary" if kind == "ply" else b"glTF\x02\0\0\0")
    found = read(data, kind)
    assert found.is_watertight
    assert found.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.02)
    np.testing.assert_allclose(found.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(found.visual.vertex_colors[:, :3] / 255, mesh.colours, atol=1 / 255)


def test_files_hold_the_normals(mesh) -> None:
    data = mesh.to_bytes("ply")
    record = np.dtype([("place", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 4)])
    start = data.index(b"end_header\n") + len(b"end_header\n")
    stored = np.frombuffer(data, record, count=len(mesh.vertices), offset=start)
    np.testing.assert_array_equal(stored["normal"], mesh.normals.astype(np.float32))
    assert b'"NORMAL"' in mesh.to_bytes("glb")


def test_a_surface_that_leaves_the_cube_is_closed() -> None:
    cut = surface_mesh(ball, Cube((0.1, 0.05, 0.1), 0.31), 24, 10.0)
    found = trimesh.Trimesh(cut.vertices, cut.faces, process=False)
    assert found.is_watertight
    assert found.volume < 4 / 3 * np.pi * RADIUS**3


def test_the_built_in_head_has_the_size_of_a_head() -> None:
    generator = load_generator("builtin")
    with torch.no_grad():
        planes = generator.planes(generator.mapping(generator.code_statistics[0][None]))
    found = head_mesh(generator, planes, 56, 40.0)
    parts = trimesh.Trimesh(found.vertices, found.faces, process=False).split(only_watertight=False)
    largest = max(parts, key=lambda part: len(part.vertices))
    # The mean of all codes wears all styles of hair at once: some of it floats.
    assert len(largest.vertices) > 0.9 * len(found.vertices)
    width, height, depth = largest.extents
    # 0.27 units are 10 cm: the head with the beginning of the shoulders, within the box of its planes.
    assert 0.4 < width <= 1.0
    assert 0.6 < height <= 1.0
    assert 0.4 < depth <= 1.0
    face = found.colours[found.vertices[:, 2] > np.quantile(found.vertices[:, 2], 0.8)]
    assert 0.2 < face.mean() < 0.95


def test_a_plain_generator_has_a_surface_too(tiny_generator) -> None:
    planes = tiny_generator.planes(torch.ones(1, tiny_generator.num_ws, tiny_generator.w_dim))
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    density = torch.nn.functional.softplus(tiny_generator.query(planes, points[None]).density - 1)
    found = head_mesh(tiny_generator, planes, 24, float(density.median()))
    assert len(found.vertices) > 50
    assert float(np.abs(found.vertices).max()) <= 0.5 + 1 / 23


def test_normals_of_a_depth_map_point_to_the_camera() -> None:
    size, label = 33, orbit(torch.tensor([30.0]), torch.tensor([10.0]))
    # A sphere of radius 2.7 around the camera: every normal points back along its ray.
    normals = depth_normals(torch.full((1, 1, size, size), 2.7), label)
    forward = label[:, :16].reshape(4, 4)[:3, 2]
    torch.testing.assert_close(normals[0, :, 16, 16], -forward, atol=1e-4, rtol=0)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(1, size, size))


def test_misuse_is_named(mesh, tiny_generator, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"\.ply or \.glb, got 'head.obj'"):
        mesh.save(tmp_path / "head.obj")
    with pytest.raises(InputError, match="both sides of 1e\\+09"):
        surface_mesh(ball, CUBE, 16, 1e9)
    with pytest.raises(ConfigError, match="resolution of at least 8"):
        surface_mesh(ball, CUBE, 4, 10.0)
    with pytest.raises(InputError, match="one head, got a batch of 2"):
        head_mesh(tiny_generator, torch.zeros(2, 3, 4, 16, 16))
