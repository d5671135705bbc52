"""Checkpoints: what is saved comes back, and what is damaged is refused with a reason."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from galatea.eg3d.checkpoint import hash_file, load_generator, save_generator
from galatea.eg3d.provenance import GeneratorFacts
from galatea.errors import WeightsError

FACTS = GeneratorFacts(name="tiny", kind="plain", licence="CC0", is_commercial_use_allowed=True, source="a test")


@pytest.fixture
def saved(tiny_generator, tmp_path) -> Path:
    save_generator(tiny_generator, tmp_path, FACTS, stem="tiny")
    return tmp_path / "tiny.json"


def change(path: Path, **changes) -> None:
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))


def exchange_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write other weights with a hash that fits them."""
    weights = path.with_suffix(".safetensors")
    save_file(state, weights)
    change(path, weights={"file": weights.name, "sha256": hash_file(weights)})


@pytest.mark.parametrize("given", ["tiny.json", "tiny.safetensors", "tiny", ""])
def test_a_saved_generator_comes_back(tiny_generator, saved, given) -> None:
    loaded = load_generator(saved.parent / given)
    assert loaded.config == tiny_generator.config
    for name, value in tiny_generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training
    facts = loaded.describe()
    assert (facts.name, facts.kind, facts.licence, facts.is_commercial_use_allowed) == ("tiny", "plain", "CC0", True)
    assert facts.sha256 == hash_file(saved.with_suffix(".safetensors"))
    assert facts.num_parameters == sum(p.numel() for p in tiny_generator.parameters())


def test_half_precision_halves_the_file_and_loads_as_float32(tiny_generator, tmp_path) -> None:
    save_generator(tiny_generator, tmp_path / "full", FACTS, stem="generator")
    save_generator(tiny_generator, tmp_path / "half", FACTS, stem="generator", dtype=torch.float16)
    loaded = load_generator(tmp_path / "half")
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    sizes = [(tmp_path / name / "generator.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.75 * sizes[0]


def test_loading_leaves_the_global_random_state_alone(saved) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load_generator(saved)
    assert torch.equal(torch.rand(1), expected)


def test_nothing_partial_is_left_behind(saved) -> None:
    assert sorted(path.name for path in saved.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_missing_and_damaged_weights_are_refused(saved) -> None:
    weights = saved.with_suffix(".safetensors")
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    with pytest.raises(WeightsError, match="damaged or exchanged"):
        load_generator(saved)
    change(saved, weights={"file": weights.name, "sha256": hash_file(weights)})
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_generator(saved)
    weights.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_generator(saved)
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load_generator(saved.parent / "other.json")


def test_weights_that_do_not_fit_are_listed(saved) -> None:
    state = load_file(saved.with_suffix(".safetensors"))
    state["decoder.net.0.weight"] = torch.zeros(3, 3)
    state["mystery"] = torch.zeros(1)
    del state["decoder.net.0.bias"]
    exchange_weights(saved, state)
    with pytest.raises(WeightsError) as error:
        load_generator(saved)
    message = str(error.value)
    assert "missing (1): decoder.net.0.bias" in message
    assert "unknown (1): mystery" in message
    assert "decoder.net.0.weight: expected (64, 4), found (3, 3)" in message


def test_weights_with_nan_are_refused(saved) -> None:
    state = load_file(saved.with_suffix(".safetensors"))
    state["decoder.net.0.bias"][0] = float("nan")
    exchange_weights(saved, state)
    with pytest.raises(WeightsError, match=r"decoder\.net\.0\.bias: holds NaN"):
        load_generator(saved)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "other"}, "not a generator checkpoint"),
        ({"format_version": 99}, "format version 1, found 99"),
        ({"kind": "stylegan2"}, "unknown kind 'stylegan2'"),
        ({"weights": {"file": "../tiny.safetensors", "sha256": ""}}, "name of a file beside it"),
        ({"weights": []}, "'weights' must give"),
        ({"provenance": None}, "'provenance' is missing"),
        ({"config": {"z_dims": 3}}, "unknown configuration keys"),
        ({"config": {"z_dim": "3"}}, "z_dim: expected"),
        ({"config": {"z_dim": 0}}, "z_dim: expected at least 1"),
        ({"config": {"z_dim": 1 << 60}}, "z_dim"),
        ({"config": {"num_mapping_layers": 1 << 40}}, "num_mapping_layers"),
        ({"config": {"plane_resolution": 1 << 40}}, "plane_resolution"),
        ({"config": {"rendering": {"box_warp": -1.0}}}, "box_warp"),
        ({"config": []}, "expected an object"),
    ],
)
def test_a_wrong_description_is_refused(saved, changes, reason) -> None:
    change(saved, **changes)
    with pytest.raises(WeightsError, match=reason):
        load_generator(saved)


def test_other_files_are_refused(tmp_path) -> None:
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(WeightsError, match="not a readable JSON"):
        load_generator(tmp_path / "text.json")
    with pytest.raises(WeightsError, match="import it first"):
        load_generator(tmp_path / "ffhq.pkl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="expected one checkpoint"):
        load_generator(tmp_path / "empty")


def test_facts_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FACTS.name = "other"
