"""Reads TFLite model files (FlatBuffers) into plain records; bounds are checked, nothing is executed.

Field numbers follow tensorflow/lite/schema/schema.fbs (version 3). Only what the model packs contain is understood;
anything else is a `WeightsError` that names it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from galatea.errors import WeightsError

_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 9: "i1"}
_CUSTOM = 32
_OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE",
    14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR",
    32: "CUSTOM", 34: "PAD", 40: "MEAN", 45: "STRIDED_SLICE", 54: "PRELU", 117: "HARD_SWISH",
}  # fmt: skip

# Option name -> (field number, struct format), by operator.
_CONV = {"padding": (0, "b"), "stride_w": (1, "i"), "stride_h": (2, "i")}
_OPTIONS: dict[str, dict[str, tuple[int, str]]] = {
    "ADD": {"activation": (0, "b")},
    "MUL": {"activation": (0, "b")},
    "CONV_2D": _CONV | {"activation": (3, "b"), "dilation_w": (4, "i"), "dilation_h": (5, "i")},
    "DEPTHWISE_CONV_2D": _CONV
    | {"depth_multiplier": (3, "i"), "activation": (4, "b"), "dilation_w": (5, "i"), "dilation_h": (6, "i")},
    "MAX_POOL_2D": _CONV | {"filter_w": (3, "i"), "filter_h": (4, "i"), "activation": (5, "b")},
    "AVERAGE_POOL_2D": _CONV | {"filter_w": (3, "i"), "filter_h": (4, "i"), "activation": (5, "b")},
    "RESIZE_BILINEAR": {"align_corners": (2, "b"), "half_pixel_centers": (3, "b")},
}
_DEFAULTS = {"dilation_w": 1, "dilation_h": 1}


@dataclass(frozen=True)
class Operator:
    """One node: operator name, tensor numbers in and out, and its options."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int] = field(default_factory=dict)
    custom: bytes = b""


@dataclass(frozen=True)
class Model:
    """A TFLite graph: shapes (NHWC), constants by tensor number, and operators in order."""

    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    constants: dict[int, np.ndarray]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Table:
    """One FlatBuffers table: fields by number, absent ones give the default."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.vtable = position - self._at("<i", position)
        self.num_fields = (self._at("<H", self.vtable) - 4) // 2

    def _at(self, form: str, position: int) -> int:
        if position < 0:
            raise struct.error("offset before the start of the file")
        return int(struct.unpack_from(form, self.data, position)[0])

    def _field(self, number: int) -> int:
        offset = self._at("<H", self.vtable + 4 + 2 * number) if number < self.num_fields else 0
        return self.position + offset if offset else 0

    def scalar(self, number: int, form: str, default: int = 0) -> int:
        position = self._field(number)
        return self._at("<" + form, position) if position else default

    def table(self, number: int) -> _Table | None:
        position = self._field(number)
        return _Table(self.data, position + self._at("<I", position)) if position else None

    def _vector(self, number: int) -> tuple[int, int]:
        position = self._field(number)
        if not position:
            return 0, 0
        start = position + self._at("<I", position)
        length = self._at("<I", start)
        if start + 4 + length > len(self.data):
            raise struct.error("a vector ends after the end of the file")
        return start + 4, length

    def tables(self, number: int) -> list[_Table]:
        start, length = self._vector(number)
        places = [start + 4 * i for i in range(length)]
        return [_Table(self.data, place + self._at("<I", place)) for place in places]

    def ints(self, number: int) -> tuple[int, ...]:
        start, length = self._vector(number)
        return struct.unpack_from(f"<{length}i", self.data, start)

    def raw(self, number: int) -> bytes:
        start, length = self._vector(number)
        return self.data[start : start + length]

    def text(self, number: int) -> str:
        return self.raw(number).decode("utf-8", "replace")


def read_model(data: bytes, name: str = "model") -> Model:
    """Read the first graph of a TFLite file.

    Raises:
        WeightsError: not a TFLite file, damaged, or with operators or types that are not supported.
    """
    if data[4:8] != b"TFL3":
        raise WeightsError(f"{name} is not a TFLite model: expected identifier TFL3, got {data[4:8]!r}.")
    try:
        root = _Table(data, struct.unpack_from("<I", data)[0])
        graph = root.tables(2)[0]
        buffers = [buffer.raw(0) for buffer in root.tables(4)]
        codes = [_operator_name(code, name) for code in root.tables(1)]
        tensors = graph.tables(0)
        constants = {
            number: _constant(tensor, buffers, name)
            for number, tensor in enumerate(tensors)
            if buffers[tensor.scalar(2, "I")]
        }
        return Model(
            shapes=tuple(tensor.ints(0) for tensor in tensors),
            names=tuple(tensor.text(3) for tensor in tensors),
            constants=constants,
            operators=tuple(_operator(table, codes) for table in graph.tables(3)),
            inputs=graph.ints(1),
            outputs=graph.ints(2),
        )
    except (struct.error, IndexError, ValueError) as error:
        raise WeightsError(f"{name} is a damaged TFLite model: {error}.") from error


def _operator_name(code: _Table, model: str) -> str:
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if number == _CUSTOM:
        return code.text(1)
    if number not in _OPERATORS:
        raise WeightsError(f"{model} uses TFLite operator {number}, which is not supported.")
    return _OPERATORS[number]


def _operator(table: _Table, codes: list[str]) -> Operator:
    name = codes[table.scalar(0, "I")]
    options = table.table(4)
    values = {
        key: options.scalar(number, form, _DEFAULTS.get(key, 0)) if options else _DEFAULTS.get(key, 0)
        for key, (number, form) in _OPTIONS.get(name, {}).items()
    }
    return Operator(name, table.ints(1), table.ints(2), values, table.raw(5))


def _constant(tensor: _Table, buffers: list[bytes], model: str) -> np.ndarray:
    kind = tensor.scalar(1, "b")
    if kind not in _TYPES:
        raise WeightsError(f"{model} holds a tensor of TFLite type {kind}, which is not supported.")
    flat: np.ndarray = np.frombuffer(buffers[tensor.scalar(2, "I")], np.dtype(_TYPES[kind]))
    return flat.reshape(tensor.ints(0))
