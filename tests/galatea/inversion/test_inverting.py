"""Inversion of small generators: it explains what they can show, portraits stay separate, results survive storage."""

from dataclasses import replace

import pytest
import torch

from galatea.errors import ConfigError, FitError
from galatea.inversion.binding import changed_weights, new_delta, personal_generator
from galatea.inversion.capsule import Capsule
from galatea.inversion.inverting import GeneratorIdentity, InversionConfig, invert
from galatea.inversion.objective import LossWeights, shown
from galatea.inversion.optimisation import Group, minimise
from galatea.inversion.pivotal import TuningConfig
from galatea.inversion.projector import ProjectionConfig, latent_statistics
from galatea.inversion.target import InversionTarget

QUICK = InversionConfig(
    ProjectionConfig(num_steps=5, num_candidates=4, resolution=16, search_resolution=16),
    TuningConfig(num_steps=12, resolution=None, map_lr=0.08, side_resolution=8),
    LossWeights(structure=0.0),
)
BRIEF = InversionConfig(
    ProjectionConfig(num_steps=3, num_candidates=2, resolution=16, search_resolution=16),
    TuningConfig(num_steps=8, resolution=None, delta_lr=0.02, side_weight=0.0, side_resolution=8),
    LossWeights(structure=0.0),
)
"""For plain generators, whose super-resolution is slow at any size."""
CHECKPOINT = GeneratorIdentity("small", "00" * 32)


def target_of(generator, small, tint, batch=1):
    """A target that the generator can nearly show: its own rendering, tinted."""
    size = generator.img_resolution
    head = small.head(batch) if generator.is_anchored else None
    ws = generator.mapping(torch.zeros(batch, generator.z_dim), small.camera(batch))
    with torch.no_grad():
        rendering = generator.synthesis(ws, small.camera(batch), head)
        background = torch.zeros(batch, 3, size, size)
        image = (shown(rendering, background) + torch.tensor(tint).view(1, 3, 1, 1)).clamp(-1, 1)
    ones = torch.ones(batch, 1, size, size)
    matte = ones if rendering.image_alpha is None else (rendering.image_alpha > 0.5).float()
    return InversionTarget(matte * image, background, matte, matte, matte, small.camera(batch), head)


@pytest.mark.parametrize("kind", ["anchored", "plain"])
def test_inversion_comes_close_to_what_the_start_did_not_show(small, kind):
    generator = getattr(small, kind)()
    target = target_of(generator, small, (0.4, -0.2, 0.0))
    statistics = latent_statistics(generator, 8)
    config = QUICK if kind == "anchored" else BRIEF
    none = replace(
        config, projection=replace(config.projection, num_steps=0), tuning=replace(config.tuning, num_steps=0)
    )
    before = invert(generator, CHECKPOINT, target, statistics, none)
    after = invert(generator, CHECKPOINT, target, statistics, config)
    assert after.psnr.item() > before.psnr.item() + 1
    assert bool(after.capsules[0].residuals) == generator.is_anchored
    assert bool(after.capsules[0].delta) == (not generator.is_anchored)


def test_a_stored_capsule_renders_as_it_was_inverted(small):
    generator = small.plain()
    target = target_of(generator, small, (0.4, -0.2, 0.0))
    inversion = invert(generator, CHECKPOINT, target, latent_statistics(generator, 8), BRIEF)
    capsule = Capsule.from_bytes(inversion.capsules[0].to_bytes())
    personal = personal_generator(generator, capsule.delta)
    with torch.no_grad():
        rendering = personal.synthesis(capsule.w_plus[None], capsule.camera[None])
    assert torch.allclose(shown(rendering, target.background).clamp(-1, 1), inversion.reconstruction, atol=0.02)


def test_portraits_of_a_batch_do_not_influence_each_other(small):
    generator = small.anchored()
    target = target_of(generator, small, (0.4, -0.2, 0.0), batch=2)
    # Beside another portrait, not alone: sums of another order, in bfloat16, would drift apart over the steps.
    shades = (torch.tensor([other, 0.3]).view(2, 1, 1, 1) for other in (1.0, 0.6))
    statistics = latent_statistics(generator, 8)
    first, second = (
        invert(generator, CHECKPOINT, replace(target, image=target.image * shade), statistics, QUICK)
        for shade in shades
    )
    assert first.psnr[0].item() != pytest.approx(second.psnr[0].item(), abs=0.01)
    assert first.psnr[1].item() == pytest.approx(second.psnr[1].item(), abs=0.01)


def test_weight_changes_belong_to_one_portrait(small):
    generator = small.plain()
    target = target_of(generator, small, (0.1, 0.0, 0.0), batch=2)
    with pytest.raises(ConfigError, match="batch_size 1"):
        invert(generator, CHECKPOINT, target, latent_statistics(generator, 8), BRIEF)


def test_fresh_weight_changes_change_nothing(small):
    generator = small.plain()
    weights = dict(generator.named_parameters())
    for name, value in changed_weights(generator, new_delta(generator, 2, 0)).items():
        assert torch.equal(value, weights[name])


def test_minimising_finds_the_minimum():
    x = torch.zeros(3, requires_grad=True)
    goal = torch.tensor([1.0, -2.0, 0.5])
    losses = minimise(lambda _: (x - goal).square(), [Group([x], 0.1)], 200)
    assert torch.allclose(x, goal, atol=0.05)
    assert (losses < 0.01).all()


def test_a_diverging_objective_is_a_fit_error():
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(FitError, match="finite"):
        minimise(lambda _: x / 0, [Group([x], 0.1)], 3)


@pytest.mark.parametrize("change", [{"num_steps": -1}, {"lr": -0.1}])
def test_bad_settings_name_their_field(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        ProjectionConfig(**change)
