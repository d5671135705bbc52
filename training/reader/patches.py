"""Examples for the second looks: patches of eyes and mouth from spoiled renders, cut about where they really are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import IterableDataset

from galatea.faces.regions import Regions
from galatea.faces.second_look import (
    LEFT_EYE,
    MOUTH_POINTS,
    PATCH_SIZE,
    RIGHT_EYE,
    eye_patches,
    mirrored_rotation,
    mouth_patches,
)
from galatea.morphable.head import HeadModel
from training.reader.augment import Scene, augment
from training.reader.backgrounds import background
from training.reader.labels import LabelModel, bake_labels, picture_place, view_of
from training.reader.pictures import Example, Render, Shards, cut, similarity

SCENE_SIZE, WIDER, RAISED = 176, 1.04, 0.03
"""Pixels and place of the region that patches are cut from: an eye's patch is about as fine as what is cut from it."""
PICTURE_SIZE, WIDER_PICTURE, BATCH = 224, 1.25, 32
"""Pixels and place of pictures for the whole reader, about as fine as what it makes of large crops."""
KEPT, AGAIN = 6000, 7
"""So many examples are kept, and for each new one so many of them are given again: making one costs more than learning
it."""
PLAIN_SHARE = 0.35
"""Of examples that are not spoiled at all: points to a fraction of a pixel are learned from clear pictures."""
SHIFT, MARGIN, ZOOM, TURN_DEG, POSE_NOISE = 1.7, 4, 0.05, 3.0, 0.04
"""Standard deviations of how patches differ from true ones: pixels (at most the margin), log size, degrees, rotation
entries. Places and poses are drawn anew each time an example is given."""


def upright_example(
    render: Render,
    labels: LabelModel,
    rng: np.random.Generator,
    behind: np.ndarray | None,
    size: int = SCENE_SIZE,
    wider: float = WIDER,
    is_plain: bool = False,
) -> Example:
    """Return a spoiled picture of the face, about upright and in the middle, `wider` than a region."""
    centre, side = picture_place(render.camera)
    upright = view_of(render.camera, similarity(centre, side, 0.0)).rotation
    roll = float(np.arctan2(upright[1, 0], upright[0, 0]) + np.radians(rng.normal(0, TURN_DEG)))
    up = np.array([np.sin(roll), -np.cos(roll)])
    to_region = similarity(centre + RAISED * side * up, side * wider, roll)
    view = view_of(render.camera, to_region)
    points3 = labels.points(render.identity, render.expression)
    rgba = cut(render.rgba, to_region, size)
    skin = cut((render.part == 1).astype(np.float32), to_region, size)
    scene = Scene(rgba[..., :3], rgba[..., 3], skin, background(rng, behind, size), view, points3)
    return Example(augment(scene, rng, is_plain), render.expression, points3, view)


def patch_example(
    render: Render, labels: LabelModel, rng: np.random.Generator, behind: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return patches, wider by a margin on all sides, and labels of a render."""
    is_plain = rng.random() < PLAIN_SHARE
    return _patches(upright_example(render, labels, rng, behind, is_plain=is_plain), rng)


def _patches(example: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
    labels = example.tensors()
    points, scale = torch.from_numpy(labels["points"])[None], torch.tensor([float(labels["log_scale"])])
    rotation = torch.from_numpy(labels["rotation"])[None]
    both = torch.cat([rotation, mirrored_rotation(rotation)])
    eyes, mouth = _moved(eye_patches(points, scale), rng), _moved(mouth_patches(points, scale), rng)
    eye_points = torch.cat([points[:, list(RIGHT_EYE)], points[:, list(LEFT_EYE)]])
    gaze = labels["gaze"] * np.array([[1, 1, 1], [-1, 1, 1]], np.float32)
    return {
        "eyes": np.stack([_cut(example.image, eyes, row) for row in range(2)]),
        "mouth": _cut(example.image, mouth, 0),
        "eye_points": eyes.to_region(eye_points).numpy(),
        "mouth_points": mouth.to_region(points[:, list(MOUTH_POINTS)])[0].numpy(),
        "eye_rotation": both.numpy(),
        "mouth_rotation": rotation[0].numpy(),
        "eye_forward": both[..., 2].numpy(),
        "gaze": gaze,
        "expression": labels["expression"],
    }


def _moved(regions: Regions, rng: np.random.Generator) -> Regions:
    """Return regions of another size, off by fractions of a pixel; `placed` moves them by whole ones."""
    count = len(regions.side)
    shift = torch.from_numpy(rng.uniform(-0.5, 0.5, (count, 2)).astype(np.float32)) / PATCH_SIZE
    zoom = torch.from_numpy(np.exp(rng.normal(0, ZOOM, count)).astype(np.float32))
    centre = regions.centre + shift * regions.side[:, None]
    return Regions(centre, regions.side * zoom, regions.angle, regions.is_mirrored)


def _cut(image: Float[np.ndarray, "s s 3"], regions: Regions, row: int) -> np.ndarray:
    size = PATCH_SIZE + 2 * MARGIN
    to_patch = similarity(regions.centre[row].numpy(), float(regions.side[row]) * size / PATCH_SIZE, 0.0)
    patch = cut(image, to_patch, size)
    if regions.is_mirrored is not None and bool(regions.is_mirrored[row]):
        patch = patch[:, ::-1]
    return np.round(patch.clip(0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)


def placed(example: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return an example as the networks see it: its patches cut about in the right place, the pose a little off."""
    shift = np.clip(np.rint(rng.normal(0, SHIFT, (3, 2))), -MARGIN, MARGIN).astype(int)
    noise = rng.normal(0, POSE_NOISE, (3, 3, 3)).astype(np.float32)
    moved = (shift / PATCH_SIZE).astype(np.float32)
    return example | {
        "eyes": np.stack([_window(patch, where) for patch, where in zip(example["eyes"], shift, strict=False)]),
        "mouth": _window(example["mouth"], shift[2]),
        "eye_points": example["eye_points"] - moved[:2, None],
        "mouth_points": example["mouth_points"] - moved[2],
        "eye_rotation": example["eye_rotation"] + noise[:2],
        "mouth_rotation": example["mouth_rotation"] + noise[2],
    }


def _window(patch: np.ndarray, shift: np.ndarray) -> np.ndarray:
    left, top = MARGIN + shift
    return np.ascontiguousarray(patch[:, top : top + PATCH_SIZE, left : left + PATCH_SIZE])


class PatchExamples(IterableDataset):  # type: ignore[type-arg]
    """An endless stream of patch examples of a folder; mirrored half of the time."""

    def __init__(self, folder: Path, seed: int, is_held_out: bool = False) -> None:
        """Remember the folder; it is opened in the worker."""
        self.folder, self.seed, self.is_held_out = folder, seed, is_held_out

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield examples."""
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        model = HeadModel.load()
        labels = bake_labels(model)
        kept: list[dict[str, np.ndarray]] = []
        for render, other in Shards(self.folder, self.is_held_out).drawn(rng, model):
            example = patch_example(render, labels, rng, other)
            yield placed(example, rng)
            if self.is_held_out:
                continue
            if len(kept) < KEPT:
                kept.append(example)
            else:
                kept[int(rng.integers(KEPT))] = example
            again = min(AGAIN, len(kept) // 100)
            yield from (placed(kept[int(row)], rng) for row in rng.integers(len(kept), size=again))


def pictures(
    folder: Path, seed: int, is_held_out: bool = False, plain_share: float = PLAIN_SHARE, every: int = 40
) -> Iterator[dict[str, Float[Tensor, "n *shape"]]]:
    """Yield batches of upright pictures with labels, without end; every `every`-th shard is held out."""
    rng, model = np.random.default_rng(seed), HeadModel.load()
    labels = bake_labels(model)
    rows: list[dict[str, np.ndarray]] = []
    for render, other in Shards(folder, is_held_out, every).drawn(rng, model):
        is_plain = rng.random() < plain_share
        rows.append(upright_example(render, labels, rng, other, PICTURE_SIZE, WIDER_PICTURE, is_plain).tensors())
        if len(rows) == BATCH:
            yield {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
            rows = []
