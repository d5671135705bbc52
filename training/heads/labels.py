"""Exact labels of a posed head: FaceMesh's 468 landmarks, irises, gaze, EG3D's depth.

Pure functions of vertices and cameras, differentiable where torch is. Order of the points: `galatea.faces.landmarks`,
468 mesh points, then centre, inner, upper, outer and lower rim point of the iris, the image-left eye's first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.cameras import project, unpack_label
from galatea.morphable.correspondence import NUM_MESH_POINTS, Correspondence
from galatea.morphable.head import HeadModel

EYE_RADIUS = 0.043
"""Radius of the average head's eyeballs, in world units."""
NUM_LANDMARKS = NUM_MESH_POINTS + 10
IRIS_ANGLE = math.pi * 58.4 / 364
"""From the eye's axis to the rim of the drawn iris, which `shading.eye_albedo` fades out from 56.2 to 60.5 of 364."""
_RIM = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
"""Centre and rim of the right eye's iris: towards the nose, up, outwards, down; x is mirrored for the left eye."""


@dataclass(frozen=True)
class IrisPoints:
    """Where the irises lie on the eyeballs: 5 points of the right eye (-x), then of the left one.

    They move with the eyeballs' vertices, as the texture does.
    """

    vertex: Int[Tensor, "10 3"]
    barycentric: Float[Tensor, "10 3"]

    def points(self, vertices: Float[Tensor, "batch v 3"]) -> Float[Tensor, "batch 10 3"]:
        """Return the iris points of posed heads."""
        return (vertices[:, self.vertex] * self.barycentric[..., None]).sum(2)


def iris_points(model: HeadModel, scale: float = 1.0) -> IrisPoints:
    """Find the iris points by rays from the middles of the mean head's eyeballs; `scale` enlarges the iris."""
    left, right = model.eye_centres(model.mean[None])[0].double()
    faces = model.faces[model.part == model.part_names.index("eye")]
    corners = model.mean[faces].double()
    rows, weights = [], []
    for centre, side in ((right, 1.0), (left, -1.0)):
        mine = ((corners.mean(1) - centre).norm(dim=-1) < 2 * EYE_RADIUS).nonzero()[:, 0]
        for x, y in _RIM:
            angle = IRIS_ANGLE * scale * math.hypot(x, y)
            direction = [side * x * math.sin(angle), y * math.sin(angle), math.cos(angle)]
            row, weight = _crossing(corners[mine] - centre, torch.tensor(direction, dtype=torch.float64))
            rows.append(faces[mine[row]])
            weights.append(weight)
    return IrisPoints(torch.stack(rows), torch.stack(weights).float())


def _crossing(corners: Float[Tensor, "f 3 3"], direction: Float[Tensor, "3"]) -> tuple[int, Float[Tensor, "3"]]:
    """Return the triangle that a ray from the origin crosses, and the crossing's barycentric weights."""
    solution = torch.linalg.solve_ex(corners.transpose(1, 2), direction.expand(len(corners), 3)).result
    is_hit = torch.isfinite(solution).all(1) & (solution > -1e-9).all(1) & (solution.sum(1) > 1e-9)
    total = torch.where(is_hit, solution.sum(1), torch.inf)
    row = int(total.argmin())
    return row, solution[row] / total[row]


def landmark_points(
    iris: IrisPoints, correspondence: Correspondence, vertices: Float[Tensor, "batch v 3"]
) -> Float[Tensor, "batch 478 3"]:
    """Return the landmarks of posed heads in world space, on the surface (without FaceMesh's own bias)."""
    return torch.cat([correspondence.points(vertices)[:, :NUM_MESH_POINTS], iris.points(vertices)], 1)


def landmarks(
    iris: IrisPoints,
    correspondence: Correspondence,
    vertices: Float[Tensor, "batch v 3"],
    camera: Float[Tensor, "batch 25"],
) -> Float[Tensor, "batch 478 2"]:
    """Return the landmarks in the image: (0, 0) upper left, (1, 1) lower right."""
    return project(landmark_points(iris, correspondence, vertices), camera)[0]


def gaze(model: HeadModel, iris: IrisPoints, vertices: Float[Tensor, "batch v 3"]) -> Float[Tensor, "batch 2 3"]:
    """Return where the eyes look in world space: unit vectors from the eyeballs' middles through the pupils.

    The image-left eye (the person's right one) comes first, as with the landmarks.
    """
    centres = model.eye_centres(vertices).flip(1)
    return torch.nn.functional.normalize(iris.points(vertices)[:, (0, 5)] - centres, dim=-1)


def to_camera_frame(
    directions: Float[Tensor, "batch n 3"], camera: Float[Tensor, "batch 25"]
) -> Float[Tensor, "batch n 3"]:
    """Turn world directions into the camera's frame: x right, y down, z away from the camera."""
    return directions @ unpack_label(camera)[0][:, :3, :3]


def ray_distance(depth: Float[np.ndarray, "h w"], camera: Float[np.ndarray, "25"]) -> Float[np.ndarray, "h w"]:
    """Turn depth along the viewing axis into EG3D's depth, the distance along each pixel's ray; 0 stays 0."""
    height, width = depth.shape
    focal = camera[16]
    x = ((np.arange(width) + 0.5) / width - 0.5) / focal
    y = ((np.arange(height) + 0.5) / height - 0.5) / focal
    return np.asarray(depth * np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2), dtype=depth.dtype)
