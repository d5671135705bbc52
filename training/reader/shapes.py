"""Heads that nobody rendered: where their landmarks would be seen, and what they do.

Whether brows are raised or lie high is told by the shape of the whole face, and to learn that takes more people than
can be rendered. Points cost next to nothing; what a reader gets wrong about them is taken from pictures that it read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.morphable.head import HeadModel
from galatea.morphable.sampling import sample_phenotypes
from training.heads.expressions import sample_expression
from training.reader.labels import MIDDLE, REGION_SIDE, bake_labels, picture_place, view_of
from training.reader.pictures import similarity
from training.reader.render import mixed_expression, tight_cameras

MIXED_SHARE, ROLL, SPREAD = 0.35, 0.035, 0.95
"""Share of `mixed_expression`; radians by which heads are not upright; of identities, as for rendered people."""
AT_ONCE = 4096


@dataclass(frozen=True)
class Shapes:
    """Heads as they are seen when found exactly.

    Attributes:
        points: landmarks of faces of the usual size in the middle (`galatea.faces.weighing.aligned`).
        rotation: head to camera.
        actions: what they do.
    """

    points: Float[Tensor, "n 478 2"]
    rotation: Float[Tensor, "n 3 3"]
    actions: Float[Tensor, "n 52"]


def sample_shapes(num: int, seed: int) -> Shapes:
    """Draw heads of as many people."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    model = HeadModel.load()
    labels = bake_labels(model)
    phenotypes = torch.from_numpy(sample_phenotypes(num, np.random.RandomState(seed)))
    identity = model.sample_identity(phenotypes, generator, SPREAD).float()
    drawn = [mixed_expression(rng) if rng.random() < MIXED_SHARE else sample_expression(rng) for _ in range(num)]
    actions = torch.from_numpy(np.stack(drawn)).float()
    rotation, distance = _upright(tight_cameras(rng, num), rng)
    mean, basis = torch.from_numpy(labels.mean).float(), torch.from_numpy(labels.basis).float()
    points = []
    for start in range(0, num, AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        world = mean + (torch.cat([identity[rows], actions[rows]], 1) @ basis).reshape(-1, *mean.shape)
        points.append(_seen(world[:, :478], rotation[rows], distance[rows]))
    return Shapes(torch.cat(points), rotation, actions)


def _upright(
    cameras: Float[np.ndarray, "n 25"], rng: np.random.Generator
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n"]]:
    """Return how cameras that look at heads' middles, about upright, see them, and from how far."""
    rotations, distances = [], []
    for camera, roll in zip(cameras, rng.normal(0, ROLL, len(cameras)), strict=True):
        centre, side = picture_place(camera)
        seen = view_of(camera, similarity(centre, side, 0.0)).rotation
        level = float(np.arctan2(seen[1, 0], seen[0, 0]))
        rotations.append(view_of(camera, similarity(centre, side, level + roll)).rotation)
        distances.append(np.linalg.norm(camera[:16].reshape(4, 4)[:3, 3] - np.array(MIDDLE)))
    return torch.from_numpy(np.stack(rotations)).float(), torch.tensor(np.stack(distances)).float()


def _seen(
    world: Float[Tensor, "n 478 3"], rotation: Float[Tensor, "n 3 3"], distance: Float[Tensor, "n"]
) -> Float[Tensor, "n 478 2"]:
    """Project points; a region is as wide as `REGION_SIDE` at the head's middle."""
    local = (world - world.new_tensor(MIDDLE)) @ rotation.transpose(1, 2)
    return 0.5 + local[..., :2] / (REGION_SIDE * (1 + local[..., 2:] / distance[:, None, None]))


@dataclass(frozen=True)
class Misreadings:
    """How points were misread in pictures, by how far heads were turned."""

    moves: Float[Tensor, "n 478 2"]
    yaw: Float[Tensor, "n"]

    @classmethod
    def of(cls, rows: dict[str, Tensor]) -> Misreadings:
        """Take them from what was seen of pictures (`training.reader.train_weighing.saw`)."""
        yaw = turned(rows["rotation"])
        order = yaw.argsort()
        return cls((rows["points"] - rows["true_points"])[order], yaw[order])

    def draw(self, rotation: Float[Tensor, "b 3 3"], generator: torch.Generator) -> Float[Tensor, "b 478 2"]:
        """Draw misreadings of heads that are turned about as far."""
        near = max(1, len(self.yaw) // 100)
        place = torch.searchsorted(self.yaw, turned(rotation).contiguous())
        chosen: Int[Tensor, "b"] = place + torch.randint(-near, near + 1, place.shape, generator=generator)
        return self.moves[chosen.clamp(0, len(self.yaw) - 1)]


def turned(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n"]:
    """Return yaws in radians."""
    return torch.asin(rotation[:, 0, 2].clamp(-1, 1))
