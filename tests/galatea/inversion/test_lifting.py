"""Lifting gives a texture the photo's own detail, where the photo shows it."""

from dataclasses import replace

import pytest
import torch

from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.atlas import AtlasTexels
from galatea.errors import ConfigError
from galatea.inversion.lifting import LiftingConfig, lift_texture
from galatea.inversion.objective import layer_of, shown
from galatea.inversion.target import InversionTarget
from galatea.metrics.quality import psnr
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.head import HeadCoefficients, HeadModel
from tests.small_generators import SMALL


@pytest.fixture
def generator(small):
    return small.anchored()


@pytest.fixture
def checkered(generator, small):
    """A photo of a head with stripes that no latent knows."""
    ws = generator.mapping(torch.zeros(1, generator.z_dim))
    size = generator.config.texture_size
    stripes = 0.3 * ((torch.arange(size) // 4) % 2 * 2 - 1).float().expand(1, 3, size, size)
    background = torch.zeros(1, 3, generator.img_resolution, generator.img_resolution)
    with torch.no_grad():
        rendering = generator.synthesis(ws, small.camera(), small.head(), {"texture": stripes})
        image, matte = shown(rendering, background), layer_of(rendering, generator.img_resolution)[1]
    return ws, InversionTarget(image, background, matte, matte, matte, small.camera(), small.head())


def reconstructed(generator, ws, target, residuals):
    with torch.no_grad():
        image = shown(generator.synthesis(ws, target.camera, target.head, residuals), target.background)
    return float(psnr(image, target.image, target.face))


def test_detail_that_no_latent_knows_is_lifted(generator, checkered):
    ws, target = checkered
    size = generator.config.texture_size
    lifted = lift_texture(generator, target, ws, {}, LiftingConfig(6, size))
    assert lifted["texture"].shape == (1, 3, size, size)
    assert reconstructed(generator, ws, target, lifted) > reconstructed(generator, ws, target, None) + 3


def test_more_corrections_come_closer(generator, checkered):
    ws, target = checkered
    size = generator.config.texture_size
    once, often = (lift_texture(generator, target, ws, {}, LiftingConfig(n, size)) for n in (1, 5))
    assert reconstructed(generator, ws, target, often) > reconstructed(generator, ws, target, once)


def test_what_the_photo_shows_rightly_already_stays(generator, small, checkered):
    ws, target = checkered
    with torch.no_grad():
        own = shown(generator.synthesis(ws, target.camera, target.head), target.background)
    lifted = lift_texture(generator, replace(target, image=own), ws, {}, LiftingConfig(1, 16))
    assert lifted["texture"].abs().mean() < 0.02


def test_without_corrections_or_a_head_maps_stay_as_they_are(generator, checkered):
    ws, target = checkered
    maps = {"texture": torch.rand(1, 3, 8, 8), "light": torch.zeros(1, 27, 1, 1)}
    for other, config in ((target, LiftingConfig(0)), (replace(target, head=None), LiftingConfig())):
        assert lift_texture(generator, other, ws, maps, config) == maps


def test_portraits_of_a_batch_do_not_influence_each_other(generator, small, checkered):
    ws, target = checkered
    grey = replace(target, image=torch.zeros_like(target.image))
    fields = ("image", "background", "matte", "face", "weight")
    both = {name: torch.cat([getattr(target, name), getattr(grey, name)]) for name in fields}
    pair = replace(target, **both, camera=small.camera(2), head=small.head(2))
    alone = lift_texture(generator, target, ws, {}, LiftingConfig(2, 16))["texture"]
    together = lift_texture(generator, pair, ws.expand(2, -1, -1), {}, LiftingConfig(2, 16))["texture"]
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


def test_pixels_of_hair_correct_its_colour(generator, small, checkered):
    ws, target = checkered
    with torch.no_grad():
        generator.decoder.out.bias[2] = 6.5  # opaque wherever nothing else is: hair all around
        rendering = generator.synthesis(ws, target.camera, target.head)
        own, matte = shown(rendering, target.background), layer_of(rendering, generator.img_resolution)[1]
    assert matte.mean() > 0.5
    redder = own + torch.tensor([0.2, 0.0, 0.0]).view(1, 3, 1, 1) * matte
    hairy = replace(target, image=redder, matte=matte, face=matte)
    lifted = lift_texture(generator, hairy, ws, {}, LiftingConfig(3, generator.config.texture_size))
    assert lifted["tint"][0, 0].mean() > 3 * lifted["tint"][0, 1].abs().mean()
    assert reconstructed(generator, ws, hairy, lifted) > reconstructed(generator, ws, hairy, None) + 1


def test_hair_that_the_head_hides_from_the_front_does_not_colour_what_is_before_it(generator, small):
    ws, head = generator.mapping(torch.zeros(1, generator.z_dim)), small.head()
    background = torch.zeros(1, 3, generator.img_resolution, generator.img_resolution)
    behind = orbit(torch.tensor([180.0]), torch.zeros(1))
    with torch.no_grad():
        generator.decoder.out.bias[2] = 6.5  # opaque wherever nothing else is: hair all around
        rendering = generator.synthesis(ws, behind, head)
        own, matte = shown(rendering, background), layer_of(rendering, generator.img_resolution)[1]
    redder = own + torch.tensor([0.2, 0.0, 0.0]).view(1, 3, 1, 1) * matte
    target = InversionTarget(redder, background, matte, matte, matte, behind, head)
    tint = lift_texture(generator, target, ws, {}, LiftingConfig(1, generator.config.texture_size))["tint"]
    face = generator.cast(head).views[0].mask[:, None]
    face = torch.nn.functional.interpolate(face, tint.shape[-2:], mode="area")
    assert tint[:, :1][face == 1].abs().max() < 1e-6
    assert tint[:, :1][face == 0].mean() > 0.01


def test_teeth_take_on_the_photo_s_colour_all_alike(small):
    torch.manual_seed(0)
    mesh = HeadModel.load()
    generator = AnchoredGenerator(replace(SMALL, texture_size=128, plane_size=64, neural_rendering_resolution=64), mesh)
    generator.eval().requires_grad_(False)
    expression = torch.zeros(1, 52)
    for name in ("mouthUpperUpLeft", "mouthUpperUpRight", "mouthSmileLeft", "mouthSmileRight"):
        expression[0, ACTION_INDEX[name]] = 1
    expression[0, ACTION_INDEX["jawOpen"]] = 0.3
    head, ws = HeadCoefficients(torch.zeros(1, mesh.num_identity), expression), generator.mapping(torch.zeros(1, 4))
    island = torch.zeros(1, 1, 128, 128)
    texels = AtlasTexels.of(mesh, 128)
    is_tooth = mesh.part[texels.triangle] == mesh.part_names.index("teeth")
    island[0, 0, texels.rows[is_tooth], texels.columns[is_tooth]] = 1
    background = torch.zeros(1, 3, 128, 128)
    rendering = generator.synthesis(ws, small.camera(), head, {"texture": 0.4 * island.expand(-1, 3, -1, -1)})
    matte = layer_of(rendering, 128)[1]
    target = InversionTarget(shown(rendering, background), background, matte, matte, matte, small.camera(), head)
    lifted = lift_texture(generator, target, ws, {}, LiftingConfig(5, 128))["texture"]
    teeth = lifted[0, :, texels.rows[is_tooth], texels.columns[is_tooth]]
    assert 0.1 < teeth.mean() < 0.6
    assert teeth.std(1).max() < 1e-5


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match=r"lifting\.num_steps"):
        LiftingConfig(num_steps=-1)
    with pytest.raises(ConfigError, match=r"lifting\.size"):
        LiftingConfig(size=2)
