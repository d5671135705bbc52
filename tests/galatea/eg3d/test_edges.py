"""Outlines are drawn with the rays of the final image."""

import torch

from galatea.cameras import orbit
from galatea.eg3d.edges import find_outlines, refine_outlines
from galatea.eg3d.guided_sampling import find_surface
from galatea.eg3d.ray_casting import RayCaster
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.view_planes import SurfaceTables, ViewPlanes
from galatea.morphable.head import HeadCoefficients
from tests.galatea.conftest import anchored_generator

SIZE = 64


def step(low, high):
    maps = torch.full((1, 1, 16, 16), low)
    maps[..., 8:] = high
    return maps


def test_outlines_are_where_opacity_or_the_depth_of_opaque_rays_jumps():
    columns = [6 < column < 9 for column in range(16)]
    solid, air = torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    assert find_outlines(step(0.0, 1.0), 2.7 * solid)[0, 0, 5].tolist() == columns
    assert find_outlines(solid, step(2.4, 2.7))[0, 0, 5].tolist() == columns
    assert not find_outlines(solid, step(2.40, 2.41)).any()
    assert not find_outlines(air, step(2.4, 2.7)).any()


def heads(expressions):
    generator = anchored_generator()
    count = len(expressions)
    expression = torch.zeros(count, 52)
    expression[:, 0] = torch.tensor(expressions)
    ws = generator.mapping(torch.zeros(1, generator.z_dim))
    with torch.no_grad():
        planes = generator.planes(ws, HeadCoefficients(torch.zeros(count, 2), expression))
    return generator.ray_caster(SurfaceTables.of(ViewPlanes.unpack(planes)))


@torch.no_grad()
def test_pixels_on_outlines_become_what_their_own_rays_see_whatever_the_batch():
    caster: RayCaster = heads([0.0, 1.0])
    rays = camera_rays(orbit(torch.zeros(2), torch.zeros(2)), SIZE)
    values, alpha, depth = (maps.transpose(1, 2).reshape(2, -1, SIZE, SIZE) for maps in caster.render(rays))
    wanted = torch.zeros(2, 1, SIZE // 2, SIZE // 2, dtype=torch.bool)
    wanted[0, :, 5:9, 10], wanted[1, :, 20, :30] = True, True
    blank = torch.full((2, 4, SIZE, SIZE), 9.0)
    image, fine_depth = refine_outlines(blank, blank[:, :1], wanted, caster, rays)
    chosen = wanted.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = torch.cat([values[:, :3], alpha], 1)
    torch.testing.assert_close(image * chosen, expected * chosen, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fine_depth * chosen, depth * chosen, atol=1e-5, rtol=1e-4)
    assert (image[1][:, ~chosen[1, 0]] == 9).all()


def test_without_outlines_nothing_changes():
    image, depth = torch.rand(1, 4, 8, 8), torch.rand(1, 1, 8, 8)
    is_outline = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    found = refine_outlines(
        image, depth, is_outline, heads([0.0]), camera_rays(orbit(torch.zeros(1), torch.zeros(1)), 8)
    )
    assert found[0] is image
    assert found[1] is depth


@torch.no_grad()
def test_rays_beside_an_outline_come_nearest_to_the_head_where_a_fine_search_finds_them():
    caster = heads([0.0])
    rays = camera_rays(orbit(torch.full((1,), 0.3), torch.zeros(1)), 128)
    rough, exact = (find_surface(caster.tables, rays, caster.box, steps) for steps in (28, 600))
    image = exact[1].float().view(1, 1, 128, 128)
    is_rim = (torch.nn.functional.max_pool2d(image, 5, 1, 2) + torch.nn.functional.max_pool2d(-image, 5, 1, 2)) > 0
    rim = is_rim.flatten()
    assert (rough[1] == exact[1])[0, rim].float().mean() > 0.97
    same = rim & (rough[1] == exact[1])[0]
    assert (rough[0] - exact[0])[0, same].abs().quantile(0.95) < caster.sampling.surface_width
