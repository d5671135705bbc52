"""A second, closer look at eyes and mouth: where it is cut, and the small networks that read it.

Both networks read landmarks of their own in patch coordinates, actions, and (eyes) gaze; they are told the head's pose.
The person's left eye is mirrored, so that one network serves both eyes and no side is preferred.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from galatea.faces.landmarks import EYE_POINTS, OUTER_LIPS
from galatea.faces.regions import Regions
from galatea.morphable.actions import ACTION_INDEX, ARKIT_ACTIONS

PATCH_SIZE = 64
EYE_SIDE, EYE_RAISE, MOUTH_SIDE, MOUTH_DROP = 0.4, 0.14, 0.5, 0.06
"""Sides of patches in region sides (for a head of usual size); patches lie this share of their side above the middle of
the eyelids, and below the middle of the lips: brows, what raised brows crease, and chin belong to them."""
# fmt: off
BESIDE_RIGHT_EYE = (
    3, 6, 8, 9, 21, 47, 54, 68, 69, 71, 100, 103, 104, 108, 114, 116, 122, 139, 151, 168, 174, 188, 195, 196, 197,
    217, 236,
)
BESIDE_LEFT_EYE = (
    248, 6, 8, 9, 251, 277, 284, 298, 299, 301, 329, 332, 333, 337, 343, 345, 351, 368, 151, 168, 399, 412, 195,
    419, 197, 437, 456,
)
# fmt: on
"""Points of forehead, temple and the ridge of the nose that are seen beside an eye, in mirrored order."""
RIGHT_EYE = (*EYE_POINTS[0], 468, 469, 470, 471, 472, *BESIDE_RIGHT_EYE)
LEFT_EYE = (*EYE_POINTS[1], 473, 474, 475, 476, 477, *BESIDE_LEFT_EYE)
"""Points that are read from eye patches: contour, halos, brow, iris, and what lies beside; the right eye is the
image-left one. Points of the midline are read from both patches."""
NUM_CONTOUR = 16
EYE_ACTIONS = ("browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut",
               "eyeLookUp", "eyeSquint", "eyeWide")  # fmt: skip
"""Actions of one side that eye patches show; browInnerUp comes behind them."""
# fmt: off
MOUTH_AND_CHIN = (
    0, 11, 12, 13, 14, 15, 16, 17, 18, 32, 37, 38, 39, 40, 41, 42, 43, 61, 62, 72, 73, 74, 76, 77, 78, 80, 81, 82, 83,
    84, 85, 86, 87, 88, 89, 90, 91, 92, 95, 96, 106, 140, 146, 149, 164, 165, 167, 178, 179, 180, 181, 182, 183, 184,
    185, 186, 191, 194, 199, 200, 201, 204, 208, 211, 262, 267, 268, 269, 270, 271, 272, 273, 291, 292, 302, 303, 304,
    306, 307, 308, 310, 311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 324, 325, 335, 369, 375, 378, 391,
    393, 402, 403, 404, 405, 406, 407, 408, 409, 410, 415, 418, 421, 424, 428, 431,
)
BESIDE_MOUTH = (
    1, 4, 36, 44, 45, 48, 49, 57, 75, 94, 99, 115, 150, 152, 170, 171, 176, 202, 203, 205, 206, 210, 212, 216,
    220, 235, 237, 242, 266, 274, 275, 278, 279, 287, 305, 328, 344, 379, 395, 396, 400, 422, 423, 425, 426, 430,
    432, 436, 440, 455, 457, 462,
)
# fmt: on
"""Points of lips, chin and the skin between nose and mouth; of nose, cheeks and jaw beside them."""
MOUTH_POINTS = (*MOUTH_AND_CHIN, *BESIDE_MOUTH)
MOUTH_ACTIONS = tuple(
    index for index, name in enumerate(ARKIT_ACTIONS) if name.startswith(("mouth", "jaw", "tongue", "cheek", "noseS"))
)
WIDTHS, SQUEEZE, HIDDEN, BOTH = (32, 64, 96), 40, 192, 160
STEM_LAYERS = 2
"""Of the fine part, those that work at half a patch's resolution."""
DROPPED = 0.2
"""Share of features that actions are not read from in training: faces would be learned by heart."""
MAX_LOGIT = 60.0
POINTS_GAIN = 8.0
"""Brings points, a small share of a patch away from their usual place, to the size of the other features."""


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution with batch normalisation, which `fold_normalisation` removes for use."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = convolution(width, width), convolution(width, width)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """Return x plus what the convolutions add."""
        result: Tensor = torch.relu_(x + self.second(torch.relu_(self.first(x))))
        return result


@dataclass(frozen=True)
class PatchReading:
    """What a patch shows.

    Attributes:
        points: in patch coordinates.
        log_sigma: logarithm of their standard deviation, in patch sides.
        numbers: actions, for eyes also gaze, as far as the patch alone tells.
        features: what the numbers were read from.
    """

    points: Float[Tensor, "batch points 2"]
    log_sigma: Float[Tensor, "batch points"]
    numbers: Float[Tensor, "batch numbers"]
    features: Float[Tensor, "batch features"]


class SecondLook(nn.Module):
    """Reads patches of 64 x 64 pixels in [-1, 1].

    Points are the mean of a probability over a grid (Sun et al. 2018, "Integral Human Pose Regression") and a small
    correction. The probability is the product of a coarse one, which knows the whole patch, and one of twice the
    resolution, which knows edges. Actions and the other numbers are read from features and points together.

    Args:
        mean_points: where the points usually are, patch coordinates.
        num_numbers: outputs beside points and their uncertainty.
    """

    mean_points: Tensor
    grid: Tensor

    def __init__(self, mean_points: Float[Tensor, "points 2"], num_numbers: int) -> None:
        super().__init__()
        stem, fine, coarse = WIDTHS
        num = len(mean_points)
        self.register_buffer("mean_points", mean_points)
        self.register_buffer("grid", cell_middles(PATCH_SIZE // 2), persistent=False)
        self.fine = nn.Sequential(
            convolution(3, stem, 2),
            nn.ReLU(inplace=True),
            convolution(stem, fine, 2),
            nn.ReLU(inplace=True),
            Block(fine),
        )
        self.coarse = nn.Sequential(convolution(fine, coarse, 2), nn.ReLU(inplace=True), Block(coarse))
        self.squeeze = nn.Sequential(nn.Conv2d(coarse, SQUEEZE, 1), nn.ReLU(inplace=True), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(SQUEEZE * (PATCH_SIZE // 8) ** 2 + 6, HIDDEN), nn.ReLU(inplace=True))
        self.down = nn.Conv2d(coarse, fine, 1)
        self.around = nn.Sequential(convolution(fine, fine), nn.ReLU(inplace=True))
        self.where = nn.Conv2d(fine, num, 1)
        self.lift = nn.Conv2d(fine, stem, 1)
        self.edges = convolution(stem, stem)
        self.sharp = nn.Sequential(convolution(stem, stem), nn.ReLU(inplace=True))
        self.exactly = nn.Conv2d(stem, num, 1)
        nn.init.zeros_(self.exactly.weight)
        self.move = last_layer(HIDDEN, num * 3)
        self.both = nn.Linear(HIDDEN + 2 * num, BOTH)
        self.numbers = last_layer(BOTH, num_numbers)

    def forward(self, patches: Float[Tensor, "batch 3 64 64"], rotation: Float[Tensor, "batch 3 3"]) -> PatchReading:
        """Read patches; they come with the head's pose."""
        pose = rotation[..., :2].transpose(1, 2).flatten(1)
        stem = self.fine[:STEM_LAYERS](patches)
        fine = self.fine[STEM_LAYERS:](stem)
        coarse = self.coarse(fine)
        hidden = self.hidden(torch.cat([self.squeeze(coarse), pose.to(coarse.dtype)], 1))
        near = self.around(torch.relu(fine + doubled(self.down(coarse))))
        sharp = self.sharp(torch.relu(self.edges(stem) + doubled(self.lift(near))))
        logits = self.exactly(sharp) + doubled(self.where(near), "bilinear")
        # Cells before points, as convolutions leave them in memory, and a bound instead of the usual subtraction of the
        # largest logit: less than half the time of a softmax and its mean on a processor.
        bounded = logits.clamp(-MAX_LOGIT, MAX_LOGIT).permute(0, 2, 3, 1).flatten(1, 2)
        weight = bounded.to(self.grid.dtype).exp_()
        moves = precise(self.move, hidden).reshape(len(patches), -1, 3)
        with torch.autocast(patches.device.type, enabled=False):
            sums = (self.grid.T @ weight).transpose(1, 2)
            points = sums[..., :2] / sums[..., 2:] + 0.1 * moves[..., :2]
        hidden = nn.functional.dropout(hidden, DROPPED, self.training)
        seen = torch.cat([hidden.to(points.dtype), POINTS_GAIN * (points - self.mean_points).flatten(1)], 1)
        features = torch.relu(precise(self.both, seen))
        return PatchReading(points, (moves[..., 2] - 3.0).clamp(-7, 1), precise(self.numbers, features), features)


def doubled(maps: Float[Tensor, "batch n h w"], mode: str = "nearest") -> Float[Tensor, "batch n h2 w2"]:
    """Return maps of twice the resolution."""
    return nn.functional.interpolate(maps, scale_factor=2, mode=mode)


def cell_middles(size: int) -> Float[Tensor, "cells 3"]:
    """Return the middles of a square grid's cells in patch coordinates, row by row, and a one for each."""
    ticks = (torch.arange(size) + 0.5) / size
    rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([columns, rows, torch.ones_like(rows)], -1).reshape(-1, 3)


def last_layer(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer that starts out saying almost nothing."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def precise(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """Apply a last layer in float32 also where the rest runs in bfloat16, whose steps are coarser than a pixel."""
    with torch.autocast(hidden.device.type, enabled=False):
        result: Tensor = layer(hidden.to(layer.weight.dtype))
    return result


def shortened(pictures: Tensor) -> torch.autocast:
    """Return a context in which networks compute in bfloat16, if nobody asks for gradients and that is faster here."""
    is_asked = torch.is_grad_enabled() and pictures.requires_grad
    is_plain = pictures.device.type == "cpu" and pictures.dtype == torch.float32
    return torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16() and is_plain and not is_asked)


@functools.cache
def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself; elsewhere it would be slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def eye_patches(points: Float[Tensor, "batch 478 2"], log_scale: Float[Tensor, "batch"]) -> Regions:
    """Return squares around the right and the left eye of each face (rows in turn), the left one mirrored.

    Args:
        points: landmarks in coordinates of an upright region.
        log_scale: logarithm of the head's size in that region.
    """
    index = torch.tensor([RIGHT_EYE[:NUM_CONTOUR], LEFT_EYE[:NUM_CONTOUR]], device=points.device)
    side = (EYE_SIDE * torch.exp(log_scale)).repeat_interleave(2)
    centre = points[:, index].mean(2).flatten(0, 1)
    raised = torch.stack([torch.zeros_like(side), -EYE_RAISE * side], 1)
    is_left = torch.tensor([False, True], device=points.device).repeat(len(points))
    return Regions(centre + raised, side, torch.zeros_like(side), is_left)


def mouth_patches(points: Float[Tensor, "batch 478 2"], log_scale: Float[Tensor, "batch"]) -> Regions:
    """Return squares around the mouths."""
    side = MOUTH_SIDE * torch.exp(log_scale)
    lowered = torch.stack([torch.zeros_like(side), MOUTH_DROP * side], 1)
    return Regions(points[:, list(OUTER_LIPS)].mean(1) + lowered, side, torch.zeros_like(side))


def eye_action_index() -> Int[Tensor, "2 actions"]:
    """Return, for the right and the left eye, the numbers of the actions that eye patches show."""
    return torch.tensor(
        [
            [*(ACTION_INDEX[name + side] for name in EYE_ACTIONS), ACTION_INDEX["browInnerUp"]]
            for side in ("Right", "Left")
        ]
    )


def eyes_together() -> Int[Tensor, "52"]:
    """Return, for the actions that turn one eye, the action that turns the other one the same way; others themselves.

    Both eyes look at the same thing, and what one of them shows helps to read the other.
    """
    pairs = (("eyeLookInLeft", "eyeLookOutRight"), ("eyeLookOutLeft", "eyeLookInRight"),
             ("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight"))  # fmt: skip
    partner = torch.arange(len(ARKIT_ACTIONS))
    for first, second in pairs:
        partner[ACTION_INDEX[first]], partner[ACTION_INDEX[second]] = ACTION_INDEX[second], ACTION_INDEX[first]
    return partner


def mirrored_rotation(rotation: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3 3"]:
    """Return the pose of the mirrored head."""
    flip = rotation.new_tensor([-1.0, 1.0, 1.0])
    return flip[:, None] * rotation * flip


def new_looks(mean_points: Float[Tensor, "478 2"]) -> tuple[SecondLook, SecondLook]:
    """Return untrained networks for eyes and mouth.

    Args:
        mean_points: where the mean head's landmarks are seen in a frontal region.
    """
    usual, zero = mean_points[None], torch.zeros(1)
    eye = eye_patches(usual, zero)
    right = Regions(eye.centre[:1], eye.side[:1], eye.angle[:1]).to_region(usual[:, list(RIGHT_EYE)])[0]
    mouth = mouth_patches(usual, zero).to_region(usual[:, list(MOUTH_POINTS)])[0]
    return SecondLook(right, len(EYE_ACTIONS) + 4), SecondLook(mouth, len(MOUTH_ACTIONS))
