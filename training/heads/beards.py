"""Where beards grow on the head at rest, and shells of the skin there that carry longer hair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from galatea.faces.landmarks import OUTER_LIPS
from galatea.morphable.correspondence import Correspondence
from galatea.morphable.head import HeadModel
from training.heads.extras import Beard

NOSE_BASE, LIP_CORNER, CHIN, EAR = 2, 291, 152, 454
SHELLS = (0.35, 0.7, 1.0)
"""Heights of the shells, as shares of the beard's length."""


@dataclass(frozen=True)
class BeardRegions:
    """Share of beard growth (0..1) at every vertex of the head model, by region."""

    moustache: Float[np.ndarray, "v"]
    chin: Float[np.ndarray, "v"]
    cheeks: Float[np.ndarray, "v"]

    def weight(self, beard: Beard) -> Float[np.ndarray, "v"]:
        """Return how densely a beard covers the vertices."""
        regions = (beard.moustache * self.moustache, beard.chin * self.chin, beard.cheeks * self.cheeks)
        return np.asarray(beard.density * np.max(regions, axis=0), dtype=np.float32)


def beard_regions(model: HeadModel, correspondence: Correspondence) -> BeardRegions:
    """Find the regions on the mean head, from FaceMesh's landmarks on it."""
    points = correspondence.points(model.mean[None])[0].numpy()
    x, y, z = model.mean.numpy().T
    across = np.abs(x)
    corner, ear, nose, chin = points[LIP_CORNER], points[EAR], points[NOSE_BASE], points[CHIN]
    is_skin = np.zeros(model.num_vertices, dtype=bool)
    is_skin[np.unique(model.faces[model.part == model.part_names.index("skin")].numpy())] = True
    grows = (
        is_skin
        & (z > ear[2] - 0.015)
        & (across < ear[0] + 0.004)
        & ~_inside(points[list(OUTER_LIPS), :2], x, y, z > 0.15)
    )
    # Down the neck it thins out; the line rises towards the ears.
    low = chin[1] - 0.035 + 0.5 * np.clip(chin[2] - 0.08 - z, 0, 0.2)
    base = grows * _ramp(y - low, 0.03)
    above = _ramp(y - corner[1] + 0.004, 0.012) * _ramp(nose[1] - 0.004 - y, 0.01)
    line = corner[1] + 0.008 + (ear[1] - corner[1]) * np.clip((across - corner[0]) / (ear[0] - corner[0]), 0, 1) ** 1.4
    side = _ramp(across - corner[0] + 0.012, 0.02) * _ramp(line - y, 0.03)
    return BeardRegions(
        moustache=base * above * _ramp(corner[0] + 0.012 - across, 0.02),
        chin=base * _ramp(corner[1] + 0.004 - y, 0.012) * _ramp(corner[0] + 0.022 - across, 0.025),
        cheeks=base * np.maximum(side, 0.0),
    )


@dataclass(frozen=True)
class BeardShells:
    """Copies of the bearded skin: which vertices they copy, how high (0..1) each copy stands, and their triangles."""

    source: Int[np.ndarray, "n"]
    height: Float[np.ndarray, "n"]
    triangles: Int[np.ndarray, "f 3"]


def beard_shells(skin: Int[np.ndarray, "f 3"], weight: Float[np.ndarray, "v"]) -> BeardShells:
    """Return the shells over the triangles of skin that are covered."""
    covered = skin[(weight[skin] > 0.05).any(1)]
    index, corners = np.unique(covered, return_inverse=True)
    corners = corners.reshape(-1, 3)
    return BeardShells(
        source=np.tile(index, len(SHELLS)),
        height=np.repeat(np.array(SHELLS, dtype=np.float32), len(index)),
        triangles=np.concatenate([corners + level * len(index) for level in range(len(SHELLS))]),
    )


def _ramp(distance: Float[np.ndarray, "v"], width: float) -> Float[np.ndarray, "v"]:
    """Return 0 below -width/2, 1 above width/2, smooth between."""
    t = np.clip(distance / width + 0.5, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _inside(
    outline: Float[np.ndarray, "n 2"], x: np.ndarray, y: np.ndarray, is_candidate: Bool[np.ndarray, "v"]
) -> Bool[np.ndarray, "v"]:
    """Return which candidates lie inside an outline, seen from the front (even-odd rule)."""
    start, end = outline, np.roll(outline, -1, 0)
    crosses = (start[:, 1] > y[:, None]) != (end[:, 1] > y[:, None])
    rise = np.where(end[:, 1] == start[:, 1], 1e-12, end[:, 1] - start[:, 1])
    at = start[:, 0] + (y[:, None] - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    return np.asarray(is_candidate & ((crosses & (x[:, None] < at)).sum(1) % 2 == 1))
