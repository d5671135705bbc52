"""The generator gives the reference implementation's numbers, part by part, so that a difference can be pinned down."""

import pytest
import torch

from galatea.eg3d.ray_sampling import coarse_depths, importance_depths, importance_pdf
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.renderer import ray_weights
from galatea.eg3d.triplane import PlaneTable

pytestmark = pytest.mark.shared


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-4) -> None:
    assert found.shape == expected.shape
    error = float((found - expected).norm() / expected.norm().clamp_min(1e-12))
    assert error <= relative, f"relative L2 error {error:.2e}, allowed {relative:.0e}"


@pytest.fixture(scope="module")
def planes(reference, reference_generator):
    with torch.no_grad():
        return reference_generator.planes(reference["in/wplus"])


@pytest.fixture(scope="module")
def rendering(reference, reference_generator, planes):
    with torch.no_grad():
        return reference_generator.render(planes, reference["in/c"], reference["in/wplus"])


@pytest.mark.parametrize(
    ("expected", "camera", "psi", "cutoff"),
    [
        ("out/ws_psi1", "in/c_cond", 1.0, None),
        ("out/ws_psi07", "in/c_cond", 0.7, None),
        ("out/ws_psi07_cutoff5", "in/c_cond", 0.7, 5),
        ("out/ws_psi1_c_pose", "in/c", 1.0, None),
    ],
)
def test_mapping(reference, reference_generator, expected, camera, psi, cutoff) -> None:
    with torch.no_grad():
        ws = reference_generator.mapping(reference["in/z"], reference[camera], psi, cutoff)
    assert_close(ws, reference[expected])


def test_every_synthesis_block(reference, reference_generator) -> None:
    synthesis = reference_generator.backbone.synthesis
    x = image = None
    start = 0
    with torch.no_grad():
        for resolution in synthesis.block_resolutions:
            block = getattr(synthesis, f"b{resolution}")
            ws = reference["in/wplus"][:, start : start + block.num_conv + 1]
            x, image = block(x, image, ws)
            start += block.num_conv
            if resolution <= 32:
                assert_close(image, reference[f"blk/b{resolution}/img_out"])
            else:
                stride = resolution // 32
                assert_close(image[0, :, ::stride, ::stride], reference[f"blk/b{resolution}/img_out_0_s{stride}"])
            spread = torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)
            torch.testing.assert_close(spread, reference[f"blk/b{resolution}/x_out_meanstd"], atol=1e-3, rtol=1e-3)


def test_layers_of_one_block(reference, reference_generator) -> None:
    block = reference_generator.backbone.synthesis.b16
    ws = reference["blk/b16/ws_in"]
    with torch.no_grad():
        first = block.conv0(reference["blk/b16/x_in"], ws[:, 0])
        second = block.conv1(first, ws[:, 1])
        assert_close(block.conv0.affine(ws[:, 0]), reference["blk/b16/conv0.styles_affine"])
        assert_close(first, reference["blk/b16/conv0.out"])
        assert_close(second, reference["blk/b16/conv1.out"])
        assert_close(block.torgb(second, ws[:, 2]), reference["blk/b16/torgb.out"])


def test_planes(reference, planes) -> None:
    assert_close(planes.flatten(1, 2)[..., ::4, ::4], reference["out/planes_s4"])


def test_rays(reference) -> None:
    rays = camera_rays(reference["in/c"], 32)
    assert_close(rays.origins, reference["rays/origins"], 1e-6)
    assert_close(rays.directions, reference["rays/directions"], 1e-6)


def test_points_in_the_planes(reference, reference_generator, planes) -> None:
    points = reference["in/points_xyz"]
    with torch.no_grad():
        decoded = reference_generator.query(planes, points)
        features = PlaneTable.from_planes(planes).sample(points, reference_generator.renderer.projection)
    assert_close(features, reference["out/points_plane_features"].mean(1))
    assert_close(decoded.features, reference["out/points_rgb"])
    assert_close(decoded.density, reference["out/points_sigma"])


def test_points_from_a_latent_code(reference, reference_generator) -> None:
    with torch.no_grad():
        planes = reference_generator.planes(reference["out/ws_psi1"])
        decoded = reference_generator.query(planes, reference["in/points_xyz"])
    assert_close(decoded.features, reference["out/points_from_z_rgb"])
    assert_close(decoded.density, reference["out/points_from_z_sigma"])


def test_sampling_along_rays(reference, reference_generator) -> None:
    options = reference_generator.config.rendering
    depths = coarse_depths(options, reference["rays/origins"], None)
    assert_close(depths[0, 0], reference["render/depths_coarse"], 1e-6)
    density = reference["render/sigma_coarse_0"][None]
    weights = ray_weights(density, depths.expand_as(density))
    assert_close(weights[0], reference["render/weights_coarse_0"])
    assert_close(importance_pdf(weights)[0], reference["render/pdf_weights_0"])
    fine = importance_depths(depths.expand_as(density), weights, options.depth_resolution_importance, None)
    assert_close(fine[0], reference["render/depths_fine_0"], 1e-5)


def test_rendered_rays(reference, rendering) -> None:
    assert_close(rendering.features.flatten(2).transpose(1, 2), reference["render/features"])
    assert_close(rendering.depth.flatten(2).transpose(1, 2), reference["render/depth"])
    assert_close(rendering.alpha.flatten(2).transpose(1, 2), reference["render/weights_sum"])


def test_images_and_depth(reference, rendering) -> None:
    assert_close(rendering.image, reference["out/image"])
    assert_close(rendering.image_raw, reference["out/image_raw"])
    assert_close(rendering.depth, reference["out/image_depth"])


def test_truncated_images(reference, reference_generator) -> None:
    with torch.no_grad():
        rendering = reference_generator.synthesis(reference["out/ws_psi07"], reference["in/c"])
    assert_close(rendering.image, reference["out_psi07/image"])
    assert_close(rendering.image_raw, reference["out_psi07/image_raw"])
    assert_close(rendering.depth, reference["out_psi07/image_depth"])


def test_super_resolution_blocks(reference, reference_generator, rendering) -> None:
    module = reference_generator.superresolution
    last = reference["in/wplus"][:, -1:].expand(-1, 3, -1)
    with torch.no_grad():
        features, image = module._resize(rendering.features), module._resize(rendering.image_raw)
        assert_close(features[0, :, ::2, ::2], reference["sr/block0.x_in_0_s2"])
        assert_close(image, reference["sr/block0.rgb_in"])
        x, image = module.block0(features, image, last, "none")
    assert_close(image, reference["sr/block0.rgb_out"])
    assert_close(x[0, :, ::2, ::2], reference["sr/block0.x_out_0_s2"])


def test_gradients(reference, reference_generator) -> None:
    ws = reference["in/wplus"][:1].clone().requires_grad_()
    reference_generator.zero_grad()
    rendering = reference_generator.synthesis(ws, reference["in/c"][:1])
    loss = (rendering.image - reference["grad/target"]).square().mean()
    loss = loss + (rendering.image_raw - reference["grad/target_raw"]).square().mean()
    loss.backward()
    assert_close(loss.detach(), reference["grad/loss"], 1e-5)
    assert_close(ws.grad, reference["grad/ws"], 1e-3)
    parameters = dict(reference_generator.named_parameters())
    for key in reference.keys("grad/param/"):
        assert_close(parameters[key.removeprefix("grad/param/")].grad, reference[key], 1e-3)


def test_random_sampling_agrees_on_average(reference, reference_generator, planes) -> None:
    label, ws = reference["in/c"][:1], reference["in/wplus"][:1]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = torch.stack(
            [reference_generator.render(planes[:1], label, ws, generator=generator).image_raw for _ in range(12)]
        )
    expected = reference["out/image_raw"][:1]
    error = draws.mean(0) - expected
    noise = draws.std(0) / len(draws) ** 0.5
    # Most pixels within four standard errors plus the bias of finite strata; no bias over the image.
    assert float((error.abs() < 4 * noise + 0.05).float().mean()) > 0.97
    assert abs(float(error.mean())) < 0.01
