"""Runs TFLite graphs as torch modules: batched, on any device, differentiable, in channels_last memory.

TFLite tensors are NHWC; here 4-d tensors are NCHW and every axis is translated. Batch and, for fully convolutional
graphs, image size are free: the shapes written in the file are those of one image. Formulas follow the TFLite reference
kernels (tensorflow/lite/kernels/internal/reference); the test suite compares with the LiteRT interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from galatea.errors import WeightsError
from galatea.faces.flatbuffer import Model, Operator, read_model

_SAME = 0
Values = dict[int, Tensor]


class TFLiteGraph(nn.Module):
    """A TFLite graph with its weights as buffers.

    Args:
        model: the graph as read by `read_model`.
        name: for messages.
    """

    def __init__(self, model: Model, name: str = "model") -> None:
        super().__init__()
        self.name = name
        self.inputs, self.outputs = model.inputs, model.outputs
        self.shapes, self.tensor_names = model.shapes, model.names
        self.constants = dict(model.constants)
        self.operators = self._fold(model.operators)
        for operator in self.operators:
            if operator.name not in _KERNELS:
                raise WeightsError(f"{name} uses TFLite operator {operator.name}, which is not supported.")
            self._register_weights(operator)

    @classmethod
    def load(cls, path: Path) -> TFLiteGraph:
        """Read a `.tflite` file."""
        return cls(read_model(path.read_bytes(), path.name), path.name)

    def _fold(self, operators: Sequence[Operator]) -> list[Operator]:
        """Turn float16 weights into float32 constants once, instead of at every call."""
        kept = []
        for operator in operators:
            if operator.name == "DEQUANTIZE" and operator.inputs[0] in self.constants:
                self.constants[operator.outputs[0]] = self.constants[operator.inputs[0]].astype(np.float32)
            else:
                kept.append(operator)
        return kept

    def _register_weights(self, operator: Operator) -> None:
        for position, number in enumerate(operator.inputs):
            if number not in self.constants or hasattr(self, f"weight_{number}"):
                continue
            value = self.constants[number]
            if value.dtype != np.float32:
                continue
            self.register_buffer(f"weight_{number}", _to_torch_layout(value, operator.name, position), persistent=False)

    def weight(self, number: int) -> Tensor:
        """The constant float tensor of this number, in torch's layout."""
        value: Tensor = getattr(self, f"weight_{number}")
        return value

    def integers(self, number: int) -> list[int]:
        """A constant integer tensor as a list."""
        return [int(value) for value in self.constants[number].reshape(-1)]

    def forward(
        self, images: Float[Tensor, "batch channels height width"], outputs: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Run the graph.

        Args:
            images: the single input, NCHW, in the value range that the model expects.
            outputs: tensor numbers to return instead of the graph's own outputs.

        Returns:
            One tensor for each output; 4-d ones are NCHW.
        """
        wanted = self.outputs if outputs is None else tuple(outputs)
        values: Values = {self.inputs[0]: images.contiguous(memory_format=torch.channels_last)}
        for operator in self.operators:
            values[operator.outputs[0]] = _KERNELS[operator.name](self, operator, values)
            if all(number in values for number in wanted):
                break
        return [values[number] for number in wanted]


def _to_torch_layout(value: np.ndarray, operator: str, position: int) -> Tensor:
    tensor = torch.from_numpy(value.copy())
    if operator in {"CONV_2D", "DEPTHWISE_CONV_2D", "Convolution2DTransposeBias"} and position == 1:
        # (out, kh, kw, in) -> (out, in, kh, kw); depthwise (1, kh, kw, out) -> (out, 1, kh, kw).
        order = (3, 0, 1, 2) if operator == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
        tensor = tensor.permute(order)
        return tensor.contiguous(memory_format=torch.channels_last)
    if operator == "PRELU" and position == 1:
        return tensor.reshape(-1)
    if tensor.dim() == 4:
        return tensor.permute(0, 3, 1, 2).contiguous()
    if tensor.dim() == 3:
        return tensor.permute(2, 0, 1).contiguous()
    # A vector broadcasts over the last NHWC axis, the channels.
    return tensor.reshape(-1, 1, 1) if tensor.dim() == 1 and operator in {"ADD", "MUL"} else tensor


def _activate(value: Tensor, kind: int) -> Tensor:
    if kind == 0:
        return value
    if kind == 1:
        return F.relu(value)
    if kind == 3:
        return F.relu6(value)
    raise WeightsError(f"TFLite fused activation {kind} is not supported.")


def _same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Left and right padding of TensorFlow's SAME: the odd pixel goes to the right."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _padded(
    value: Tensor, kernel: Sequence[int], options: dict[str, int], fill: float
) -> tuple[Tensor, tuple[int, int]]:
    """Pad as the options ask; symmetric zero padding is left to the operator itself (returned as its argument)."""
    if options["padding"] != _SAME:
        return value, (0, 0)
    top, bottom = _same_padding(value.shape[2], kernel[0], options["stride_h"], options.get("dilation_h", 1))
    left, right = _same_padding(value.shape[3], kernel[1], options["stride_w"], options.get("dilation_w", 1))
    if top == bottom and left == right and fill == 0:
        return value, (top, left)
    if top == bottom == left == right == 0:
        return value, (0, 0)
    return F.pad(value, (left, right, top, bottom), value=fill), (0, 0)


def _operand(graph: TFLiteGraph, values: Values, number: int) -> Tensor:
    return values[number] if number in values else graph.weight(number)


def _conv(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    weight = graph.weight(node.inputs[1])
    bias = graph.weight(node.inputs[2]).reshape(-1) if len(node.inputs) > 2 and node.inputs[2] >= 0 else None
    value, padding = _padded(values[node.inputs[0]], weight.shape[2:], node.options, 0.0)
    groups = value.shape[1] if node.name == "DEPTHWISE_CONV_2D" else 1
    stride = (node.options["stride_h"], node.options["stride_w"])
    dilation = (node.options["dilation_h"], node.options["dilation_w"])
    return _activate(F.conv2d(value, weight, bias, stride, padding, dilation, groups), node.options["activation"])


def _transpose_conv(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    """MediaPipe's Convolution2DTransposeBias; options are padding, stride width, stride height (int32)."""
    padding, stride_w, stride_h = np.frombuffer(node.custom, "<i4", 3)
    weight = graph.weight(node.inputs[1])
    value = values[node.inputs[0]]
    bias, stride = graph.weight(node.inputs[2]), (int(stride_h), int(stride_w))
    result = F.conv_transpose2d(value, weight.transpose(0, 1), bias, stride)
    if padding != 1:
        return result
    height, width = value.shape[2] * stride[0], value.shape[3] * stride[1]
    top, left = (result.shape[2] - height) // 2, (result.shape[3] - width) // 2
    return result[:, :, top : top + height, left : left + width]


def _add(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    return _activate(
        _operand(graph, values, node.inputs[0]) + _operand(graph, values, node.inputs[1]), node.options["activation"]
    )


def _mul(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    return _activate(
        _operand(graph, values, node.inputs[0]) * _operand(graph, values, node.inputs[1]), node.options["activation"]
    )


def _pad(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    before_after = np.asarray(graph.constants[node.inputs[1]]).reshape(-1, 2)
    _, rows, columns, channels = ((int(a), int(b)) for a, b in before_after)
    return F.pad(values[node.inputs[0]], (*columns, *rows, *channels))


def _max_pool(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    kernel = (node.options["filter_h"], node.options["filter_w"])
    value, _ = _padded(values[node.inputs[0]], kernel, node.options, float("-inf"))
    pooled = F.max_pool2d(value, kernel, (node.options["stride_h"], node.options["stride_w"]))
    return _activate(pooled, node.options["activation"])


def _average_pool(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    kernel = (node.options["filter_h"], node.options["filter_w"])
    value = values[node.inputs[0]]
    if node.options["padding"] == _SAME and value.shape[2:] != kernel:
        raise WeightsError(f"{graph.name}: AVERAGE_POOL_2D with SAME padding and a window smaller than the image.")
    pooled = F.avg_pool2d(value, kernel, (node.options["stride_h"], node.options["stride_w"]))
    return _activate(pooled, node.options["activation"])


def _resize(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    height, width = graph.integers(node.inputs[1])
    value = values[node.inputs[0]]
    known = graph.shapes[node.inputs[0]]
    # The factor is what counts, so that a fully convolutional graph takes any image size.
    size = (value.shape[2] * height // known[1], value.shape[3] * width // known[2])
    if node.options["half_pixel_centers"] or node.options["align_corners"]:
        return F.interpolate(value, size, mode="bilinear", align_corners=bool(node.options["align_corners"]))
    return _resize_from_corner(value, size)


def _resize_from_corner(value: Tensor, size: tuple[int, int]) -> Tensor:
    """TFLite's oldest convention: output pixel i reads input position i * in/out, clamped at the far edge."""
    for axis, length in ((2, size[0]), (3, size[1])):
        count = value.shape[axis]
        position = torch.arange(length, device=value.device, dtype=value.dtype) * (count / length)
        low = position.floor().long().clamp(max=count - 1)
        high = (low + 1).clamp(max=count - 1)
        share = (position - low).reshape([-1 if a == axis else 1 for a in range(4)])
        value = value.index_select(axis, low) * (1 - share) + value.index_select(axis, high) * share
    return value


def _reshape(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    value = values[node.inputs[0]]
    if value.dim() == 4:
        value = value.permute(0, 2, 3, 1)
    shape = graph.shapes[node.outputs[0]]
    free = len(shape) == 3 and value.dim() == 4 and value.shape[1:] != graph.shapes[node.inputs[0]][1:]
    rest = (-1, shape[2]) if free else shape[1:]
    result = value.reshape(value.shape[0], *rest)
    return result.permute(0, 3, 1, 2) if result.dim() == 4 else result


def _prelu(graph: TFLiteGraph, node: Operator, values: Values) -> Tensor:
    return F.prelu(values[node.inputs[0]], graph.weight(node.inputs[1]))


_KERNELS: dict[str, Callable[[TFLiteGraph, Operator, Values], Tensor]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CONV_2D": _conv,
    "Convolution2DTransposeBias": _transpose_conv,
    "DEPTHWISE_CONV_2D": _conv,
    "HARD_SWISH": lambda _, node, values: F.hardswish(values[node.inputs[0]]),
    "LOGISTIC": lambda _, node, values: torch.sigmoid(values[node.inputs[0]]),
    "MAX_POOL_2D": _max_pool,
    "MUL": _mul,
    "PAD": _pad,
    "PRELU": _prelu,
    "RELU": lambda _, node, values: F.relu(values[node.inputs[0]]),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
}
