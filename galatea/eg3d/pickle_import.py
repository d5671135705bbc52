"""Imports official EG3D checkpoints without trusting them: pickle in, safetensors and JSON out, nothing executed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galatea.eg3d import checkpoint
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.generator_config import GeneratorConfig
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.modulation import fir_filter
from galatea.eg3d.pickle_module import (
    ALLOWED,
    STORAGE_MAGIC,
    Module,
    StoredTensor,
    as_dict,
    as_module,
    as_plain,
    as_tensor,
    tensors,
)
from galatea.eg3d.pickle_reader import PickleReader
from galatea.eg3d.pickle_records import Budget
from galatea.eg3d.provenance import GeneratorFacts
from galatea.eg3d.ray_sampling import RenderingOptions
from galatea.eg3d.synthesis import SynthesisLayer
from galatea.errors import ConfigError, WeightsError

LICENCE = "NVIDIA Source Code License for EG3D (non-commercial)"
GENERATOR_CLASS = "TriPlaneGenerator"
POSITIONAL = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
"""Order of the reference generator's positional arguments."""
FILTER_SUFFIX = "resample_filter"
GAIN_TOLERANCE = 1e-5
MAX_FILE_BYTES = 2 << 30
"""A full training snapshot is about 0.5 GB."""


@dataclass(frozen=True)
class OfficialGenerator:
    """An official generator as read from its pickle: configuration in our terms, and its tensors, still in the file."""

    config: GeneratorConfig
    module: Module
    stored: dict[str, StoredTensor]


def import_official(path: str | Path, out_dir: str | Path) -> GeneratorFacts:
    """Convert an official EG3D pickle (`G_ema`, also inside a training snapshot) into a checkpoint of ours.

    Args:
        path: the pickle.
        out_dir: folder of the result: `<stem>.safetensors` and `<stem>.json`.

    Returns:
        Provenance: names, hashes, licence.

    Raises:
        WeightsError: if the file is damaged, asks for anything beyond the allowed globals, or is not an EG3D generator.
    """
    path = Path(path)
    source_sha256 = checkpoint.hash_file(path)
    generator = read_official(path)
    facts = GeneratorFacts(
        name=path.stem,
        kind="plain",
        version="EG3D (Chan et al. 2022), imported",
        licence=LICENCE,
        is_commercial_use_allowed=False,
        source=path.name,
        source_sha256=source_sha256,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return checkpoint.save_generator(generator, out_dir, facts, stem=path.stem)


def read_official(path: str | Path) -> TriPlaneGenerator:
    """Return the generator of an official EG3D pickle; see `import_official`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            _refuse_other_formats(path, file.read(64))
        if path.stat().st_size > MAX_FILE_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; expected an official EG3D pickle")
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    return _read_buffer(memoryview(data), path)


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Say what a file is that is not a pickle of protocol 2 or later."""
    if len(start) < 2:
        raise WeightsError(f"{path}: empty; expected an official EG3D pickle")
    if start.startswith(b"PK"):
        raise WeightsError(
            f"{path}: an archive made by torch.save, not an official EG3D pickle; generators tuned to a person (PTI) "
            "are not read, bring the .pkl that it was tuned from"
        )
    if start[8:9] == b"{" and not start[6:8].strip(b"\0"):
        raise WeightsError(f"{path}: a safetensors file; an imported checkpoint is loaded as it is (load_generator)")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"version https://git-lfs")):
        raise WeightsError(f"{path}: a text (web page or Git LFS pointer), not an EG3D pickle; download it again")
    if start[0] != 0x80:
        raise WeightsError(f"{path}: not a pickle; expected an official EG3D checkpoint (.pkl)")


def _read_buffer(data: memoryview, path: Path) -> TriPlaneGenerator:
    """Return the generator from the bytes of a pickle."""
    try:
        budget = Budget()
        official = _inspect(PickleReader(data, ALLOWED, budget).read(), budget)
        shapes = {name: tensor.shape for name, tensor in official.stored.items()}
        checkpoint.compare_shapes(shapes, checkpoint.expected_shapes(TriPlaneGenerator, official.config), "G_ema")
        state = {name: _checked(name, tensor.to_tensor()) for name, tensor in official.stored.items()}
        generator = checkpoint.build(TriPlaneGenerator, official.config, state)
        _compare_layers(generator, official.module)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return generator


def _inspect(root: Any, budget: Budget) -> OfficialGenerator:
    """Return configuration and tensors of `G_ema`."""
    if isinstance(root, int) and root == STORAGE_MAGIC:
        raise WeightsError("a state made by torch.save, not an official EG3D pickle; bring the .pkl that it comes from")
    snapshot = as_dict(root, "the file")
    if "G_ema" not in snapshot:
        raise WeightsError("no 'G_ema' in it; expected an official EG3D checkpoint")
    module = as_module(snapshot["G_ema"])
    if module.class_name != GENERATOR_CLASS:
        raise WeightsError(
            f"holds a network {module.class_name!r}; expected {GENERATOR_CLASS!r} (is it a StyleGAN checkpoint?)"
        )
    stored = dict(tensors(module, budget))
    _refuse_other_planes(module, stored)
    axes = as_tensor(module.child("renderer").attributes.get("plane_axes"), "renderer.plane_axes", budget)
    if axes.shape != (3, 3, 3):
        raise WeightsError(f"renderer.plane_axes: expected shape (3, 3, 3), found {axes.shape}")
    config = _config(module, _checked("renderer.plane_axes", axes.to_tensor()))
    # The 2X, 4X and 8X modules carry a filter of their own that nothing reads.
    stored.pop(f"superresolution.{FILTER_SUFFIX}", None)
    return OfficialGenerator(config, module, stored)


def _refuse_other_planes(module: Module, stored: dict[str, StoredTensor]) -> None:
    """Say so if the planes are not EG3D's: PanoHead's tri-grids, for example, have several layers in each."""
    channels = _integer(module.child("backbone").child("synthesis").attributes, "img_channels")
    decoder = stored.get("decoder.net.0.weight")
    if decoder is not None and len(decoder.shape) == 2 and channels != 3 * decoder.shape[1]:
        raise WeightsError(
            f"paints {channels} channels for a decoder of {decoder.shape[1]} features; expected 3 planes of EG3D, "
            f"{3 * decoder.shape[1]} channels (is it a PanoHead checkpoint with tri-grids? they are not supported)"
        )


def _checked(name: str, value: Tensor) -> Tensor:
    """Return a finite tensor; low-pass filters must be the one that this library applies."""
    value = checkpoint.check_finite(value, name)
    if name.endswith(FILTER_SUFFIX) and not torch.allclose(value, fir_filter()):
        raise WeightsError(f"{name}: expected the [1, 3, 3, 1] low-pass")
    return value


def _config(module: Module, plane_axes: Tensor) -> GeneratorConfig:
    """Return the configuration that an official generator was built with."""
    arguments = _arguments(module)
    rendering = {
        str(key): as_plain(value, f"rendering_kwargs[{str(key)[:50]!r}]")
        for key, value in as_dict(module.attributes.get("rendering_kwargs"), "rendering_kwargs").items()
    }
    mapping = module.child("backbone").child("mapping").attributes
    synthesis = module.child("backbone").child("synthesis")
    superresolution = module.child("superresolution")
    if rendering.get("clamp_mode") != "softplus":
        raise WeightsError(f"rendering_kwargs: clamp_mode {str(rendering.get('clamp_mode'))[:50]!r} is not supported")
    try:
        return GeneratorConfig(
            z_dim=_integer(arguments, "z_dim"),
            c_dim=_integer(arguments, "c_dim"),
            w_dim=_integer(arguments, "w_dim"),
            num_mapping_layers=_integer(mapping, "num_layers"),
            plane_resolution=_integer(synthesis.attributes, "img_resolution"),
            plane_channels=_integer(synthesis.attributes, "img_channels") // 3,
            channel_base=_integer(arguments, "channel_base", 32768),
            channel_max=_integer(arguments, "channel_max", 512),
            conv_clamp=_clamp(synthesis.child("b8").child("conv0")),
            neural_rendering_resolution=_integer(module.attributes, "neural_rendering_resolution"),
            superresolution=superresolution.class_name.removeprefix("SuperresolutionHybrid"),
            superresolution_noise_mode=rendering.get("superresolution_noise_mode", "none"),
            superresolution_conv_clamp=_clamp(superresolution.child("block0").child("conv0")),
            is_superresolution_antialiased=bool(rendering.get("sr_antialias", True)),
            is_conditioning_zero=bool(rendering.get("c_gen_conditioning_zero", False)),
            conditioning_scale=float(rendering.get("c_scale") or 0.0),
            decoder_lr_multiplier=float(rendering.get("decoder_lr_mul") or 1.0),
            plane_axes=tuple(tuple(tuple(row) for row in plane) for plane in plane_axes.tolist()),
            rendering=_rendering_options(rendering),
        )
    except (ConfigError, TypeError, ValueError) as error:
        raise WeightsError(f"configuration: {error}") from error


def _arguments(module: Module) -> dict[str, Any]:
    """Return the arguments that the generator was built with, by name, options of the synthesis network included."""
    positional = module.attributes.get("_init_args")
    positional = positional if isinstance(positional, list | tuple) else ()
    return dict(zip(POSITIONAL, positional, strict=False)) | as_dict(
        module.attributes.get("_init_kwargs"), "_init_kwargs"
    )


def _rendering_options(rendering: dict[str, Any]) -> RenderingOptions:
    """Return the sampling of rays."""
    missing = [key for key in ("depth_resolution", "ray_start", "ray_end", "box_warp") if key not in rendering]
    if missing:
        raise WeightsError(f"rendering_kwargs: {missing} missing")
    is_box_bounded = rendering["ray_start"] == rendering["ray_end"] == "auto"
    for key in ("box_warp",) if is_box_bounded else ("ray_start", "ray_end", "box_warp"):
        if not isinstance(rendering[key], int | float):
            raise WeightsError(f"rendering_kwargs: {key}: expected a number, found {str(rendering[key])[:50]!r}")
    usual = RenderingOptions()
    near, far = (usual.ray_start, usual.ray_end) if is_box_bounded else (rendering["ray_start"], rendering["ray_end"])
    return RenderingOptions(
        ray_start=float(near),
        ray_end=float(far),
        depth_resolution=_integer(rendering, "depth_resolution"),
        depth_resolution_importance=_integer(rendering, "depth_resolution_importance", 0),
        is_box_bounded=is_box_bounded,
        box_warp=float(rendering["box_warp"]),
        white_back=bool(rendering.get("white_back", False)),
        disparity_space_sampling=bool(rendering.get("disparity_space_sampling", False)),
    )


def _integer(values: dict[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number of a dictionary."""
    value = as_plain(values.get(name, default), name)
    if type(value) is not int or not 0 <= value < 1 << 20:
        raise WeightsError(f"{name}: expected a whole number, found {str(value)[:50]!r}")
    return value


def _clamp(layer: Module) -> float | None:
    """Return the clamp of a layer's activations."""
    value = as_plain(layer.attributes.get("conv_clamp"), "conv_clamp")
    return float(value) if value else None


def _compare_layers(generator: TriPlaneGenerator, module: Module) -> None:
    """Check what shapes do not show: run-time gains, up-sampling and activations of every layer."""
    for name, layer in generator.named_modules():
        expected: dict[str, Any] = {}
        if isinstance(layer, FullyConnectedLayer):
            expected = {"weight_gain": layer.weight_gain, "bias_gain": layer.bias_gain, "activation": layer.activation}
        elif isinstance(layer, SynthesisLayer):
            expected = {"up": 2 if layer.is_upsampling else 1, "use_noise": True, "activation": "lrelu"}
        if not expected:
            continue
        attributes = _descend(module, name).attributes
        for key, value in expected.items():
            found = as_plain(attributes.get(key, value), f"{name}.{key}")
            is_equal = found == value
            if isinstance(value, float) and isinstance(found, int | float):
                is_equal = abs(found - value) <= GAIN_TOLERANCE * abs(value)
            if not is_equal:
                raise WeightsError(f"{name}.{key}: expected {value}, found {str(found)[:50]}")


def _descend(module: Module, name: str) -> Module:
    """Return the module at a dotted name."""
    for part in name.split("."):
        module = module.child(part)
    return module
