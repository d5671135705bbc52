"""The faster ways of large layers give the numbers of the plain ones."""

import pytest
import torch
import torch.nn.functional as F

from galatea.eg3d import styled, winograd
from galatea.eg3d.modulation import convolve, convolve_transposed, fir_filter, modulated_conv2d, modulated_mixture
from galatea.eg3d.synthesis import SynthesisLayer


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("shape", [(2, 5, 8, 16), (1, 3, 4, 4), (1, 1, 12, 4)])
def test_tiles_give_the_convolution_and_its_gradients(shape) -> None:
    x, weight, bias = drawn(*shape), drawn(6, shape[1], 3, 3, seed=1), drawn(6, seed=2)
    inputs = [value.requires_grad_() for value in (x, weight, bias)]
    found, expected = winograd.convolve(*inputs), F.conv2d(*inputs, padding=1)
    torch.testing.assert_close(found, expected)
    weights = drawn(*found.shape, seed=3)
    for one, other in zip(
        torch.autograd.grad(found, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_tiles_are_exact_enough_in_single_precision() -> None:
    x, weight = drawn(1, 96, 64, 64, dtype=torch.float32), drawn(80, 96, 3, 3, seed=1, dtype=torch.float32)
    assert winograd.is_worthwhile(x, 80)
    assert relative(winograd.convolve(x, weight).double(), F.conv2d(x.double(), weight.double(), padding=1)) < 1e-5


def test_second_derivatives_in_the_input() -> None:
    x, weight = drawn(1, 2, 4, 8).requires_grad_(), drawn(3, 2, 3, 3, seed=1)
    assert torch.autograd.gradgradcheck(lambda v: winograd.convolve(v, weight).square(), (x,))


def test_small_and_odd_images_are_left_to_torch() -> None:
    assert not winograd.is_worthwhile(torch.zeros(1, 256, 32, 32), 256)
    assert not winograd.is_worthwhile(torch.zeros(1, 256, 66, 64), 256)
    assert not winograd.is_worthwhile(torch.zeros(1, 16, 64, 64), 256)
    assert not winograd.is_worthwhile(torch.zeros(1, 256, 64, 64, dtype=torch.float64), 256)


@pytest.mark.parametrize("kernel", [None, fir_filter().double()], ids=["same size", "doubled"])
def test_the_transpose_of_a_convolution(kernel) -> None:
    x, weight = drawn(1, 3, 6, 6), drawn(70, 3, 3, 3, seed=1)
    y = convolve(x, weight, None, kernel)
    other = drawn(*y.shape, seed=2)
    torch.testing.assert_close((y * other).sum(), (x * convolve_transposed(other, weight, kernel)).sum())


@pytest.mark.parametrize("is_upsampling", [False, True], ids=["same size", "doubled"])
@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_a_layer_of_which_only_the_style_is_learned(is_upsampling, noise_mode) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = SynthesisLayer(66, 70, 8, 16, is_upsampling=is_upsampling).double()
        layer.noise_strength.data.fill_(0.3)
        layer.bias.data.normal_()
    size = 8 if is_upsampling else 16
    x, w = drawn(1, 66, size, size).requires_grad_(), drawn(1, 8, seed=1).requires_grad_()
    expected = layer(x, w, noise_mode)
    weights = drawn(*expected.shape, seed=2)
    expected_gradients = torch.autograd.grad(expected, (x, w), weights)
    layer.requires_grad_(False)
    assert styled.is_applicable(x, layer.weight, layer.affine(w), layer.bias)
    found = layer(x, w, noise_mode)
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, (x, w), weights), expected_gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("out_channels", [3, 20])
@pytest.mark.parametrize("has_own_weights", [False, True])
def test_mixing_many_channels(batch, out_channels, has_own_weights) -> None:
    leading = (batch,) if has_own_weights else ()
    x, styles = drawn(batch, 70, 4, 6), drawn(batch, 70, seed=1)
    weight, bias = drawn(*leading, out_channels, 70, 1, 1, seed=2), drawn(*leading, out_channels, seed=3)
    expected = modulated_conv2d(x, weight, styles, bias, is_demodulated=False)
    torch.testing.assert_close(modulated_mixture(x, weight, styles, bias), expected)
