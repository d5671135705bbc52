"""Reads dlib's serialised face recognition network into plain records; strict, and nothing is executed.

The format (dlib/serialize.h, dlib/dnn): an integer is a control byte (sign and number of bytes), then its bytes, little
endian; a number is an integer mantissa and a binary exponent; a string has its length first; a tensor has a version,
four sizes and raw float32. A network is the versions of its nested layers from output to input, then the layers from
input to output, each a name, its parameters, and a state that inference does not need. Every byte must be accounted
for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from galatea.errors import WeightsError

_MAX_TENSOR = 1 << 24


@dataclass(frozen=True)
class Layer:
    """One layer: kind (con, affine, relu, max_pool, avg_pool, add_prev, fc), its integers and its parameters."""

    kind: str
    sizes: tuple[int, ...] = ()
    parameters: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class Network:
    """Layers from input to output, and the mean colour (red, green, blue in 0..255) that the input layer subtracts."""

    mean: tuple[float, float, float]
    input_size: int
    layers: tuple[Layer, ...]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.position + count > len(self.data):
            raise ValueError(f"it ends inside a value at byte {self.position}")
        self.position += count
        return self.data[self.position - count : self.position]

    def integer(self) -> int:
        control = self.take(1)[0]
        length = control & 0x0F
        if control & 0x70 or not 1 <= length <= 8:
            raise ValueError(f"byte {self.position - 1} is {control:#x}, not the start of an integer")
        value = int.from_bytes(self.take(length), "little")
        return -value if control & 0x80 else value

    def integers(self, count: int) -> tuple[int, ...]:
        return tuple(self.integer() for _ in range(count))

    def number(self) -> float:
        mantissa, exponent = self.integers(2)
        return float(mantissa * 2.0**exponent)

    def text(self) -> str:
        length = self.integer()
        if not 0 <= length <= 64:
            raise ValueError(f"a name of {length} characters at byte {self.position}")
        return self.take(length).decode("ascii")

    def expect(self, what: str, got: object, *allowed: object) -> None:
        if got not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise ValueError(f"{what} is {got!r} before byte {self.position}, expected {wanted}")

    def flag(self) -> bool:
        value = self.take(1)
        self.expect("a flag", value, b"0", b"1")
        return value == b"1"

    def tensor(self) -> np.ndarray:
        self.expect("tensor version", self.integer(), 2)
        shape = self.integers(4)
        count = int(np.prod(shape, dtype=object))
        if min(shape) < 0 or count > _MAX_TENSOR:
            raise ValueError(f"a tensor of shape {shape} at byte {self.position}")
        return np.frombuffer(self.take(4 * count), "<f4").reshape(shape)

    def alias(self) -> tuple[int, ...]:
        """The shape of a view into a layer's parameters."""
        self.expect("view version", self.integer(), 1)
        return self.integers(4)


def read_network(data: bytes, name: str = "network") -> Network:
    """Read a dlib `loss_metric` network over an RGB image input.

    Raises:
        WeightsError: not such a file, or damaged.
    """
    reader = _Reader(data)
    try:
        reader.expect("network version", reader.integer(), 1)
        reader.expect("loss", reader.text(), "loss_metric_2")
        _ = (reader.number(), reader.number())  # margin and distance threshold of training
        version = reader.integer()
        while version in {1, 2}:
            version = reader.integer()
        reader.expect("input version", version, 3)
        reader.expect("input", reader.text(), "input_rgb_image_sized")
        mean = (reader.number(), reader.number(), reader.number())
        height, width = reader.integers(2)
        reader.expect("input width", width, height)
        layers = [_layer(reader)]
        reader.expect("sample expansion", reader.integer(), 1)
        while reader.position < len(data):
            layers.append(_layer(reader))
        return Network(mean, height, tuple(layers))
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{name} is not a dlib face recognition network: {error}.") from error


def _layer(reader: _Reader) -> Layer:
    name = reader.text()
    reader.expect("layer", name, *_DETAILS)
    layer = _DETAILS[name](reader)
    for _ in range(3):
        reader.flag()
    for _ in range(3):
        reader.expect("saved activations", reader.tensor().size, 0)
    return layer


def _convolution(reader: _Reader) -> Layer:
    parameters = reader.tensor()
    sizes = reader.integers(7)  # filters, rows, columns, strides y and x, paddings y and x
    weights, biases = reader.alias(), reader.alias()
    reader.expect("parameters", parameters.size, int(np.prod(weights)) + int(np.prod(biases)))
    _multipliers(reader)
    return Layer("con", (*sizes, weights[1]), parameters.reshape(-1))


def _affine(reader: _Reader) -> Layer:
    parameters = reader.tensor()
    gamma, beta = reader.alias(), reader.alias()
    reader.expect("parameters", parameters.size, gamma[1] + beta[1])
    reader.expect("affine mode", reader.integer(), 0)
    return Layer("affine", (gamma[1],), parameters.reshape(-1))


def _fully_connected(reader: _Reader) -> Layer:
    outputs, inputs = reader.integers(2)
    parameters = reader.tensor()
    reader.expect("weights", reader.alias(), (inputs, outputs, 1, 1))
    reader.expect("biases", reader.alias(), (0, 0, 0, 0))
    reader.expect("bias mode", reader.integer(), 1)
    _multipliers(reader)
    return Layer("fc", (outputs, inputs), parameters.reshape(-1))


def _multipliers(reader: _Reader) -> None:
    """Learning rate and weight decay of weights and biases, which inference does not need."""
    for _ in range(4):
        reader.number()


_DETAILS: dict[str, Callable[[_Reader], Layer]] = {
    "con_4": _convolution,
    "affine_": _affine,
    "fc_2": _fully_connected,
    "relu_": lambda _: Layer("relu"),
    "add_prev_": lambda _: Layer("add_prev"),
    "max_pool_2": lambda reader: Layer("max_pool", reader.integers(6)),
    "avg_pool_2": lambda reader: Layer("avg_pool", reader.integers(6)),
}
