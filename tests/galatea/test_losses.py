"""Losses: zero for equals, separable by image, weighted, differentiable."""

import pytest
import torch

from galatea import losses

PICTURE_LOSSES = [losses.l1_loss, losses.gradient_loss, losses.structure_loss]


@pytest.fixture
def pair():
    draw = torch.Generator().manual_seed(3)
    return torch.rand(2, 3, 32, 32, generator=draw) * 2 - 1, torch.rand(2, 3, 32, 32, generator=draw) * 2 - 1


@pytest.mark.parametrize("loss", PICTURE_LOSSES)
def test_equal_images_cost_nothing(loss, pair):
    assert torch.allclose(loss(pair[0], pair[0], torch.ones(2, 1, 32, 32)), torch.zeros(2), atol=1e-4)


@pytest.mark.parametrize("loss", PICTURE_LOSSES)
def test_images_of_a_batch_do_not_touch_each_other(loss, pair):
    image, target = pair
    weight = torch.ones(2, 1, 32, 32)
    both = loss(image, target, weight)
    assert torch.allclose(both[1], loss(image[1:], target[1:], weight[1:])[0], atol=1e-6)


@pytest.mark.parametrize("loss", [losses.l1_loss, losses.gradient_loss])
def test_what_the_weight_excludes_does_not_count(loss, pair):
    image = pair[0].clone()
    changed = image.clone()
    changed[..., :16] = 1
    weight = torch.zeros(2, 1, 32, 32)
    weight[..., 24:] = 1
    assert torch.allclose(loss(changed, image, weight), torch.zeros(2), atol=1e-6)


@pytest.mark.parametrize("loss", PICTURE_LOSSES)
def test_gradient_descent_lowers_the_loss(loss, pair):
    image, target = pair[0].clone().requires_grad_(), pair[1]
    weight = torch.ones(2, 1, 32, 32)
    before = loss(image, target, weight).sum()
    (step,) = torch.autograd.grad(before, image)
    after = loss(image - 0.5 * step / step.abs().max() * 0.1, target, weight).sum()
    assert torch.isfinite(step).all()
    assert after < before


def test_matte_loss_is_the_mean_difference():
    alpha = torch.zeros(1, 1, 8, 8)
    matte = torch.ones(1, 1, 32, 32)
    assert losses.matte_loss(alpha, matte).item() == pytest.approx(1.0)


def test_total_variation_of_a_ramp_is_its_slope():
    ramp = torch.arange(8.0).repeat(1, 1, 8, 1)
    assert losses.total_variation(ramp).item() == pytest.approx(1.0)
