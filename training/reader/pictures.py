"""From rendered heads to training examples: random person, mirror, region, background, and everything in `augment`.

Shards are `pictures-*.safetensors` (`training.reader.render`): square RGBA renders with identity, expression and
camera. New shards are picked up while training runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import IterableDataset

from galatea.faces.reader_network import INPUT_SIZE
from galatea.morphable.head import HeadModel
from training.reader.augment import Scene, augment
from training.reader.backgrounds import background
from training.reader.labels import LabelModel, View, bake_labels, mirror_label, picture_place, view_of

DTYPES = {"U8": np.uint8, "F32": np.float32, "I64": np.int64}
REFRESH = 4000
"""Examples between two looks for new shards."""
MAX_SHIFT, MAX_ZOOM, TURN_DEG, MAX_TURN_DEG = 0.08, 0.13, 9.0, 26.0
"""Jitter of regions: of the side; logarithm of the size; standard deviation and bound of the turn."""


@dataclass(frozen=True)
class Render:
    """One rendered head, perhaps mirrored."""

    rgba: Float[np.ndarray, "s s 4"]
    part: Float[np.ndarray, "s s"]
    identity: Float[np.ndarray, "100"]
    expression: Float[np.ndarray, "52"]
    camera: Float[np.ndarray, "25"]
    person: int


class Shards:
    """All renders of a folder, by number; shards stay on disk."""

    def __init__(self, folder: Path, is_held_out: bool, every: int = 40) -> None:
        """Look at a folder; every `every`-th shard is held out."""
        self.folder, self.is_held_out, self.every = folder, is_held_out, every
        self._open: dict[Path, dict[str, np.ndarray]] = {}
        self._index: list[tuple[Path, int]] = []
        self.refresh()

    def refresh(self) -> None:
        """Look for new shards."""
        for path in sorted(self.folder.glob("*.safetensors")):
            number = int(path.stem.split("-")[-1])
            is_kept = (number // 42) % self.every == self.every - 1
            if path not in self._open and is_kept == self.is_held_out:
                self._open[path] = mapped(path)
                self._index += [(path, row) for row in range(len(self._open[path]["camera"]))]

    def __len__(self) -> int:
        """Return how many renders there are."""
        return len(self._index)

    def read(self, number: int) -> Render:
        """Return one render."""
        path, row = self._index[number]
        file = self._open[path]

        def column(name: str) -> np.ndarray:
            return np.array(file[name][row])

        alpha = column("alpha").astype(np.float32) / 255
        rgb = column("rgb").astype(np.float32) / 255
        return Render(
            np.dstack([rgb * alpha[..., None], alpha]),
            column("part").astype(np.float32),
            column("identity"),
            column("expression"),
            column("camera"),
            int(column("person")),
        )

    def drawn(
        self, rng: np.random.Generator, model: HeadModel
    ) -> Iterator[tuple[Render, Float[np.ndarray, "h w 3"] | None]]:
        """Yield renders without end, half of them mirrored, each with another head's picture for the background."""
        other: np.ndarray | None = None
        while True:
            self.refresh()
            for number in rng.permutation(len(self))[:REFRESH]:
                render = self.read(int(number))
                if rng.random() < 0.5:
                    render = mirrored(render, model)
                yield render, other
                if rng.random() < 0.2:
                    other = render.rgba[..., :3]


def mapped(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file as memory maps: reading one row costs no more than its bytes."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    arrays: dict[str, np.ndarray] = {}
    for name, facts in header.items():
        if name != "__metadata__":
            start = 8 + length + facts["data_offsets"][0]
            arrays[name] = np.memmap(path, DTYPES[facts["dtype"]], "r", start, tuple(facts["shape"]))
    return arrays


def mirrored(render: Render, model: HeadModel) -> Render:
    """Return the mirror image with its exact labels."""
    return Render(
        np.ascontiguousarray(render.rgba[:, ::-1]),
        np.ascontiguousarray(render.part[:, ::-1]),
        render.identity * model.identity_mirror.numpy(),
        render.expression[model.action_mirror.numpy()],
        mirror_label(render.camera),
        render.person,
    )


def random_region(camera: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, "2 3"]:
    """Return a jittered similarity from picture to region coordinates."""
    centre, side = picture_place(camera)
    side *= float(np.exp(np.clip(rng.normal(0, MAX_ZOOM / 2), -MAX_ZOOM, MAX_ZOOM)))
    centre = centre + np.clip(rng.normal(0, MAX_SHIFT / 2, 2), -MAX_SHIFT, MAX_SHIFT) * side
    angle = np.radians(np.clip(rng.normal(0, TURN_DEG), -MAX_TURN_DEG, MAX_TURN_DEG))
    return similarity(centre, side, angle)


def similarity(centre: np.ndarray, side: float, angle: float) -> Float[np.ndarray, "2 3"]:
    """Return picture -> region coordinates of a region; its x axis points `angle` clockwise of the picture's."""
    cos, sin = np.cos(angle) / side, np.sin(angle) / side
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, 0.5 - linear @ centre])


def cut(image: np.ndarray, to_region: np.ndarray, size: int = INPUT_SIZE, flags: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Resample a picture's region; pixels are half-integer centred."""
    scale = image.shape[0]
    linear = to_region[:, :2] * size / scale
    shift = to_region[:, 2] * size - 0.5 + linear @ np.array([0.5, 0.5])
    return cv2.warpAffine(
        image, np.column_stack([linear, shift]), (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


@dataclass(frozen=True)
class Example:
    """A network input and what it shows; `view` and `points` serve drawing."""

    image: Float[np.ndarray, "128 128 3"]
    expression: Float[np.ndarray, "52"]
    points3: Float[np.ndarray, "480 3"]
    view: View

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what training needs."""
        landmarks = self.view.project(self.points3[:478])
        pupils, eyes = self.points3[[468, 473]], self.points3[478:]
        gaze = (pupils - eyes) @ self.view.rotation.T
        gaze = gaze / np.linalg.norm(gaze, axis=1, keepdims=True)
        return {
            "image": np.round(self.image.clip(0, 1) * 255).astype(np.uint8).transpose(2, 0, 1),
            "points": landmarks.astype(np.float32),
            "expression": self.expression.astype(np.float32),
            "rotation": self.view.rotation.astype(np.float32),
            "centre": self.view.centre.astype(np.float32),
            "log_scale": np.float32(self.view.log_scale),
            "gaze": gaze.astype(np.float32),
        }


def make_example(
    render: Render,
    labels: LabelModel,
    rng: np.random.Generator,
    behind: np.ndarray | None = None,
    is_plain: bool = False,
) -> Example:
    """Cut, dress, light and spoil a render; `behind` is another head to blur into the background."""
    to_region = random_region(render.camera, rng)
    view = view_of(render.camera, to_region)
    points3 = labels.points(render.identity, render.expression)
    rgba = cut(render.rgba, to_region)
    skin = cut((render.part == 1).astype(np.float32), to_region)
    scene = Scene(rgba[..., :3], rgba[..., 3], skin, background(rng, behind), view, points3)
    return Example(augment(scene, rng, is_plain), render.expression, points3, view)


class Examples(IterableDataset):  # type: ignore[type-arg]
    """An endless stream of examples of a folder; mirrored half of the time."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Remember the folder; it is opened in the worker."""
        self.folder, self.seed = folder, seed

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield examples."""
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        model = HeadModel.load()
        labels = bake_labels(model)
        for render, other in Shards(self.folder, is_held_out=False).drawn(rng, model):
            yield make_example(render, labels, rng, other).tensors()
