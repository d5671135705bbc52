"""The anchored generator: expression is exact, residuals and cameras have gradients, checkpoints round-trip."""

from dataclasses import replace

import pytest
import torch

from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.anchored_config import AnchoredConfig
from galatea.eg3d.checkpoint import load_generator, save_generator
from galatea.eg3d.guided_sampling import SurfaceSampling
from galatea.eg3d.head_cast import HeadCast
from galatea.eg3d.lighting import HarmonicLight
from galatea.eg3d.painting import HairTint
from galatea.eg3d.provenance import GeneratorFacts
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.view_planes import ViewPlanes
from galatea.errors import ConfigError
from galatea.morphable.head import HeadCoefficients, HeadModel
from tests.small_generators import SMALL

CONFIG = replace(
    SMALL,
    code_fields=(("age", 1), ("skin", 3)),
    texture_size=64,
    plane_size=48,
    sampling=SurfaceSampling(num_search=20),
)


@pytest.fixture(scope="module")
def model():
    return HeadModel.load()


@pytest.fixture(scope="module")
def generator(model):
    torch.manual_seed(0)
    return AnchoredGenerator(CONFIG, model).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ws(generator):
    return generator.mapping(torch.tensor([[0.5, 0.1, -0.2, 0.3]]))


def camera(yaw_deg=0.0, count=1):
    return orbit(torch.full((count,), yaw_deg), torch.zeros(count))


def head(model, **actions):
    expression = torch.zeros(1, 52)
    for name, value in actions.items():
        expression[0, model.action_names.index(name)] = value
    return HeadCoefficients(torch.zeros(1, model.num_identity), expression)


def test_shapes_and_ranges(generator, ws, model):
    planes = generator.planes(ws, head(model))
    view = generator.render(planes, camera(count=2), ws)
    assert view.image.shape == (2, 3, 64, 64)
    assert view.image_raw.shape == (2, 3, 32, 32)
    assert view.depth.shape == view.alpha.shape == (2, 1, 32, 32)
    assert view.image_alpha.shape == (2, 1, 64, 64)
    assert view.image.abs().max() <= 1.2
    assert 0 <= view.alpha.min() <= view.alpha.max() <= 1
    assert torch.isfinite(view.depth).all()
    assert generator.code_fields == {"age": slice(0, 1), "skin": slice(1, 4)}


def test_the_head_is_opaque_and_as_deep_as_the_mesh(generator, ws, model):
    vertices = model.vertices(torch.zeros(1, model.num_identity), torch.zeros(1, 52))
    front = float(vertices[0, torch.unique(model.faces), 2].max())
    view = generator.synthesis(ws, camera(), head(model))
    assert view.alpha[0, 0, 14:22, 12:20].min() > 0.95
    nearest = float(camera()[0, 11] - view.depth[0, 0, 12:24, 12:20].min())
    assert abs(nearest - front) < 0.03


def test_an_open_mouth_is_dark_inside(generator, ws, model):
    wide = head(model, jawOpen=0.9)
    cast = generator.cast(wide)
    front = cast.views[0]
    inside = front.shade[0].mean(-1) > 0.3
    assert inside.sum() > 10
    bright = torch.zeros_like(front.shade)
    lit = HeadCast((replace(front, shade=bright), *cast.views[1:]), cast.skull)
    dark, even = (ViewPlanes.unpack(generator.planes(ws, seen)).surface[0, 0, ..., :3] for seen in (cast, lit))
    torch.testing.assert_close(dark[inside], even[inside] * (1 - front.shade[0][inside]))
    torch.testing.assert_close(dark[front.shade[0].amax(-1) == 0], even[front.shade[0].amax(-1) == 0])
    over_mesh = ViewPlanes.unpack(generator.planes(ws, cast)).features[0, 0, ..., generator.config.plane_features :]
    assert not over_mesh[inside[::2, ::2]].any()
    assert over_mesh[0, 0].any()


def test_an_open_mouth_changes_the_mouth_only(generator, ws, model):
    rest, opened = (generator.synthesis(ws, camera(), h) for h in (head(model), head(model, jawOpen=0.8)))
    change = (rest.image_raw - opened.image_raw).abs().sum(1)[0]
    assert change[20:].max() > 0.05
    assert change[:8].mean() < 0.005  # a pixel on the outline may be sampled otherwise


def test_planes_of_one_head_serve_many_cameras(generator, ws, model):
    planes = generator.planes(ws, head(model))
    labels = torch.cat([camera(-20.0), camera(25.0)])
    both = generator.render(planes, labels, ws)
    alone = generator.render(planes, labels[1:], ws)
    assert torch.allclose(both.image[1:], alone.image, atol=1e-5)


def test_a_cast_is_as_good_as_coefficients_and_expands(generator, ws, model):
    cast = generator.cast(head(model, mouthSmileLeft=0.5))
    direct = generator.planes(ws, head(model, mouthSmileLeft=0.5))
    assert torch.equal(generator.planes(ws, cast), direct)
    assert torch.allclose(generator.planes(ws.expand(3, -1, -1), cast)[2:], direct, atol=1e-5)
    with pytest.raises(ValueError, match="batch of 1 or 3"):
        generator.planes(ws.expand(3, -1, -1), cast.select(torch.tensor([0, 0])))


def test_explicit_rays_are_those_of_the_camera(generator, ws, model):
    planes = generator.planes(ws, head(model))
    label = camera(15.0)
    given = generator.render(planes, camera(), ws, rays=camera_rays(label, 32))
    expected = generator.render(planes, label, ws)
    assert torch.equal(given.image_raw, expected.image_raw)
    assert (given.image - expected.image).abs().max() < 0.05


def test_gradients_reach_latents_residuals_and_camera(generator, ws, model):
    latents = ws.clone().requires_grad_(True)
    label = camera(5.0).requires_grad_(True)
    residuals = {n: torch.zeros(1, *s, requires_grad=True) for n, s in generator.residual_shapes.items()}
    view = generator.synthesis(latents, label, head(model), residuals)
    (view.image.square().mean() + view.alpha.mean()).backward()
    for name, tensor in {"ws": latents, "camera": label, **residuals}.items():
        assert torch.isfinite(tensor.grad).all(), name
        assert tensor.grad.abs().max() > 0, name


def test_the_texture_residual_shows_and_moves_with_the_expression(generator, ws, model):
    red = {"texture": torch.zeros(1, *generator.residual_shapes["texture"])}
    red["texture"][:, 0] = 0.3
    for h in (head(model), head(model, jawOpen=0.6)):
        plain, reddened = (generator.synthesis(ws, camera(), h, r).image_raw[0] for r in (None, red))
        face = reddened[:, 12:22, 12:20] - plain[:, 12:22, 12:20]
        assert face[0].mean() > 0.2
        assert face[1:].abs().max() < 0.05


def test_the_tint_residual_colours_what_is_not_the_surface(generator, ws, model):
    red = {"tint": torch.zeros(1, *generator.residual_shapes["tint"])}
    red["tint"][:, 0] = 0.3
    plain, reddened = (generator.planes(ws, head(model), r) for r in (None, red))
    change = (ViewPlanes.unpack(reddened).features - ViewPlanes.unpack(plain).features)[0]
    assert change[0, ..., -3].min() > 0
    change[0, ..., -3] = 0
    assert not change.any()
    assert torch.equal(ViewPlanes.unpack(reddened).surface, ViewPlanes.unpack(plain).surface)


def test_wrong_arguments_are_named(generator, ws, model):
    with pytest.raises(ValueError, match="residuals"):
        generator.planes(ws, head(model), {"hat": torch.zeros(1)})
    with pytest.raises(ValueError, match="z: expected"):
        generator.mapping(torch.zeros(1, 9))
    with pytest.raises(ValueError, match="planes: expected"):
        generator.render(torch.zeros(1, 3, 8, 8, 8), camera(), ws)
    with pytest.raises(ConfigError, match="code_fields"):
        AnchoredConfig(code_fields=())
    with pytest.raises(ConfigError, match="head_version"):
        AnchoredConfig(code_fields=(("age", 1),), head_version=0)
    with pytest.raises(ConfigError, match="num_free"):
        SurfaceSampling(num_free=1)


def test_jitter_repeats_with_its_seed(generator, ws, model):
    planes = generator.planes(ws, head(model))
    first, second, third = (
        generator.render(planes, camera(), ws, generator=torch.Generator().manual_seed(seed)).image
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_checkpoint_round_trip(generator, ws, model, tmp_path):
    facts = save_generator(generator, tmp_path, GeneratorFacts(name="small", kind="anchored"), dtype=torch.float16)
    loaded = load_generator(tmp_path)
    assert loaded.is_anchored
    assert loaded.sha256 == facts.sha256
    assert loaded.config == CONFIG
    views = [g.synthesis(ws, camera(10.0), head(model)).image for g in (generator, loaded)]
    assert (views[0] - views[1]).abs().mean() < 0.01


def test_truncation_ends_at_the_mean(generator):
    z = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert torch.allclose(generator.mapping(z, truncation_psi=0.0)[0, 0], generator.w_avg)
    cut = generator.mapping(z, truncation_psi=0.0, truncation_cutoff=2)
    assert torch.equal(cut[:, 2:], generator.mapping(z)[:, 2:])


def test_hair_takes_another_colour_and_the_light_stays():
    torch.manual_seed(3)
    tint, light, w = HairTint(64), HarmonicLight(64, 8), torch.randn(2, 64)
    with torch.no_grad():
        for layer in (tint.read, light.read, light.lamps, light.average):
            layer.weight.normal_()
    change = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.0, 0.0]])
    moved = w + tint.shift(w, (light.read, light.lamps), change)
    torch.testing.assert_close(tint.read(moved), tint.read(w) + change, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(light(moved), light(w), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(moved[1], w[1])
