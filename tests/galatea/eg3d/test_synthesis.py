"""Modulated convolutions against their definition, and the networks built from them."""

import pytest
import torch
import torch.nn.functional as F

from galatea.eg3d.mapping import FullyConnectedLayer, MappingNetwork
from galatea.eg3d.modulation import fir_filter, modulated_conv2d, pixel_noise, upsample_2x
from galatea.eg3d.synthesis import SynthesisLayer, SynthesisNetwork


def plain_upsampling(x: torch.Tensor, pad: tuple[int, int]) -> torch.Tensor:
    """Zeros between pixels, padding, low-pass with gain 4: the definition."""
    batch, channels, height, width = x.shape
    wide = x.new_zeros(batch, channels, height, 2, width, 2)
    wide[:, :, :, 0, :, 0] = x
    wide = F.pad(wide.reshape(batch, channels, 2 * height, 2 * width), (*pad, *pad))
    return F.conv2d(wide, (fir_filter() * 4).expand(channels, 1, 4, 4), groups=channels)


def plain_modulated(x, weight, styles, is_upsampling=False):
    """One sample at a time, scaling the weights as the paper says."""
    rows = []
    for sample, style in zip(x, styles, strict=True):
        scaled = weight * style[None, :, None, None]
        scaled = scaled * (scaled.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if is_upsampling:
            height, width = sample.shape[1:]
            wide = sample.new_zeros(1, sample.shape[0], height, 2, width, 2)
            wide[:, :, :, 0, :, 0] = sample
            wide = F.pad(wide.reshape(1, -1, 2 * height, 2 * width), (2, 1, 2, 1))
            convolved = F.conv2d(wide, scaled.flip((2, 3)))
            channels = convolved.shape[1]
            kernel = (fir_filter() * 4).expand(channels, 1, 4, 4)
            rows.append(F.conv2d(convolved, kernel, padding=1, groups=channels))
        else:
            rows.append(F.conv2d(sample[None], scaled, padding=1))
    return torch.cat(rows)


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(2, 5, 6, 6, generator=generator),
        torch.randn(7, 5, 3, 3, generator=generator),
        torch.randn(2, 5, generator=generator) + 1,
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kernel", [None, fir_filter()], ids=["same size", "doubled"])
def test_modulated_convolution_follows_its_definition(drawn, batch, kernel) -> None:
    x, weight, styles = drawn[0][:batch], drawn[1], drawn[2][:batch]
    bias = torch.arange(7.0)
    found = modulated_conv2d(x, weight, styles, bias, upsampling_kernel=kernel, gain=1.5)
    expected = plain_modulated(x, weight, styles, is_upsampling=kernel is not None)
    torch.testing.assert_close(found, expected * 1.5 + bias[:, None, None], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
def test_without_demodulation_styles_only_scale(drawn, batch) -> None:
    x, weight, styles = drawn[0][:batch], drawn[1], drawn[2][:batch]
    found = modulated_conv2d(x, weight, styles, torch.zeros(7), is_demodulated=False)
    expected = F.conv2d(x * styles[:, :, None, None], weight, padding=1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", [None, fir_filter()], ids=["same size", "doubled"])
def test_every_sample_may_have_weights_of_its_own(drawn, kernel) -> None:
    x, weight, styles = drawn
    other = weight.roll(1, 0) * 0.5
    found = modulated_conv2d(x, torch.stack([weight, other]), styles, torch.ones(2, 7), upsampling_kernel=kernel)
    expected = torch.cat(
        [
            modulated_conv2d(x[i : i + 1], w, styles[i : i + 1], torch.ones(7), upsampling_kernel=kernel)
            for i, w in enumerate((weight, other))
        ]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_image_upsampling_follows_its_definition(drawn) -> None:
    torch.testing.assert_close(upsample_2x(drawn[0], fir_filter()), plain_upsampling(drawn[0], (2, 1)))


def test_demodulated_output_has_unit_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 32, 32, generator=generator)
    styles = torch.rand(1, 64, generator=generator) * 3
    y = modulated_conv2d(x, torch.randn(64, 64, 3, 3, generator=generator), styles, torch.zeros(64))
    assert float(y.std()) == pytest.approx(1.0, abs=0.05)


def test_batched_parameters_tune_samples_apart() -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(4, 6, 8, 8)
    x, w = torch.randn(2, 4, 8, 8), torch.randn(2, 8)
    delta = torch.zeros(2, 6, 4, 3, 3)
    delta[1] = 0.3
    bias = torch.stack([layer.bias, layer.bias + 1])
    tuned = torch.func.functional_call(layer, {"weight": layer.weight + delta, "bias": bias}, (x, w))
    torch.testing.assert_close(tuned[:1], layer(x[:1], w[:1]), atol=1e-5, rtol=1e-4)
    assert (tuned[1] - layer(x, w)[1]).abs().mean() > 0.1


@pytest.mark.parametrize(("resolution", "channels"), [(16, 96), (32, 5)])
def test_synthesis_network_paints_any_size_and_channel_count(resolution, channels) -> None:
    network = SynthesisNetwork(16, resolution, channels, channel_base=64, channel_max=8)
    assert network.num_ws == 2 * (resolution.bit_length() - 2)
    assert network(torch.randn(2, network.num_ws, 16)).shape == (2, channels, resolution, resolution)


def test_gradients_reach_ws_and_every_parameter() -> None:
    network = SynthesisNetwork(8, 8, 3, channel_base=32, channel_max=4)
    ws = torch.randn(1, network.num_ws, 8, requires_grad=True)
    network(ws).square().mean().backward()
    assert ws.grad is not None
    assert bool((ws.grad.abs().sum(-1) > 0).all())
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_noise_modes() -> None:
    network = SynthesisNetwork(8, 8, 3, channel_base=32, channel_max=4)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(1.0)
    ws = torch.randn(1, network.num_ws, 8)
    draw = [network(ws, "random", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    assert torch.equal(network(ws, "const"), network(ws, "const"))
    assert not torch.equal(network(ws, "const"), network(ws, "none"))
    with pytest.raises(ValueError, match="noise_mode"):
        pixel_noise("loud", torch.zeros(2, 2), 1, None)


def test_wrong_shapes_are_named() -> None:
    network = SynthesisNetwork(8, 8, 3, channel_base=32, channel_max=4)
    with pytest.raises(ValueError, match=r"ws: expected shape \(batch, 4, 8\), got \(1, 3, 8\)"):
        network(torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="power of two"):
        SynthesisNetwork(8, 24, 3)
    with pytest.raises(ValueError, match="activation"):
        FullyConnectedLayer(2, 2, "tanh")


def test_mapping_truncates_towards_the_mean() -> None:
    torch.manual_seed(0)
    mapping = MappingNetwork(4, 25, 8, num_ws=5, num_layers=2)
    mapping.w_avg.normal_()
    z, c = torch.randn(3, 4), torch.randn(3, 25)
    full = mapping(z, c)
    torch.testing.assert_close(mapping(z, c, 0.0), mapping.w_avg.expand(3, 5, 8))
    partly = mapping(z, c, 0.5, 2)
    torch.testing.assert_close(partly[:, 2:], full[:, 2:])
    torch.testing.assert_close(partly[:, :2], (full[:, :2] + mapping.w_avg) / 2)
    with pytest.raises(ValueError, match="z: expected shape"):
        mapping(torch.randn(3, 5), c)
    with pytest.raises(ValueError, match="c: expected shape"):
        mapping(z, None)
