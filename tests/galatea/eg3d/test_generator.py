"""The generator as a whole: views, conditioning, variants of the super-resolution."""

import dataclasses

import pytest
import torch

from galatea.cameras import orbit
from galatea.eg3d import GeneratorConfig, TriPlaneGenerator
from galatea.eg3d.superresolution import SPECS, SuperResolution, SuperResolutionSpec, named_spec
from galatea.errors import ConfigError, InputError

VIEWS = orbit(torch.tensor([0.0, 30.0, -30.0]), torch.tensor([0.0, 10.0, -10.0]))


def codes(generator: TriPlaneGenerator, batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, generator.num_ws, generator.w_dim, generator=torch.Generator().manual_seed(seed))


def test_shapes_of_a_view(tiny_generator) -> None:
    z = torch.randn(3, tiny_generator.z_dim, generator=torch.Generator().manual_seed(0))
    view = tiny_generator(z, VIEWS)
    size = tiny_generator.img_resolution
    assert view.image.shape == (3, 3, size, size)
    assert view.image_raw.shape == (3, 3, 8, 8)
    assert view.depth.shape == view.alpha.shape == (3, 1, 8, 8)
    assert 0.0 <= float(view.alpha.min()) <= float(view.alpha.max()) <= 1.0 + 1e-5
    assert tiny_generator.residual_shapes == {}
    assert not tiny_generator.is_anchored


def test_planes_of_one_identity_are_seen_by_many_cameras(tiny_generator) -> None:
    ws = codes(tiny_generator, 1)
    planes = tiny_generator.planes(ws)
    together = tiny_generator.render(planes, VIEWS, ws)
    for index in range(3):
        alone = tiny_generator.render(planes, VIEWS[index : index + 1], ws)
        torch.testing.assert_close(together.image[index : index + 1], alone.image, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.features[index : index + 1], alone.features, atol=1e-5, rtol=1e-4)


def test_identities_in_a_batch_do_not_mix(tiny_generator) -> None:
    ws = codes(tiny_generator, 3)
    together = tiny_generator.synthesis(ws, VIEWS)
    alone = tiny_generator.synthesis(ws[1:2], VIEWS[1:2])
    torch.testing.assert_close(together.image[1:2], alone.image, atol=1e-4, rtol=1e-4)


def test_resolution_is_an_argument_not_a_state(tiny_generator) -> None:
    ws = codes(tiny_generator, 1)
    planes = tiny_generator.planes(ws)
    assert tiny_generator.render(planes, VIEWS[:1], ws, resolution=12).image_raw.shape[-1] == 12
    assert tiny_generator.render(planes, VIEWS[:1], ws).image_raw.shape[-1] == 8


def test_conditioning_can_be_off_or_scaled(tiny_config) -> None:
    torch.manual_seed(0)
    generator = TriPlaneGenerator(tiny_config)
    z = torch.randn(1, 8)
    ignoring = TriPlaneGenerator(dataclasses.replace(tiny_config, is_conditioning_zero=True))
    ignoring.load_state_dict(generator.state_dict())
    assert not torch.allclose(generator.mapping(z, VIEWS[:1]), generator.mapping(z, VIEWS[1:2]))
    assert torch.equal(ignoring.mapping(z, VIEWS[:1]), ignoring.mapping(z, VIEWS[1:2]))


def test_gradients_reach_the_camera_and_the_latent(tiny_generator) -> None:
    ws = codes(tiny_generator, 1).requires_grad_()
    label = VIEWS[1:2].clone().requires_grad_()
    tiny_generator.synthesis(ws, label).image_raw.square().sum().backward()
    assert float(ws.grad.abs().sum()) > 0
    assert float(label.grad[:, :12].abs().sum()) > 0


def test_misuse_is_named(tiny_generator, tiny_config) -> None:
    ws = codes(tiny_generator, 1)
    with pytest.raises(ValueError, match="residuals"):
        tiny_generator.planes(ws, residuals={"texture": torch.zeros(1)})
    with pytest.raises(InputError, match="rotation"):
        tiny_generator.synthesis(ws, torch.ones(1, 25))
    with pytest.raises(ConfigError, match="c_dim"):
        dataclasses.replace(tiny_config, c_dim=7)
    with pytest.raises(ConfigError, match="super-resolution"):
        GeneratorConfig(superresolution="16X")


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_super_resolution_module_has_its_size(name) -> None:
    spec = named_spec(name)
    with torch.device("meta"):
        module = SuperResolution(spec, w_dim=8)
        image = module(torch.zeros(1, 3, 64, 64), torch.zeros(1, 32, 64, 64), torch.zeros(1, 14, 8))
    assert image.shape[-1] == {"2X": 128, "4X": 256, "8X": 512, "8XDC": 512}[name] == spec.output_resolution


def test_the_raw_image_is_not_altered_at_the_size_of_the_module() -> None:
    torch.manual_seed(0)
    module = SuperResolution(SuperResolutionSpec(8, (4, 4), is_first_upsampling=False), w_dim=4, num_features=6)
    image, features = torch.randn(1, 3, 8, 8), torch.randn(1, 6, 8, 8)
    before = image.clone()
    with torch.no_grad():
        module(image, features, torch.randn(1, 2, 4))
    assert torch.equal(image, before)


def test_clamped_activations_stay_bounded() -> None:
    torch.manual_seed(0)
    spec = SuperResolutionSpec(8, (4, 4), is_first_upsampling=True)
    module = SuperResolution(spec, w_dim=4, num_features=6, img_channels=4, conv_clamp=0.5)
    with torch.no_grad():
        features, _ = module.block0(torch.randn(1, 6, 8, 8) * 100, torch.zeros(1, 4, 8, 8), torch.randn(1, 3, 4))
    assert float(features.abs().max()) <= 0.5
