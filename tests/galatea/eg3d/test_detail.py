"""From the rendered image to the final one: rays of the finer grid, detail only where the surface is seen."""

import torch

from galatea.cameras import orbit
from galatea.eg3d.detail import add_surface_detail, enlarge, subdivide, surface_points
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.view_planes import NUM_SURFACE_CHANNELS, SurfaceTables, ViewPlanes


def test_subdivided_rays_are_those_of_the_finer_image():
    label = orbit(torch.tensor([20.0]), torch.tensor([-5.0]))
    fine, expected = subdivide(camera_rays(label, 32), 64), camera_rays(label, 64)
    assert torch.allclose(fine.directions, expected.directions, atol=1e-4)
    assert torch.allclose(fine.origins, expected.origins, atol=1e-5)


def test_surface_points_lie_at_the_depth():
    rays = camera_rays(orbit(torch.zeros(1), torch.zeros(1)), 16)
    points = surface_points(rays, torch.full((1, 1, 8, 8), 2.5), 16)
    assert torch.allclose((points - rays.origins).norm(dim=-1), torch.full((1, 256), 2.5))


def tables(value):
    """Planes of a wall at z = 0 whose colour alternates from texel to texel."""
    surface = torch.zeros(1, 4, 32, 32, NUM_SURFACE_CHANNELS)
    stripes = (torch.arange(32) % 2).float()[None, :, None] * value
    surface[:, 0, ..., :3] = stripes
    surface[..., 3] = 1
    surface[..., 5] = 1
    surface[:, 1:, ..., 4] = 1
    return SurfaceTables.of(ViewPlanes(surface, torch.zeros(1, 4, 16, 16, 4)))


def wall_points(depth):
    places = (torch.arange(32) + 0.5) / 16 - 1
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, depth)], -1).view(1, -1, 3)


def test_stripes_of_the_surface_come_back_unless_something_covers_them():
    grey = torch.full((1, 4, 32, 32), 0.5)
    grey[:, 3] = 1
    seen = add_surface_detail(grey, tables(1.0), wall_points(0.0), 16)
    assert torch.diff(seen[0, 0], dim=1).abs().mean() > 0.5
    assert torch.equal(seen[:, 3], grey[:, 3])
    in_front = add_surface_detail(grey, tables(1.0), wall_points(0.3), 16)
    assert (in_front - grey).abs().max() < 1e-3
    other_colour = add_surface_detail(
        grey * torch.tensor([0.0, 0.0, 0.0, 1.0]).view(1, 4, 1, 1), tables(1.0), wall_points(0.0), 16
    )
    assert torch.diff(other_colour[0, 0], dim=1).abs().mean() < 0.05


def test_an_image_that_is_large_enough_stays():
    image = torch.rand(1, 4, 8, 8)
    assert enlarge(image, 8) is image
    assert add_surface_detail(image, tables(1.0), torch.zeros(1, 64, 3), 8) is image
