"""Identity embeddings: dlib's face recognition ResNet (King 2017, CC0) as a torch module, and the chip it looks at.

Two embeddings closer than 0.6 (Euclidean) show the same person: 99.38% right on Labeled Faces in the Wild, says its
author.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from galatea.errors import WeightsError
from galatea.faces.dlib_format import Layer, Network, read_network

SAME_PERSON_DISTANCE = 0.6
CHIP_SIZE = 150
CHIP_POINTS = (33, 133, 362, 263, 2)
"""FaceMesh points that dlib's template names: outer and inner corner of the image-left eye, inner and outer corner of
the image-right eye, base of the nose."""
_PADDING = 0.25
_TEMPLATE = (
    (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242),
    (0.6460604764104, 0.2289674387677),
    (0.8595674595992, 0.2134981538014),
    (0.4901123135679, 0.6277975316475),
)
"""dlib's average of these points in the face's box (dlib/image_transforms/interpolation.h, five-point chips)."""
_CHIP_IN_CROP = 0.75
"""A chip spans about this share of a portrait crop."""
_SCALE = 256.0


class _Residual(nn.Module):
    """con, affine, relu, con, affine, added to the input; where it halves the size, to its 2x2 average."""

    def __init__(self, layers: list[Layer], is_down: bool) -> None:
        super().__init__()
        self.first, self.second = _folded(layers[0], layers[1]), _folded(layers[3], layers[4])
        self.is_down = is_down

    def forward(self, value: Tensor) -> Tensor:
        branch = self.second(F.relu(self.first(value)))
        skip = F.avg_pool2d(value, 2) if self.is_down else value
        return F.relu(_add_padded(branch, skip))


class IdentityNet(nn.Module):
    """150x150 face chips to 128 numbers.

    Args:
        network: as read from dlib's file.
        name: for messages.

    Raises:
        WeightsError: the layers are not those of dlib's ResNet.
    """

    mean: Tensor

    def __init__(self, network: Network, name: str = "network") -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(network.mean).reshape(1, 3, 1, 1), persistent=False)
        layers = list(network.layers)
        kinds = [layer.kind for layer in layers]
        if kinds[:4] != ["con", "affine", "relu", "max_pool"] or network.input_size != CHIP_SIZE:
            raise WeightsError(f"{name}: not dlib's face recognition ResNet (its first layers differ).")
        self.stem = _folded(layers[0], layers[1])
        self.blocks = nn.Sequential(*_blocks(layers[4:-2], name))
        if kinds[-2:] != ["avg_pool", "fc"]:
            raise WeightsError(f"{name}: not dlib's face recognition ResNet (its last layers differ).")
        outputs, inputs = layers[-1].sizes
        weight = torch.from_numpy(layers[-1].parameters.copy()).reshape(inputs, outputs).T.contiguous()
        self.head = nn.Linear(inputs, outputs, bias=False)
        self.head.weight = nn.Parameter(weight, requires_grad=False)

    @classmethod
    def load(cls, path: Path) -> IdentityNet:
        """Read dlib's `.dat` file."""
        return cls(read_network(path.read_bytes(), path.name), path.name)

    def forward(self, chips: Float[Tensor, "batch 3 150 150"]) -> Float[Tensor, "batch 128"]:
        """Embed face chips in [-1, 1]."""
        value = ((chips + 1) * 127.5 - self.mean) / _SCALE
        value = F.max_pool2d(F.relu(self.stem(value.contiguous(memory_format=torch.channels_last))), 3, 2)
        embedding: Tensor = self.head(self.blocks(value).mean((2, 3)))
        return embedding


def _blocks(layers: list[Layer], name: str) -> list[_Residual]:
    plain = ["con", "affine", "relu", "con", "affine", "add_prev", "relu"]
    down = [*plain[:5], "avg_pool", *plain[5:]]
    blocks, start = [], 0
    while start < len(layers):
        kinds = [layer.kind for layer in layers[start : start + 8]]
        if kinds != down and kinds[:7] != plain:
            raise WeightsError(f"{name}: not dlib's face recognition ResNet (layers {start}.. are {kinds}).")
        blocks.append(_Residual(layers[start:], is_down=kinds == down))
        start += 8 if kinds == down else 7
    return blocks


def _folded(convolution: Layer, affine: Layer) -> nn.Conv2d:
    """A convolution with the affine layer after it multiplied in."""
    filters, rows, columns, stride_y, stride_x, padding_y, padding_x, channels = convolution.sizes
    values = torch.from_numpy(convolution.parameters.copy())
    weight, bias = values[:-filters].reshape(filters, channels, rows, columns), values[-filters:]
    gamma, beta = torch.from_numpy(affine.parameters.copy()).reshape(2, filters)
    layer = nn.Conv2d(channels, filters, (rows, columns), (stride_y, stride_x), (padding_y, padding_x))
    layer.weight = nn.Parameter(
        (weight * gamma[:, None, None, None]).contiguous(memory_format=torch.channels_last), requires_grad=False
    )
    layer.bias = nn.Parameter(bias * gamma + beta, requires_grad=False)
    return layer


def _add_padded(first: Tensor, second: Tensor) -> Tensor:
    """Add tensors of different channels or sizes as dlib does: what is missing counts as zero."""
    if first.shape == second.shape:
        return first + second
    shape = [max(a, b) for a, b in zip(first.shape, second.shape, strict=True)]
    return _grown(first, shape) + _grown(second, shape)


def _grown(value: Tensor, shape: list[int]) -> Tensor:
    _, channels, height, width = (want - have for want, have in zip(shape, value.shape, strict=True))
    return F.pad(value, (0, width, 0, height, 0, channels))


def face_chips(
    crops: Float[Tensor, "batch 3 size size"], points: Float[Tensor, "batch 478 2"]
) -> Float[Tensor, "batch 3 150 150"]:
    """Cut out the chips that dlib's network expects, by the best similarity transform of five points.

    Differentiable with respect to the crops; the points say where to look.

    Args:
        crops: portrait crops, any value range.
        points: FaceMesh landmarks, normalised by the crop's side.
    """
    template = (crops.new_tensor(_TEMPLATE) + _PADDING) / (1 + 2 * _PADDING)
    target = points[:, list(CHIP_POINTS)].detach()
    # Similarity chip -> crop as a complex factor and an offset (least squares; no reflection).
    chip_middle, crop_middle = template.mean(0), target.mean(1, keepdim=True)
    chip_points = torch.view_as_complex((template - chip_middle).contiguous())
    crop_points = torch.view_as_complex((target - crop_middle).contiguous())
    factor = (crop_points * chip_points.conj()).sum(1) / (chip_points.abs() ** 2).sum()
    ticks = (torch.arange(CHIP_SIZE, device=crops.device, dtype=crops.dtype) + 0.5) / CHIP_SIZE
    rows, columns = torch.meshgrid(ticks - chip_middle[1], ticks - chip_middle[0], indexing="ij")
    places = torch.view_as_real(torch.complex(columns, rows)[None] * factor[:, None, None]) + crop_middle[:, :, None]
    # Brought to the chip's scale first, so that nothing aliases.
    scaled = round(CHIP_SIZE / _CHIP_IN_CROP)
    small = crops
    if crops.shape[2] > scaled:
        small = F.interpolate(crops, (scaled, scaled), mode="bilinear", antialias=True)
    return F.grid_sample(small, places * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False)


def identity_similarity(
    first: Float[Tensor, "batch 128"], second: Float[Tensor, "batch 128"]
) -> Float[Tensor, " batch"]:
    """Turn embedding distances into a similarity: 1 for the same picture, 0.5 at dlib's threshold of 0.6, 0 far beyond.

    The logistic of (0.6 - distance) over a width of 0.1, scaled to be 1 at distance 0.
    """
    distance = (first - second).norm(dim=-1)
    width = 0.1
    top = torch.sigmoid(distance.new_tensor(SAME_PERSON_DISTANCE / width))
    return torch.sigmoid((SAME_PERSON_DISTANCE - distance) / width) / top
