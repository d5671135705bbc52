"""Finds every face in a photo with MediaPipe's BlazeFace, from faces of 40 pixels to close-ups.

The full-range network is fully convolutional and reads faces of about 14 to 150 pixels, upright or turned by up to 45
degrees; run over whole images of a small pyramid it needs neither tiles nor rotated passes.
Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs"; the merging of overlapping
boxes by their score-weighted mean is section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from galatea.errors import WeightsError
from galatea.faces.tflite import TFLiteGraph

STRIDE = 4
"""Image pixels for each output cell; one anchor a cell, at its centre."""
NETWORK_SIZE = 192
"""Image size of the network; smaller images are padded to it."""
COARSEST = 160
"""Longer side of the coarsest pyramid level: a close-up that fills the photo is within the network's reach there."""
FINEST_SCALE = 0.5
"""Scale of the finest level: a face of 40 pixels is 20 pixels there."""
FINEST = 1920
"""Longest side of the finest level, which bounds time and memory for huge photos."""
LEVEL_RATIO = 3.0
_CELL_MULTIPLE = 32


@dataclass(frozen=True)
class Detection:
    """A face as the detector sees it, in pixels of the photo.

    `keypoints` are image-left eye, image-right eye, nose tip, mouth centre, image-left ear, image-right ear.
    """

    box: Float[np.ndarray, " 4"]
    score: float
    keypoints: Float[np.ndarray, "6 2"]


class FaceDetector(nn.Module):
    """BlazeFace full range over an image pyramid.

    Args:
        graph: the network.
        min_score: what the pyramid's best score must reach.
    """

    def __init__(self, graph: TFLiteGraph, min_score: float = 0.45) -> None:
        super().__init__()
        self.graph = graph
        self.min_score = min_score
        reshapes = [operator for operator in graph.operators if operator.name == "RESHAPE"]
        heads = {graph.shapes[operator.inputs[0]][3]: operator.inputs[0] for operator in reshapes}
        if set(heads) != {1, 16}:
            raise WeightsError(f"{graph.name} is not BlazeFace full range: its heads have {sorted(heads)} channels.")
        self.heads = (heads[1], heads[16])

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch anchors"], Float[Tensor, "batch anchors 8 2"]]:
        """Score every anchor.

        Args:
            images: in [-1, 1], height and width divisible by 32 and at least 192.

        Returns:
            Scores in 0..1, and for each anchor (box centre, box size, six keypoints) in pixels of `images`.
        """
        logits, raw = self.graph(images, self.heads)
        batch, _, rows, columns = logits.shape
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        anchors = ((torch.stack([x, y], -1) + 0.5) * STRIDE).to(raw).reshape(1, -1, 1, 2)
        values = raw.permute(0, 2, 3, 1).reshape(batch, -1, 8, 2)
        is_position = torch.ones(8, 1, device=raw.device)
        is_position[1] = 0
        return logits.permute(0, 2, 3, 1).reshape(batch, -1).sigmoid(), values + anchors * is_position

    @torch.no_grad()
    def detect(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Detection]:
        """Find the faces of one photo, best score first."""
        device = next(self.graph.buffers()).device
        scores, values = [], []
        for longer_side in pyramid(image.shape[0], image.shape[1]):
            level, scale = _resize(image, longer_side)
            level_scores, level_values = self(level.to(device))
            is_candidate = level_scores[0] > self.min_score
            scores.append(level_scores[0][is_candidate].cpu().numpy())
            values.append((level_values[0][is_candidate] / scale).cpu().numpy())
        return merge(np.concatenate(scores), np.concatenate(values))

    @torch.no_grad()
    def locate(
        self, crops: Float[Tensor, "batch 3 size size"], expected: tuple[float, float, float]
    ) -> tuple[Float[Tensor, "batch 8 2"], Float[Tensor, " batch"]]:
        """Find one face in each square crop: the one most like what is expected there.

        Args:
            crops: in [-1, 1].
            expected: centre x, centre y and size of the face, normalised by the crop's side.

        Returns:
            Normalised (box centre, box size, six keypoints), and scores; a score below `min_score` means not found.
        """
        small = torch.nn.functional.interpolate(crops, (NETWORK_SIZE, NETWORK_SIZE), mode="bilinear", antialias=True)
        scores, values = self(small)
        values = values / NETWORK_SIZE
        distance = (values[:, :, 0] - values.new_tensor(expected[:2])).norm(dim=-1) / expected[2]
        ratio = (values[:, :, 1, 0].clamp(min=1e-3) / expected[2]).log().abs()
        best = (scores * torch.exp(-distance - 0.5 * ratio)).argmax(1)
        rows = torch.arange(len(crops), device=crops.device)
        return values[rows, best], scores[rows, best]


def pyramid(height: int, width: int) -> list[int]:
    """Longer sides of the pyramid's levels, finest first."""
    longer = max(height, width)
    sides = [min(FINEST, max(round(longer * FINEST_SCALE), min(longer, NETWORK_SIZE)))]
    while sides[-1] > 1.2 * COARSEST:
        sides.append(max(COARSEST, round(sides[-1] / LEVEL_RATIO)))
    return sides


def _resize(image: UInt8[np.ndarray, "height width 3"], longer_side: int) -> tuple[Float[Tensor, "1 3 h w"], float]:
    """Scale the photo and pad it at the right and below to what the network takes."""
    height, width = image.shape[:2]
    scale = longer_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    padded = [max(NETWORK_SIZE, -(-side // _CELL_MULTIPLE) * _CELL_MULTIPLE) for side in small.shape[:2]]
    canvas = torch.zeros(1, 3, *padded)
    canvas[0, :, : small.shape[0], : small.shape[1]] = torch.from_numpy(small).permute(2, 0, 1) / 127.5 - 1
    return canvas, scale


def merge(scores: Float[np.ndarray, " n"], values: Float[np.ndarray, "n 8 2"]) -> list[Detection]:
    """Join overlapping candidates of all levels to one face each, by the mean weighted with the scores."""
    order = np.argsort(-scores, kind="stable")
    scores, values = scores[order], values[order]
    low, high = values[:, 0] - values[:, 1] / 2, values[:, 0] + values[:, 1] / 2
    is_free = np.ones(len(scores), dtype=bool)
    found = []
    for first in range(len(scores)):
        if not is_free[first]:
            continue
        group = is_free & _is_same(low, high, first)
        is_free &= ~group
        # Only candidates nearly as large as the best one shape the mean; nested ones are dropped.
        ratio = (high - low)[:, 0] / max((high - low)[first, 0], 1e-6)
        group &= (ratio > 0.7) & (ratio < 1.4)
        mean = np.average(values[group], axis=0, weights=scores[group])
        box = np.concatenate([mean[0] - mean[1] / 2, mean[0] + mean[1] / 2])
        found.append(Detection(box, float(scores[first]), mean[2:]))
    return found


def _is_same(low: Float[np.ndarray, "n 2"], high: Float[np.ndarray, "n 2"], first: int) -> np.ndarray:
    """Which boxes overlap box `first`: intersection over union above 0.3, or most of the smaller one inside."""
    overlap = np.clip(np.minimum(high, high[first]) - np.maximum(low, low[first]), 0, None).prod(1)
    area = np.clip(high - low, 1e-6, None).prod(1)
    union = area + area[first] - overlap
    same: np.ndarray = (overlap / union > 0.3) | (overlap / np.minimum(area, area[first]) > 0.6)
    same[first] = True
    return same
