"""How well the reader reads renders that nothing was trained or calibrated on: landmarks, pose, actions, gaze."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from galatea.cameras import project, view_angles
from galatea.faces.landmarks import EYE_POINTS, NUM_CONTOUR, OUTER_LIPS, FaceLandmarks
from galatea.faces.packs import FacePack
from galatea.faces.reader import FaceReader
from galatea.faces.reading import FaceReading
from galatea.images import to_tensor
from galatea.morphable.actions import ACTION_INDEX, ARKIT_ACTIONS
from galatea.morphable.fitting import HeadFit, HeadFitter
from galatea.morphable.head import HeadModel
from training.heads.renderer import PARTS
from training.heads.shards import read_shard
from training.reader.backgrounds import background
from training.reader.labels import OPEN_BELOW, bake_labels, is_shown

BATCH = 16
GROUPS = ("jawOpen", "mouthSmile", "eyeBlink", "browInnerUp", "mouthPucker", "mouthFrown", "mouthFunnel",
          "eyeLook", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeLookDown")  # fmt: skip
"""Beginnings of the names of actions with thresholds; all actions that begin so are judged together."""
INNER_BROWS = (8, 9, 55, 65, 66, 107, 285, 295, 296, 336)
COVERS = ("background", "hair", "cloth", "object")
"""Parts that lie over a landmark, where the picture shows them in its place."""


@dataclass(frozen=True)
class Renders:
    """Held-out renders on procedural backgrounds, with their labels."""

    crops: Float[Tensor, "n 3 s s"]
    identity: Float[Tensor, "n 100"]
    expression: Float[Tensor, "n 52"]
    camera: Float[Tensor, "n 25"]
    points: Float[Tensor, "n 478 2"]
    gaze: Float[Tensor, "n 2 3"]
    pupil_distance: Float[Tensor, "n"]
    is_covered: Bool[Tensor, "n 478"]

    @property
    def angles_deg(self) -> Float[Tensor, "n 3"]:
        """Yaw, pitch, roll."""
        angles = view_angles(self.camera)
        return torch.stack([angles.yaw_deg, angles.pitch_deg, angles.roll_deg], 1)


def load_renders(folder: Path, model: HeadModel, limit: int | None = None) -> Renders:
    """Read the renders of a folder of `training.heads.render` and put them on backgrounds."""
    rng = np.random.default_rng(11)
    labels = bake_labels(model)
    crops: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    columns: dict[str, list[Tensor]] = {name: [] for name in ("identity", "expression", "camera")}
    for path in sorted(folder.glob("*.safetensors")):
        arrays, _ = read_shard(path)
        for row in range(len(arrays["rgb"])):
            size = arrays["rgb"].shape[1]
            alpha = arrays["alpha"][row][..., None] / 255.0
            behind = np.kron(background(rng), np.ones((size // 128, size // 128, 1)))
            crops.append((arrays["rgb"][row] * alpha + 255 * behind * (1 - alpha)).round().astype(np.uint8))
        parts.append(arrays["part"])
        for name, values in columns.items():
            values.append(torch.from_numpy(arrays[name]))
    identity, expression, camera = (torch.cat(values)[:limit] for values in columns.values())
    world = torch.from_numpy(
        np.stack([labels.points(i, e) for i, e in zip(identity.numpy(), expression.numpy(), strict=True)])
    ).float()
    points, depth = project(world, camera)
    pupils, eyes = world[:, [468, 473]], world[:, 478:]
    rotation = camera[:, :16].reshape(-1, 4, 4)[:, :3, :3]
    focal = camera[:, 16]
    distance = (world[:, 468] - world[:, 473]).norm(dim=1) * focal / depth[:, [468, 473]].mean(1)
    gaze = torch.nn.functional.normalize((pupils - eyes) @ rotation, dim=-1)
    covered = covered_points(points[:, :478], np.concatenate(parts)[:limit])
    return Renders(to_tensor(crops[:limit]), identity, expression, camera, points[:, :478], gaze, distance, covered)


def covered_points(points: Float[Tensor, "n 478 2"], parts: UInt8[np.ndarray, "n size size"]) -> Bool[Tensor, "n 478"]:
    """Return whether something lies over each landmark: hair, an object, clothing, or the outline is passed."""
    size = parts.shape[1]
    pixel = (points * size).long().clamp(0, size - 1).numpy()
    seen = parts[np.arange(len(parts))[:, None], pixel[..., 1], pixel[..., 0]]
    return torch.from_numpy(np.isin(seen, [PARTS.index(name) for name in COVERS]))


def _joined(parts: list[FaceReading]) -> FaceReading:
    return FaceReading(*(torch.cat([getattr(p, name) for p in parts]) for name in FaceReading.__dataclass_fields__))


@torch.no_grad()
def read_all(reader: FaceReader, crops: Float[Tensor, "n 3 s s"]) -> FaceReading:
    """Read many crops in batches."""
    return _joined([reader.read(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)])


@torch.no_grad()
def facemesh_fit(crops: Float[Tensor, "n 3 s s"], fitter: HeadFitter) -> tuple[HeadFit, Tensor]:
    """Return the fit of FaceMesh's landmarks, as it was done before there was a reader, and the landmarks."""
    pack = FacePack(use_reader=False)
    points = torch.cat([pack.landmarks(crops[start : start + BATCH]).points for start in range(0, len(crops), BATCH)])
    return fitter.fit(FaceLandmarks(points, points[..., 0], points[:, 0, 0])), points


def measure(reading: FaceReading, renders: Renders) -> dict[str, float]:
    """Return the figures of a reading."""
    true = renders.angles_deg
    near, wide = true[:, 0].abs() <= 30, true[:, 0].abs() <= 45
    error = (reading.points - renders.points).norm(dim=-1) / renders.pupil_distance[:, None]
    scaled = (reading.points - renders.points).norm(dim=-1) / reading.sigma
    result = {
        "landmark_error_mean": float(error[near].mean()),
        "landmark_error_median": float(error[near].median()),
        "sigma_ratio": float(scaled[near].median() / 1.1774),
        **pose_figures(reading.angles_deg(), true, wide),
        **action_figures(reading.expression, renders.expression, renders.is_covered),
    }
    blink = renders.expression[:, [ACTION_INDEX["eyeBlinkRight"], ACTION_INDEX["eyeBlinkLeft"]]]
    cosine = (reading.gaze * renders.gaze).sum(-1).clamp(-1, 1)
    result["gaze_error_deg"] = float(torch.rad2deg(torch.acos(cosine))[(blink < OPEN_BELOW) & near[:, None]].mean())
    return result


def pose_figures(found: Float[Tensor, "n 3"], true: Float[Tensor, "n 3"], chosen: Tensor) -> dict[str, float]:
    """Return mean absolute errors of the angles in degrees."""
    error = (found - true)[chosen].abs().mean(0)
    return {f"{name}_error_deg": float(value) for name, value in zip(("yaw", "pitch", "roll"), error, strict=True)}


def action_figures(
    read: Float[Tensor, "n 52"], true: Float[Tensor, "n 52"], is_covered: Bool[Tensor, "n 478"] | None = None
) -> dict[str, float]:
    """Return correlation and slope (of read on true values) of each group of actions; closed eyes do not look.

    With `is_covered` also correlations over those faces where nothing lies over the landmarks that show the action:
    `_correlation_in_sight`.
    """
    result = {}
    for group in GROUPS:
        names = [name for name in ARKIT_ACTIONS if name.startswith(group)]
        chosen = torch.stack([is_shown(name, true) for name in names], 1)
        columns = [ACTION_INDEX[name] for name in names]
        given, seen = true[:, columns], read[:, columns]
        result[f"{group}_correlation"], result[f"{group}_slope"] = _agreement(given[chosen], seen[chosen])
        if is_covered is not None:
            chosen &= torch.stack([~is_covered[:, list(shown_at(name))].any(1) for name in names], 1)
            result[f"{group}_correlation_in_sight"] = _agreement(given[chosen], seen[chosen])[0]
    return result


def shown_at(action: str) -> tuple[int, ...]:
    """Return the landmarks that show an action of `GROUPS`."""
    if action.startswith("brow"):
        return INNER_BROWS
    if action.startswith("eye"):
        return EYE_POINTS[action.endswith("Left")][:NUM_CONTOUR]
    return OUTER_LIPS


def _agreement(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> tuple[float, float]:
    """Return correlation, and slope of y on x."""
    x, y = x - x.mean(), y - y.mean()
    product = (x * y).sum()
    return float(product / (x.norm() * y.norm()).clamp_min(1e-9)), float(product / x.square().sum())
