"""Capsules: round trip, size, and every way in which a file can be wrong."""

import pytest
import safetensors.torch
import torch

from galatea.errors import InputError, WeightsError
from galatea.inversion.capsule import Capsule


def make_capsule(**changes):
    draw = torch.Generator().manual_seed(0)
    values = {
        "w_plus": torch.randn(4, 8, generator=draw),
        "camera": torch.randn(25, generator=draw),
        "identity": torch.randn(6, generator=draw),
        "expression": torch.rand(52, generator=draw),
        "generator": "builtin",
        "generator_sha256": "ab" * 32,
        "residuals": {"texture": torch.randn(2, 5, 5, generator=draw)},
        "delta": {"conv.weight.left": torch.randn(4, 2, generator=draw), "conv.weight.right": torch.randn(2, 9)},
        "metrics": {"psnr": 31.5},
    }
    return Capsule(**(values | changes))


def test_round_trip_keeps_latents_exactly_and_maps_to_half_precision():
    capsule = make_capsule(edit="older", w_offset=torch.ones(4, 8))
    read = Capsule.from_bytes(capsule.to_bytes())
    for name in ("w_plus", "camera", "identity", "expression", "w_offset"):
        assert torch.equal(getattr(read, name), getattr(capsule, name))
    assert read.identity_offset is None
    assert torch.allclose(read.residuals["texture"], capsule.residuals["texture"], atol=2e-3)
    assert set(read.delta) == set(capsule.delta)
    assert (read.edit, read.metrics, read.generator) == ("older", {"psnr": 31.5}, "builtin")


def test_bytes_are_deterministic():
    assert make_capsule(delta={}).to_bytes() == make_capsule(delta={}).to_bytes()


def test_large_residuals_saturate_instead_of_becoming_infinite():
    read = Capsule.from_bytes(make_capsule(residuals={"texture": torch.full((1, 2, 2), 1e9)}).to_bytes())
    assert torch.isfinite(read.residuals["texture"]).all()


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:40], lambda d: b"not a capsule", lambda d: d[:-4]])
def test_damaged_bytes_are_an_input_error(damage):
    with pytest.raises(InputError, match="capsule"):
        Capsule.from_bytes(damage(make_capsule().to_bytes()))


def test_another_safetensors_file_is_refused():
    with pytest.raises(InputError, match=r"expected a file of format 'galatea.capsule'"):
        Capsule.from_bytes(safetensors.torch.save({"w_plus": torch.zeros(1)}))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="w_plus"):
        Capsule.from_bytes(make_capsule(w_plus=torch.full((4, 8), float("nan"))).to_bytes())


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"camera.*\(25,\).*\(24,\)"):
        Capsule.from_bytes(make_capsule(camera=torch.zeros(24)).to_bytes())
    with pytest.raises(InputError, match="w_offset"):
        Capsule.from_bytes(make_capsule(w_offset=torch.zeros(4, 7)).to_bytes())


def test_another_checkpoint_is_refused():
    capsule = make_capsule()
    capsule.require_generator("ab" * 32)
    with pytest.raises(WeightsError, match="abababab"):
        capsule.require_generator("cd" * 32)
