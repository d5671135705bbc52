"""Configurations of the published checkpoints other than FFHQ 512, each against the formulas in double precision.

AFHQ: depths 2.25 to 3.3 around the pivot (0, 0, -0.06). ShapeNet cars: cameras at 1.7 around the origin, a box of 1.6,
64 + 64 samples between 0.1 and 2.6, white background. Other checkpoints sample between the box's walls ("auto").
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from benchmarks import eg3d_plain
from galatea.cameras import orbit
from galatea.eg3d import RenderingOptions, TriPlaneGenerator
from galatea.eg3d.pickle_import import read_official
from galatea.eg3d.ray_sampling import box_limits, coarse_depths
from galatea.eg3d.rays import Rays, camera_rays
from galatea.eg3d.superresolution import SuperResolution, SuperResolutionSpec
from galatea.eg3d.triplane import CORRECTED_PLANE_AXES
from galatea.errors import ConfigError, WeightsError
from tests.galatea.eg3d.official_pickle import official_bytes

RELEASED, CORRECTED = ((0, 1), (0, 2), (2, 0)), ((0, 1), (0, 2), (2, 1))
SHAPENET = RenderingOptions(12, 12, ray_start=0.1, ray_end=2.6, box_warp=1.6, white_back=True)
VARIANTS = {
    "FFHQ": (RenderingOptions(10, 10), RELEASED, {}),
    "corrected axes": (RenderingOptions(10, 10), CORRECTED, {}),
    "AFHQ": (RenderingOptions(10, 10), RELEASED, {"pivot": (0.0, 0.0, -0.06)}),
    "ShapeNet": (SHAPENET, RELEASED, {"radius": 1.7, "pivot": (0.0, 0.0, 0.0)}),
    "box walls": (RenderingOptions(10, 10, is_box_bounded=True, box_warp=0.7), RELEASED, {}),
    "disparity": (RenderingOptions(10, 10, disparity_space_sampling=True), RELEASED, {}),
    "one pass": (RenderingOptions(10, 0), RELEASED, {}),
}


def plain_depths(options: RenderingOptions, rays: Rays) -> torch.Tensor:
    """Strata middles of the first pass, ray by ray."""
    count = options.depth_resolution
    fraction = (torch.arange(count, dtype=torch.float64) + 0.5) / (count - 1)
    if options.disparity_space_sampling:
        return (1 / ((1 - fraction) / options.ray_start + fraction / options.ray_end)).expand(
            *rays.origins.shape[:2], -1
        )
    if not options.is_box_bounded:
        depths = options.ray_start + fraction * (options.ray_end - options.ray_start)
        return depths.expand(*rays.origins.shape[:2], -1)
    walls = torch.stack([(sign * options.box_warp / 2 - rays.origins) / rays.directions for sign in (-1, 1)])
    near, far = walls.amin(0).amax(-1), walls.amax(0).amin(-1)
    hit = far > near
    far = torch.where(hit, far, near[hit].max())
    near = torch.where(hit, near, near[hit].min())
    return near[..., None] + fraction * (far - near)[..., None]


def plain_render(generator: TriPlaneGenerator, planes, rays, options, axes) -> torch.Tensor:
    """Both passes, sorted together, composited."""

    def decode(depths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = (rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]).flatten(1, 2)
        scaled = points * (2 / options.box_warp)
        read = [
            F.grid_sample(planes[:, i], scaled[:, None, :, list(a)], align_corners=False) for i, a in enumerate(axes)
        ]
        features = torch.stack(read).mean(0)[:, :, 0].transpose(1, 2)
        first, second = generator.decoder.net[0], generator.decoder.net[2]
        out = eg3d_plain.linear(second, F.softplus(eg3d_plain.linear(first, features)))
        colours = torch.sigmoid(out[..., 1:]) * 1.002 - 0.001
        return colours.reshape(*depths.shape, -1), out[..., :1].reshape(*depths.shape, 1)

    depths = plain_depths(options, rays)
    colours, densities = decode(depths)
    if options.depth_resolution_importance:
        weights = eg3d_plain.march(colours, densities, depths)[0]
        fine = eg3d_plain.fine_depths(depths, weights, options.depth_resolution_importance)
        more = decode(fine)
        depths, order = torch.cat([depths, fine], 2).sort(2)
        colours, densities = (
            torch.cat([a, b], 2).gather(2, order[..., None].expand(-1, -1, -1, a.shape[-1]))
            for a, b in zip((colours, densities), more, strict=True)
        )
    weights, colour, _ = eg3d_plain.march(colours, densities, depths)
    return colour + 2 * (1 - weights.sum(2)) if options.white_back else colour


@pytest.mark.parametrize("name", VARIANTS)
def test_rendering_of_a_variant(tiny_config, name) -> None:
    options, axes, where = VARIANTS[name]
    config = dataclasses.replace(tiny_config, rendering=options)
    if axes is CORRECTED:
        config = dataclasses.replace(config, plane_axes=CORRECTED_PLANE_AXES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = TriPlaneGenerator(config).double()
        planes = torch.randn(2, 3, 4, 16, 16, dtype=torch.float64) * 3
        generator.decoder.net[2].bias.data[0] = 4.0
    rays = camera_rays(orbit(torch.tensor([20.0, -50.0]), torch.tensor([10.0, 0.0]), **where).double(), 7)
    with torch.no_grad():
        # The linear spacing of quantiles is in single precision in the plain formulas.
        found = generator.renderer(planes, generator.decoder, rays, options).features
        expected = plain_render(generator, planes, rays, options, axes)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_rays_are_sampled_between_the_walls_of_the_box() -> None:
    directions = F.normalize(torch.tensor([[[0.0, 0.0, -1.0], [0.3, 0.0, -1.0], [1.0, 0.0, 0.0]]]), dim=-1)
    rays = Rays(torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]]]), directions)
    limits = box_limits(rays, 1.0)
    slanted = 1.09**0.5
    torch.testing.assert_close(limits.near[0, :2, 0], torch.tensor([1.5, 1.5 * slanted]))
    torch.testing.assert_close(limits.far[0, :2, 0], torch.tensor([2.5, 0.5 / 0.3 * slanted]))
    torch.testing.assert_close(limits.near[0, 2], limits.near[0, 0])
    depths = coarse_depths(RenderingOptions(5, 0, is_box_bounded=True), rays.origins, None, limits)
    torch.testing.assert_close(depths[0, 0], 1.5 + (torch.arange(5) + 0.5) / 4)
    missing = box_limits(Rays(rays.origins[:, 2:], rays.directions[:, 2:]), 1.0)
    assert float(missing.near) == float(missing.far) == 0.0
    with pytest.raises(ConfigError, match="is_box_bounded"):
        RenderingOptions(is_box_bounded=True, disparity_space_sampling=True)


@pytest.mark.parametrize("is_first_upsampling", [False, True], ids=["2X and 4X", "8X"])
@pytest.mark.parametrize(("size", "is_antialiased"), [(8, True), (20, True), (20, False), (5, True)])
def test_super_resolution_of_a_variant(is_first_upsampling, size, is_antialiased) -> None:
    spec = SuperResolutionSpec(8, (6, 4), is_first_upsampling=is_first_upsampling)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SuperResolution(spec, w_dim=8, num_features=5, is_antialiased=is_antialiased).double()
        features, ws = torch.randn(2, 5, size, size).double(), torch.randn(2, 3, 8).double()
    with torch.no_grad():
        found = module(features[:, :3], features, ws)
        if size != 8:
            features = F.interpolate(features, (8, 8), mode="bilinear", antialias=is_antialiased)
        expected = eg3d_plain.super_resolution(module, features[:, :3], features, ws)
    torch.testing.assert_close(found, expected)


def test_conditioning_is_scaled_or_off(tiny_config) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = TriPlaneGenerator(tiny_config).double()
        z = torch.randn(2, 8).double()
    c = orbit(torch.tensor([20.0, -50.0]), torch.tensor([10.0, 0.0])).double()
    for change, scale in (({}, 1.0), ({"conditioning_scale": 0.5}, 0.5), ({"is_conditioning_zero": True}, 0.0)):
        other = TriPlaneGenerator(dataclasses.replace(tiny_config, **change)).double()
        other.load_state_dict(generator.state_dict())
        expected = eg3d_plain.mapping(generator.backbone.mapping, z, c * scale)
        torch.testing.assert_close(other.mapping(z, c), expected)


@pytest.mark.parametrize("mode", ["const", "none"])
def test_planes_with_and_without_noise(tiny_generator, mode) -> None:
    generator = tiny_generator.double()
    ws = torch.randn(2, generator.num_ws, 16, generator=torch.Generator().manual_seed(0)).double()
    found = generator.planes(ws, noise_mode=mode)
    if mode == "none":
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.zero_()
    torch.testing.assert_close(found, eg3d_plain.planes(generator.backbone.synthesis, ws))


def rendering_kwargs(**changes) -> dict:
    """What an official file says about rendering; training facts go along and change nothing."""
    return {
        "clamp_mode": "softplus",
        "c_scale": 1.0,
        "depth_resolution": 64,
        "depth_resolution_importance": 64,
        "ray_start": 0.1,
        "ray_end": 2.6,
        "box_warp": 1.6,
        "white_back": True,
        "avg_camera_radius": 1.7,
        "avg_camera_pivot": [0, 0, 0],
        "density_reg": 0.25,
        "density_reg_p_dist": 0.004,
        "reg_type": "l1",
        "sr_antialias": True,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"rendering": RenderingOptions(64, 64, 0.1, 2.6, 1.6, white_back=True)}),
        (
            {"ray_start": "auto", "ray_end": "auto", "white_back": False},
            {"rendering": RenderingOptions(64, 64, box_warp=1.6, is_box_bounded=True)},
        ),
        ({"sr_antialias": False}, {"is_superresolution_antialiased": False}),
        ({"c_scale": 0.5}, {"conditioning_scale": 0.5}),
        ({"c_scale": None}, {"conditioning_scale": 0.0}),
        ({"c_gen_conditioning_zero": True}, {"is_conditioning_zero": True}),
        ({"superresolution_noise_mode": "random"}, {"superresolution_noise_mode": "random"}),
        ({"disparity_space_sampling": True}, {}),
    ],
)
def test_an_official_file_brings_its_variant(tiny_generator, tmp_path, changes, expected) -> None:
    path = tmp_path / "variant.pkl"
    path.write_bytes(official_bytes(tiny_generator, rendering_kwargs=rendering_kwargs(**changes)))
    config = read_official(path).config
    for name, value in expected.items():
        assert getattr(config, name) == value
    assert config.rendering.disparity_space_sampling == bool(changes.get("disparity_space_sampling"))


@pytest.mark.parametrize("changes", [{"ray_start": "auto"}, {"box_warp": "1"}, {"clamp_mode": "relu"}])
def test_an_unknown_variant_is_named(tiny_generator, tmp_path, changes) -> None:
    path = tmp_path / "variant.pkl"
    path.write_bytes(official_bytes(tiny_generator, rendering_kwargs=rendering_kwargs(**changes)))
    with pytest.raises(WeightsError, match=next(iter(changes))):
        read_official(path)
