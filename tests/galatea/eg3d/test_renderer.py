"""Volume rendering of shapes whose picture is known."""

import dataclasses
import math

import pytest
import torch

from galatea.cameras import FOCAL, PIVOT, RADIUS, orbit
from galatea.eg3d.ray_sampling import RenderingOptions, coarse_depths, importance_depths
from galatea.eg3d.rays import camera_rays, validate_label
from galatea.eg3d.renderer import VolumeRenderer, ray_weights
from galatea.eg3d.triplane import DecodedPoints
from galatea.errors import ConfigError, InputError

BALL_RADIUS = 0.2
EMPTY_PLANES = torch.zeros(1, 3, 1, 2, 2)


def ball(features: torch.Tensor, points: torch.Tensor, directions: torch.Tensor) -> DecodedPoints:
    """A dense ball around the pivot, coloured by place."""
    offset = points - torch.tensor(PIVOT)
    distance = offset.norm(dim=-1, keepdim=True)
    return DecodedPoints(features=offset / BALL_RADIUS * 0.5 + 0.5, density=(BALL_RADIUS - distance) * 20000)


def view(yaw: float = 0.0, pitch: float = 0.0) -> torch.Tensor:
    return orbit(torch.tensor([yaw]), torch.tensor([pitch]))


@pytest.mark.parametrize("label", [view(), view(40.0, 15.0)], ids=["frontal", "turned"])
def test_a_ball_is_a_disc_of_the_right_size_and_depth(label) -> None:
    resolution = 65
    rendered = VolumeRenderer()(EMPTY_PLANES, ball, camera_rays(label, resolution), RenderingOptions(96, 96))
    alpha, depth = rendered.alpha.reshape(resolution, resolution), rendered.depth.reshape(resolution, resolution)
    disc_radius = FOCAL * math.tan(math.asin(BALL_RADIUS / RADIUS))
    assert float(alpha.mean()) == pytest.approx(math.pi * disc_radius**2, rel=0.03)
    assert float(alpha[32, 32]) == pytest.approx(1.0, abs=1e-3)
    assert float(depth[32, 32]) == pytest.approx(RADIUS - BALL_RADIUS, abs=0.01)
    assert float(alpha[0, 0]) == pytest.approx(0.0, abs=1e-4)


def test_colour_of_the_surface_seen_from_the_front() -> None:
    features = VolumeRenderer()(EMPTY_PLANES, ball, camera_rays(view(), 33), RenderingOptions(96, 96)).features
    image = features.reshape(33, 33, 3)
    # The nearest point of the ball lies on its +z side; world x goes to the right, y up.
    torch.testing.assert_close(image[16, 16], torch.tensor([0.0, 0.0, 1.0]), atol=0.05, rtol=0)
    assert image[16, 20, 0] > 0.1
    assert image[12, 16, 1] > 0.1


@pytest.mark.parametrize("rays_per_chunk", [1, 7, 100, 10_000])
def test_chunks_do_not_change_the_picture(tiny_generator, rays_per_chunk) -> None:
    planes = tiny_generator.planes(torch.ones(1, tiny_generator.num_ws, 16))
    label = orbit(torch.tensor([0.0, 30.0]), torch.tensor([0.0, 10.0]))
    options = tiny_generator.config.rendering
    ws = torch.ones(1, tiny_generator.num_ws, 16)
    whole = tiny_generator.render(planes, label, ws, options=options)
    parts = tiny_generator.render(
        planes, label, ws, options=dataclasses.replace(options, max_rays_per_chunk=rays_per_chunk)
    )
    for name in ("features", "depth", "alpha"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


def test_rays_that_hit_nothing() -> None:
    def nothing(features, points, directions):
        return DecodedPoints(torch.ones_like(points), torch.full_like(points[..., :1], -1e4))

    rays = camera_rays(view(), 4)
    options = RenderingOptions()
    black = VolumeRenderer()(EMPTY_PLANES, nothing, rays, options)
    white = VolumeRenderer()(EMPTY_PLANES, nothing, rays, dataclasses.replace(options, white_back=True))
    assert float(black.alpha.max()) == 0.0
    assert torch.equal(black.features, -torch.ones(1, 16, 3))
    assert torch.equal(white.features, torch.ones(1, 16, 3))
    assert bool(torch.isfinite(black.depth).all())
    assert float(black.depth.min()) >= options.ray_end - 0.1


def test_weights_telescope_to_the_opacity_of_the_ray() -> None:
    generator = torch.Generator().manual_seed(0)
    density = torch.randn(2, 5, 30, generator=generator) * 5
    depths = torch.linspace(2, 3, 30).expand(2, 5, 30)
    optical = torch.nn.functional.softplus((density[..., :-1] + density[..., 1:]) / 2 - 1) * (1 / 29)
    expected = 1 - torch.exp(-optical.sum(-1))
    torch.testing.assert_close(ray_weights(density, depths).sum(-1), expected, atol=1e-5, rtol=1e-4)


def test_fine_samples_gather_where_the_weight_is() -> None:
    depths = torch.linspace(2, 3, 48).expand(1, 1, 48)
    weights = torch.zeros(1, 1, 47)
    weights[..., 20] = 1.0
    even = importance_depths(depths, weights, 48, None)
    drawn = importance_depths(depths, weights, 4000, torch.Generator().manual_seed(0))
    peak = float(depths[0, 0, 20] + depths[0, 0, 21]) / 2
    for fine in (even, drawn):
        assert float(fine.median()) == pytest.approx(peak, abs=0.05)
        assert float(fine.std()) < float(depths.std())
    assert bool((even.diff(dim=-1) >= 0).all())


def test_sampling_is_deterministic_unless_a_generator_is_given() -> None:
    rays = camera_rays(view(), 8)

    def render(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return VolumeRenderer()(EMPTY_PLANES, ball, rays, RenderingOptions(12, 12), generator).features

    assert torch.equal(render(None), render(None))
    assert torch.equal(render(1), render(1))
    assert not torch.equal(render(1), render(2))


def test_coarse_samples_in_disparity_are_dense_near_the_camera() -> None:
    options = RenderingOptions(disparity_space_sampling=True)
    gaps = coarse_depths(options, torch.zeros(1, 1, 3), None).diff(dim=-1)[0, 0]
    assert bool((gaps.diff() > 0).all())


def test_one_pass_alone_renders() -> None:
    rendered = VolumeRenderer()(EMPTY_PLANES, ball, camera_rays(view(), 9), RenderingOptions(200, 0))
    assert float(rendered.depth[0, 40]) == pytest.approx(RADIUS - BALL_RADIUS, abs=0.01)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"depth_resolution": 2}, "depth_resolution"),
        ({"depth_resolution_importance": 1}, "depth_resolution_importance"),
        ({"ray_start": 4.0}, "ray_start"),
        ({"box_warp": 0.0}, "box_warp"),
        ({"max_rays_per_chunk": 0}, "max_rays_per_chunk"),
    ],
)
def test_bad_options_name_the_field(change, named) -> None:
    with pytest.raises(ConfigError, match=named):
        RenderingOptions(**change)


def test_rays_pass_through_pixel_centres() -> None:
    label = view(20.0, 10.0)
    rays = camera_rays(label, 3)
    forward = label[:, :16].reshape(4, 4)[:3, 2]
    torch.testing.assert_close(rays.directions[0, 4], forward, atol=1e-6, rtol=0)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(1, 9))


def test_unusable_cameras_are_refused() -> None:
    validate_label(view(70.0, -30.0))
    scaled, broken, flat = view(), view(), view()
    scaled[:, :3] *= 2
    broken[0, 7] = float("nan")
    flat[0, 16] = 0.0
    for label, reason in ((scaled, "rotation"), (broken, "NaN"), (flat, "focal")):
        with pytest.raises(InputError, match=reason):
            validate_label(label)
    with pytest.raises(ValueError, match="25"):
        validate_label(torch.zeros(1, 16))
