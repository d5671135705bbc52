"""Modules and tensors inside an official EG3D pickle, found by looking at it, not by loading it.

Facts about the format: `torch_utils.persistence` wraps each network object as a call with one dictionary (class name,
source text, `__dict__`); tensors are calls of torch's rebuild functions around a nested, older pickle with raw values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galatea.eg3d.pickle_reader import PickleReader
from galatea.eg3d.pickle_records import Budget, Call, Name, PersistentId
from galatea.errors import WeightsError

STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
STORAGE_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_PROTOCOL = 1001
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
NETWORK_CLASSES = (
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.activation.Softplus",
    "training.triplane.OSGDecoder",
    "training.volumetric_rendering.renderer.ImportanceRenderer",
    "training.volumetric_rendering.ray_marcher.MipRayMarcher2",
    "training.volumetric_rendering.ray_sampler.RaySampler",
)
DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
PARAMETER, TENSOR, STORAGE = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
)
ALLOWED = frozenset(
    (PERSISTENT, PARAMETER, TENSOR, STORAGE, "numpy.dtype", *NETWORK_CLASSES, *DICTIONARIES, *NUMPY_SCALARS)
)
"""Every global of an official EG3D pickle. None of them is ever imported."""
ALLOWED_IN_STORAGE = frozenset(f"torch.{name}" for name in STORAGE_TYPES)
MAX_DEPTH = 16
MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Module:
    """A network object: its class name and its `__dict__`."""

    class_name: str
    attributes: dict[Any, Any]

    def child(self, name: str) -> Module:
        """Return a sub-module.

        Raises:
            WeightsError: if there is none of that name.
        """
        children = as_dict(self.attributes.get("_modules"), f"{self.class_name}._modules")
        if name not in children:
            raise WeightsError(
                f"pickle: {self.class_name} has no part {name!r}; not an EG3D generator of the official code"
            )
        return as_module(children[name])


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file: shape and strides over raw values that have been checked to be there."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: str
    data: memoryview

    def to_tensor(self) -> Tensor:
        """Copy the values out of the file as float32."""
        values = np.frombuffer(self.data, dtype=self.dtype)[self.offset :]
        byte_strides = [stride * values.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values, self.shape, byte_strides, writeable=False)
        return torch.from_numpy(np.array(view, dtype=np.float32, order="C"))


def as_dict(value: Any, what: str) -> dict[Any, Any]:
    """Return a dictionary, an OrderedDict or an EasyDict as dictionary.

    Raises:
        WeightsError: if it is something else.
    """
    if isinstance(value, Call) and str(value.function) in DICTIONARIES and not value.arguments:
        return value.items
    if isinstance(value, dict):
        return value
    raise WeightsError(f"pickle: {what}: expected a dictionary, found {type(value).__name__}")


def as_module(value: Any) -> Module:
    """Return a network object.

    Raises:
        WeightsError: if it is something else.
    """
    if isinstance(value, Call) and str(value.function) == PERSISTENT and len(value.arguments) == 1:
        meta = as_dict(value.arguments[0], "a persistent object")
        class_name = meta.get("class_name")
        if meta.get("type") == "class" and isinstance(class_name, str):
            return Module(class_name[:100], as_dict(meta.get("state"), class_name[:100]))
    elif isinstance(value, Call) and str(value.function) in NETWORK_CLASSES:
        return Module(value.function.name, as_dict(value.state, value.function.name))
    found = str(value.function) if isinstance(value, Call) else type(value).__name__
    raise WeightsError(f"pickle: expected a network, found {found}")


def as_plain(value: Any, what: str) -> Any:
    """Return a number, text, None, or a numpy scalar as number; lists of them as tuples.

    Raises:
        WeightsError: if it is something else.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and len(value) <= MAX_DIMENSIONS:
        return tuple(as_plain(item, what) if not isinstance(item, list | tuple) else None for item in value)
    if isinstance(value, Call) and str(value.function) in NUMPY_SCALARS and len(value.arguments) == 2:
        kind, data = value.arguments
        if isinstance(kind, Call) and str(kind.function) == "numpy.dtype" and isinstance(data, memoryview):
            layout = {"f4": "<f", "f8": "<d", "i4": "<i", "i8": "<q"}.get(str(kind.arguments[:1])[2:-3])
            if layout is not None and len(data) == struct.calcsize(layout):
                return struct.unpack(layout, data)[0]
    raise WeightsError(f"pickle: {what}: expected a plain value, found {type(value).__name__}")


def tensors(module: Module, budget: Budget, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, StoredTensor]]:
    """Yield name and tensor of every parameter and persistent buffer, depth first, as in a state dict.

    Raises:
        WeightsError: if the tree is too deep or something in it is not what it should be.
    """
    if depth > MAX_DEPTH:
        raise WeightsError(f"pickle: modules nested deeper than {MAX_DEPTH}")
    skipped = module.attributes.get("_non_persistent_buffers_set")
    skipped = skipped if isinstance(skipped, set) else set()
    for group in ("_parameters", "_buffers"):
        for name, value in as_dict(module.attributes.get(group, {}), f"{module.class_name}.{group}").items():
            budget.spend()
            if value is not None and name not in skipped:
                yield f"{prefix}{name}", as_tensor(value, f"{prefix}{name}", budget)
    for name, value in as_dict(module.attributes.get("_modules", {}), f"{module.class_name}._modules").items():
        budget.spend()
        if value is not None:
            yield from tensors(as_module(value), budget, f"{prefix}{name}.", depth + 1)


def as_tensor(value: Any, what: str, budget: Budget) -> StoredTensor:
    """Return a tensor after checking that every value it refers to is in the file.

    Raises:
        WeightsError: if it is something else, or reaches beyond its storage.
    """
    what = what[-200:]
    if isinstance(value, Call) and str(value.function) == PARAMETER and value.arguments:
        value = value.arguments[0]
    is_tensor = isinstance(value, Call) and str(value.function) == TENSOR and len(value.arguments) >= 4
    if not is_tensor:
        raise WeightsError(f"pickle: {what}: expected a tensor, found {type(value).__name__}")
    storage, offset, shape, strides = value.arguments[:4]
    for numbers in (shape, strides):
        is_sound = isinstance(numbers, tuple) and all(type(n) is int and 0 <= n < 1 << 40 for n in numbers)
        if not is_sound or len(numbers) > MAX_DIMENSIONS:
            raise WeightsError(f"pickle: {what}: damaged shape")
    dtype, data = _read_storage(storage, what, budget)
    num_values = len(data) // np.dtype(dtype).itemsize
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False)) if math.prod(shape) else -1
    is_inside = len(shape) == len(strides) and type(offset) is int and -1 < offset < num_values - last
    if not is_inside or math.prod(shape) > num_values:
        raise WeightsError(f"pickle: {what}: the shape {shape} reaches beyond the {num_values} stored values")
    return StoredTensor(shape, strides, offset, dtype, data)


def _read_storage(value: Any, what: str, budget: Budget) -> tuple[str, memoryview]:
    """Return type and raw bytes of a storage from the older torch format nested in the pickle."""
    is_storage = isinstance(value, Call) and str(value.function) == STORAGE and len(value.arguments) == 1
    if not is_storage or not isinstance(value.arguments[0], memoryview):
        raise WeightsError(f"pickle: {what}: expected a storage, found {type(value).__name__}")
    reader = PickleReader(value.arguments[0], ALLOWED_IN_STORAGE, budget)
    if reader.read() != STORAGE_MAGIC or reader.read() != STORAGE_PROTOCOL:
        raise WeightsError(f"pickle: {what}: not a storage in torch's older format")
    reader.read()
    reference = reader.read()
    reader.read()
    fields = reference.value if isinstance(reference, PersistentId) else ()
    if not isinstance(fields, tuple) or len(fields) < 5 or fields[0] != "storage" or not isinstance(fields[1], Name):
        raise WeightsError(f"pickle: {what}: damaged storage")
    dtype = STORAGE_TYPES[fields[1].name]
    num_values = reader.number("<q")
    if num_values != fields[4]:
        raise WeightsError(f"pickle: {what}: the storage announces {fields[4]} values and holds {num_values}")
    return dtype, reader.take(num_values * np.dtype(dtype).itemsize)
