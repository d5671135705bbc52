"""Writes generators in the format of official EG3D pickles, for tests: the same calls and globals, random weights."""

import collections
import io
import pickle  # written here, never read: the importer has no unpickler in it
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from galatea.eg3d import TriPlaneGenerator
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.synthesis import SynthesisLayer

CLASS_NAMES = {
    "": "TriPlaneGenerator",
    "backbone": "Generator",
    "backbone.mapping": "MappingNetwork",
    "backbone.synthesis": "SynthesisNetwork",
    "superresolution": "SuperresolutionHybrid2X",
}
NATIVE = {
    "decoder": ("training.triplane", "OSGDecoder"),
    "decoder.net": ("torch.nn.modules.container", "Sequential"),
    "decoder.net.1": ("torch.nn.modules.activation", "Softplus"),
    "renderer": ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
}
FUNCTIONS = {
    "torch_utils.persistence": "_reconstruct_persistent_obj",
    "torch._utils": "_rebuild_parameter _rebuild_tensor_v2",
    "torch.storage": "_load_from_bytes",
}


class Called:
    """Pickles as `function(*arguments)` with a state."""

    def __init__(self, function, arguments, state=None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        return (
            (self.function, self.arguments, self.state) if self.state is not None else (self.function, self.arguments)
        )


@contextmanager
def official_names() -> Iterator[types.SimpleNamespace]:
    """Make the names that official pickles refer to exist while one is written."""
    names = types.SimpleNamespace(classes={})
    before = dict(sys.modules)
    wanted = {key: value.split() for key, value in FUNCTIONS.items()}
    for module, name in NATIVE.values():
        wanted.setdefault(module, []).append(name)
    try:
        for module, members in wanted.items():
            parts = module.split(".")
            for depth in range(1, len(parts) + 1):
                sys.modules[".".join(parts[:depth])] = types.ModuleType(".".join(parts[:depth]))
            for member in members:
                stand_in = type(member, (), {"__module__": module, "__qualname__": member})
                setattr(sys.modules[module], member, stand_in)
                names.classes[f"{module}.{member}"] = stand_in
        yield names
    finally:
        for module in set(sys.modules) - set(before):
            del sys.modules[module]
        sys.modules.update(before)


def storage_bytes(value: torch.Tensor) -> bytes:
    """The older torch format of one storage, written by torch itself."""
    buffer = io.BytesIO()
    raw = value.detach().contiguous().flatten().clone().untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=raw, dtype=value.dtype, _internal=True)
    torch.save(typed, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def official_bytes(generator: TriPlaneGenerator, **changes) -> bytes:
    """Return the official pickle of a generator; `changes` replace attributes of the root."""
    stored = {name: storage_bytes(value) for name, value in generator.state_dict().items()}
    stored["renderer.plane_axes"] = storage_bytes(generator.renderer.plane_axes)
    with official_names() as names:
        root = _module(generator, "", stored, names.classes)
        root.arguments[0]["state"].update(changes)
        return pickle.dumps({"G_ema": root}, protocol=4)


def _tensor(value: torch.Tensor, data: bytes, classes, is_parameter: bool) -> Called:
    storage = Called(classes["torch.storage._load_from_bytes"], (data,))
    shape, empty = tuple(value.shape), collections.OrderedDict()
    arguments = (storage, 0, shape, value.contiguous().stride(), False, empty)
    tensor = Called(classes["torch._utils._rebuild_tensor_v2"], arguments)
    return Called(classes["torch._utils._rebuild_parameter"], (tensor, True, empty)) if is_parameter else tensor


def _module(module: torch.nn.Module, name: str, stored: dict[str, bytes], classes) -> Called:
    prefix = f"{name}." if name else ""
    state = {"training": False, "_non_persistent_buffers_set": set()}
    state["_parameters"] = {
        key: _tensor(value, stored[prefix + key], classes, True) for key, value in module._parameters.items()
    }
    state["_buffers"] = {
        key: _tensor(value, stored[prefix + key], classes, False)
        for key, value in module._buffers.items()
        if prefix + key in stored and name != "renderer"
    }
    state["_modules"] = collections.OrderedDict(
        (key, _module(child, prefix + key, stored, classes)) for key, child in module._modules.items()
    )
    state.update(_attributes(module, name, stored, classes))
    if name in NATIVE:
        cls = classes[".".join(NATIVE[name])]
        return Called(cls, (), state)
    class_name = CLASS_NAMES.get(name, type(module).__name__)
    meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": class_name, "state": state}
    return Called(classes["torch_utils.persistence._reconstruct_persistent_obj"], (meta,))


def _attributes(module: torch.nn.Module, name: str, stored: dict[str, bytes], classes) -> dict:
    if isinstance(module, TriPlaneGenerator):
        config = module.config
        return {
            "_init_args": (),
            "_init_kwargs": {
                "z_dim": config.z_dim,
                "c_dim": config.c_dim,
                "w_dim": config.w_dim,
                "channel_base": config.channel_base,
                "channel_max": config.channel_max,
            },
            "neural_rendering_resolution": config.neural_rendering_resolution,
            "rendering_kwargs": {
                "clamp_mode": "softplus",
                "c_scale": 1.0,
                "depth_resolution": config.rendering.depth_resolution,
                "depth_resolution_importance": config.rendering.depth_resolution_importance,
                "ray_start": config.rendering.ray_start,
                "ray_end": config.rendering.ray_end,
                "box_warp": 1,
                "avg_camera_pivot": [0, 0, 0.2],
            },
        }
    if isinstance(module, FullyConnectedLayer):
        return {"weight_gain": module.weight_gain, "bias_gain": module.bias_gain, "activation": module.activation}
    if isinstance(module, SynthesisLayer):
        return {"conv_clamp": module.conv_clamp, "up": 2 if module.is_upsampling else 1, "use_noise": True}
    if name == "renderer":
        return {"plane_axes": _tensor(module.plane_axes, stored["renderer.plane_axes"], classes, False)}
    if name == "backbone.mapping":
        return {"num_layers": module.num_layers}
    if name == "backbone.synthesis":
        return {"img_resolution": module.img_resolution, "img_channels": module.img_channels}
    return {}
