"""What a rendered head shows, computed from what it was made of: landmarks, irises, gaze, pose and the face's place.

Everything is linear in identity and expression, so the few points that matter are baked once and a label costs a
matrix product. The points are exactly symmetric: a mirrored head has mirrored labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from galatea.cameras import FOCAL, PIVOT, RADIUS, orbit
from galatea.faces.reading import MIDDLE_HEIGHT
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.correspondence import NUM_MESH_POINTS, load_correspondence
from galatea.morphable.head import HeadModel
from training.heads.labels import iris_points

MIDDLE = (0.0, MIDDLE_HEIGHT, PIVOT[2])
"""The head's middle as the reader's regions use it: brows and chin are equally far from it."""
REGION_SIDE = 0.72 * RADIUS / FOCAL
"""World width of a region at the head's middle: 0.72 of a portrait crop."""


OPEN_BELOW = 0.4
"""Eyes whose eyeBlink is smaller look somewhere; of others the gaze is not counted."""


@dataclass(frozen=True)
class LabelModel:
    """Points of heads: 478 landmarks, then the middles of the right and the left eyeball.

    Attributes:
        mean: of the mean head at rest, world space.
        basis: movement for each identity and expression coefficient.
        mirror: for each landmark, its mirror image.
    """

    mean: Float[np.ndarray, "480 3"]
    basis: Float[np.ndarray, "152 1440"]
    mirror: Int[np.ndarray, "478"]

    def points(
        self, identity: Float[np.ndarray, "100"], expression: Float[np.ndarray, "52"]
    ) -> Float[np.ndarray, "480 3"]:
        """Return the points in world space."""
        return np.asarray(self.mean + (np.concatenate([identity, expression]) @ self.basis).reshape(-1, 3))


def is_shown(action: str, expression: Float[Tensor, "n 52"]) -> Bool[Tensor, "n"]:
    """Return which faces show an action at all: shut eyes do not look."""
    if not action.startswith("eyeLook"):
        return torch.ones(len(expression), dtype=torch.bool)
    side = "Left" if action.endswith("Left") else "Right"
    return expression[:, ACTION_INDEX[f"eyeBlink{side}"]] < OPEN_BELOW


def bake_labels(model: HeadModel) -> LabelModel:
    """Evaluate the head model at the landmarks, once."""
    vertex, weight = places(model)
    vertices = torch.cat([model.mean[None], model.identity_basis, model.action_basis])
    points = torch.stack([(v[vertex] * weight[..., None]).sum(1) for v in vertices])
    both = torch.cat([points, model.eye_centres(vertices).flip(1)], 1)
    mean = both[0].numpy()
    return LabelModel(mean, both[1:].flatten(1).numpy().astype(np.float32), mirror_landmarks())


def places(model: HeadModel) -> tuple[Int[Tensor, "478 6"], Float[Tensor, "478 6"]]:
    """Return where the 478 landmarks lie: vertices and weights, symmetric (each averaged with its mirror image's)."""
    found = load_correspondence()
    vertex, weight = found.vertex[:NUM_MESH_POINTS], found.barycentric[:NUM_MESH_POINTS]
    iris = iris_points(model)
    vertex, weight = torch.cat([vertex, iris.vertex]), torch.cat([weight, iris.barycentric])
    mirror = torch.from_numpy(mirror_landmarks())
    return (
        torch.cat([vertex, model.mirror_vertices[vertex[mirror]]], 1),
        torch.cat([weight, weight[mirror]], 1) / 2,
    )


def mirror_landmarks() -> Int[np.ndarray, "478"]:
    """Return the mirror image of each landmark, found on the mean head and made an exact pairing."""
    found = load_correspondence()
    mean = found.points(HeadModel.load().mean[None])[0, :NUM_MESH_POINTS].numpy()
    distance = np.linalg.norm(mean[:, None] - mean[None] * [-1, 1, 1], axis=-1)
    distance = distance + distance.T
    mirror = np.full(478, -1)
    _, partner = linear_sum_assignment(distance)
    for start in range(NUM_MESH_POINTS):
        cycle = [start]
        while partner[cycle[-1]] != start:
            cycle.append(int(partner[cycle[-1]]))
        if mirror[start] < 0:
            _pair_up(cycle, distance, mirror)
    mirror[468:473], mirror[473:478] = np.arange(473, 478), np.arange(468, 473)
    return mirror


def _pair_up(cycle: list[int], distance: np.ndarray, mirror: np.ndarray) -> None:
    """Split a cycle of partners into the better of its two sets of pairs."""
    turned = [*cycle[1:], cycle[0]]
    choices = [list(zip(order[::2], order[1::2], strict=False)) for order in (cycle, turned)]
    pairs = [(cycle[0], cycle[0])] if len(cycle) == 1 else min(choices, key=lambda c: sum(distance[a, b] for a, b in c))
    for first, second in pairs:
        mirror[first], mirror[second] = second, first


@dataclass(frozen=True)
class View:
    """A picture's camera after a region was cut from it: projection of world points to region coordinates.

    Attributes:
        matrix: 3x4, world (homogeneous) to region coordinates (homogeneous).
        rotation: head to the camera that looks at the region's middle.
        centre, log_scale: place and size of the head's middle in the region.
    """

    matrix: Float[np.ndarray, "3 4"]
    rotation: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, "2"]
    log_scale: float

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Return region coordinates."""
        image = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        return np.asarray(image[:, :2] / np.maximum(image[:, 2:], 1e-3))


def picture_place(label: Float[np.ndarray, "25"]) -> tuple[Float[np.ndarray, "2"], float]:
    """Return where a picture shows the head's middle (0..1) and how wide a region is there (share of the picture)."""
    rotation, shift, intrinsics = _split(label)
    middle = rotation @ np.array(MIDDLE) + shift
    image = intrinsics @ middle
    return image[:2] / image[2], float(REGION_SIDE * intrinsics[0, 0] / middle[2])


def view_of(label: Float[np.ndarray, "25"], to_region: Float[np.ndarray, "2 3"]) -> View:
    """Return the view of a region.

    Args:
        label: the picture's camera.
        to_region: similarity from picture coordinates (0..1) to region coordinates (0..1).
    """
    rotation, shift, intrinsics = _split(label)
    cut = np.vstack([to_region, [0, 0, 1]])
    matrix = cut @ intrinsics @ np.column_stack([rotation, shift])
    side = 1 / np.sqrt(np.linalg.det(to_region[:, :2]))
    middle = np.linalg.solve(cut, [0.5, 0.5, 1.0])
    centre, width = picture_place(label)
    return View(
        matrix,
        turned_to(rotation, np.linalg.solve(intrinsics, middle), np.arctan2(to_region[1, 0], to_region[0, 0])),
        to_region[:, :2] @ centre + to_region[:, 2],
        float(np.log(width / side)),
    )


def turned_to(
    rotation: Float[np.ndarray, "3 3"], ray: Float[np.ndarray, "3"], angle: float
) -> Float[np.ndarray, "3 3"]:
    """Return the rotation as seen by a camera turned towards `ray` (the shortest way), then rolled by `angle`."""
    forward = ray / np.linalg.norm(ray)
    axis = np.cross(forward, [0.0, 0.0, 1.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    shortest = np.eye(3) + cross + cross @ cross / (1 + forward[2])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]]) @ shortest @ rotation)


def _split(label: Float[np.ndarray, "25"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rotation and shift (world to camera) and intrinsics."""
    cam2world, intrinsics = label[:16].reshape(4, 4).astype(float), label[16:].reshape(3, 3).astype(float)
    rotation = cam2world[:3, :3].T
    return rotation, -rotation @ cam2world[:3, 3], intrinsics


def mirror_label(label: Float[np.ndarray, "25"]) -> Float[np.ndarray, "25"]:
    """Return the camera that sees the mirrored world as the mirrored picture."""
    flip = np.array([-1.0, 1.0, 1.0, 1.0], dtype=label.dtype)
    cam2world = label[:16].reshape(4, 4) * flip[:, None] * flip[None]
    return np.concatenate([cam2world.ravel(), label[16:]])


def mean_points(model: HeadModel) -> Float[np.ndarray, "478 2"]:
    """Return where the mean head's landmarks are seen in a frontal region."""
    label = orbit(torch.zeros(1), torch.zeros(1))[0].numpy()
    centre, side = picture_place(label)
    to_region = np.column_stack([np.eye(2) / side, 0.5 - centre / side])
    points = bake_labels(model).mean[:478]
    return view_of(label, to_region).project(points).astype(np.float32)
