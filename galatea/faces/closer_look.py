"""From the first look to everything that is read of a face: second looks at eyes and mouth, weighed together.

Both eyes go through one network, the left one mirrored; the mouth and the weighing are read with their mirror images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from galatea.faces.reader_network import FirstReading
from galatea.faces.reading import flipped, repeated, within
from galatea.faces.regions import Regions
from galatea.faces.second_look import (
    LEFT_EYE,
    MOUTH_ACTIONS,
    MOUTH_POINTS,
    PATCH_SIZE,
    RIGHT_EYE,
    PatchReading,
    SecondLook,
    eye_action_index,
    eye_patches,
    eyes_together,
    mirrored_rotation,
    mouth_patches,
    shortened,
)
from galatea.faces.weighing import Weighing, aligned
from galatea.morphable.actions import mirror_permutation


@dataclass(frozen=True)
class Seen:
    """What is known after the second looks, in region coordinates; gaze in the region's camera.

    Attributes:
        points, log_sigma, actions, gaze: as read so far.
        eyes: features of the right and the mirrored left eye.
        mouth: features of the mouth and of its mirror image.
    """

    points: Float[Tensor, "batch 478 2"]
    log_sigma: Float[Tensor, "batch 478"]
    actions: Float[Tensor, "batch 52"]
    gaze: Float[Tensor, "batch 2 3"]
    eyes: Float[Tensor, "batch 2 features"]
    mouth: Float[Tensor, "batch 2 features"]


class CloserLook(nn.Module):
    """Second looks and the weighing.

    Args:
        eyes, mouth: second looks.
        weighing: weighs what they saw.
        mirror: for each landmark, its mirror image.
    """

    mirror: Tensor
    action_mirror: Tensor
    together: Tensor
    eye_actions: Tensor
    mouth_actions: Tensor
    mouth_mirror: Tensor
    mouth_action_mirror: Tensor

    def __init__(self, eyes: SecondLook, mouth: SecondLook, weighing: Weighing, mirror: Int[Tensor, "478"]) -> None:
        super().__init__()
        self.eyes, self.mouth, self.weighing = eyes, mouth, weighing
        actions = torch.tensor(mirror_permutation())
        self.register_buffer("mirror", mirror)
        self.register_buffer("action_mirror", actions)
        self.register_buffer("together", eyes_together())
        self.register_buffer("eye_actions", eye_action_index())
        self.register_buffer("mouth_actions", torch.tensor(MOUTH_ACTIONS))
        self.register_buffer("mouth_mirror", _places(mirror, MOUTH_POINTS))
        self.register_buffer("mouth_action_mirror", _places(actions, MOUTH_ACTIONS))

    def forward(self, crops: Float[Tensor, "batch 3 size size"], regions: Regions, first: FirstReading) -> Seen:
        """Look closer at upright regions of crops that were looked at once."""
        return self.weigh(self.look(crops, regions, first), first)

    def look(self, crops: Float[Tensor, "batch 3 size size"], regions: Regions, first: FirstReading) -> Seen:
        """Return what the second looks see, each by itself."""
        eye_where, eye, gaze = self._look_at_eyes(crops, regions, first)
        mouth_where, mouth = self._look_at_mouths(crops, regions, first)
        batch = len(crops)
        straight, mirrored = (PatchReading(*(getattr(mouth, name)[half] for name in mouth.__dataclass_fields__))
                              for half in (slice(batch), slice(batch, None)))  # fmt: skip
        lips = (straight.points + flipped(mirrored.points)[:, self.mouth_mirror]) / 2
        variance = torch.exp(2 * straight.log_sigma) + torch.exp(2 * mirrored.log_sigma[:, self.mouth_mirror])
        lip_sigma = 0.5 * torch.log(variance / 2) + mouth_where.side.log()[:, None]
        lip_actions = (straight.numbers + mirrored.numbers[:, self.mouth_action_mirror]) / 2
        eye_points = eye_where.to_image(eye.points).reshape(batch, -1, 2)
        eye_sigma = (eye.log_sigma + eye_where.side.log()[:, None]).reshape(batch, -1)
        points = torch.cat([eye_points, mouth_where.to_image(lips)], 1)
        points, log_sigma = self._placed(points, torch.cat([eye_sigma, lip_sigma], 1), first)
        return Seen(
            points=points,
            log_sigma=log_sigma,
            actions=self._actions(eye.numbers[:, :-3].reshape(batch, -1), lip_actions),
            gaze=gaze,
            eyes=eye.features.reshape(batch, 2, -1),
            mouth=torch.stack([straight.features, mirrored.features], 1),
        )

    def weigh(self, seen: Seen, first: FirstReading) -> Seen:
        """Return points and actions in the light of everything that was seen; the mean of face and mirror image."""
        points = aligned(seen.points, first)
        actions, moves = self.weighing(points, first.rotation, seen.eyes, seen.mouth[:, 0])
        other_points, other_rotation = flipped(points)[:, self.mirror], mirrored_rotation(first.rotation)
        others, other_moves = self.weighing(other_points, other_rotation, seen.eyes.flip(1), seen.mouth[:, 1])
        moves = moves + other_moves[:, self.mirror] * moves.new_tensor([-1.0, 1.0])
        actions = seen.actions + (actions + others[:, self.action_mirror]) / 2
        return replace(
            seen,
            points=seen.points + moves / 2 * torch.exp(first.log_scale)[:, None, None],
            actions=(actions + actions[:, self.together]) / 2,
        )

    def _look_at_eyes(
        self, crops: Tensor, regions: Regions, first: FirstReading
    ) -> tuple[Regions, PatchReading, Float[Tensor, "batch 2 3"]]:
        """Return the patches of right and left eyes in turn, what they show, and where the eyes look."""
        where = eye_patches(first.points, first.log_scale)
        patches = within(repeated(regions, 2), where).cut(crops, PATCH_SIZE)
        pose = torch.stack([first.rotation, mirrored_rotation(first.rotation)], 1).flatten(0, 1)
        with shortened(patches):
            eye: PatchReading = self.eyes(patches.contiguous(memory_format=torch.channels_last), pose)
        gaze = F.normalize(pose[..., 2] + eye.numbers[:, -3:], dim=-1).reshape(len(crops), 2, 3)
        return where, eye, gaze * gaze.new_tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])

    def _look_at_mouths(self, crops: Tensor, regions: Regions, first: FirstReading) -> tuple[Regions, PatchReading]:
        """Return the mouths' patches, and what all of them and then all their mirror images show."""
        where = mouth_patches(first.points, first.log_scale)
        patches = within(regions, where).cut(crops, PATCH_SIZE)
        both = torch.cat([patches, patches.flip(3)]).contiguous(memory_format=torch.channels_last)
        with shortened(both):
            return where, self.mouth(both, torch.cat([first.rotation, mirrored_rotation(first.rotation)]))

    def _placed(
        self, points: Float[Tensor, "batch n 2"], log_sigma: Float[Tensor, "batch n"], first: FirstReading
    ) -> tuple[Float[Tensor, "batch 478 2"], Float[Tensor, "batch 478"]]:
        """Put what patches show in place of the first look's; where both eyes' show a point, the surer one counts more.

        The other one's error may well be the same: together they are taken to be no surer than the mean of both.
        """
        rows = torch.tensor([*RIGHT_EYE, *LEFT_EYE, *MOUTH_POINTS], device=points.device)
        weight = torch.exp(-2 * log_sigma)[..., None].to(first.points.dtype)
        count = torch.zeros_like(first.log_sigma[0]).index_add(0, rows, torch.ones_like(weight[0, :, 0]))[:, None]
        total = torch.zeros_like(first.points[..., :1]).index_add(1, rows, weight)
        mean = torch.zeros_like(first.points).index_add(1, rows, weight * points) / total.clamp_min(1e-9)
        sigma = -0.5 * torch.log((total / count.clamp_min(1)).clamp_min(1e-9))
        return (
            torch.where(count > 0, mean, first.points),
            torch.where(count > 0, sigma, first.log_sigma[..., None])[..., 0],
        )

    def _actions(self, eyes: Float[Tensor, "batch e"], mouth: Float[Tensor, "batch m"]) -> Float[Tensor, "batch 52"]:
        """Return all actions: the mean where several patches show one."""
        index = torch.cat([self.eye_actions.flatten(), self.mouth_actions])
        values = torch.cat([eyes, mouth], 1)
        count = values.new_zeros(52).index_add(0, index, torch.ones_like(values[0]))
        return values.new_zeros(len(values), 52).index_add(1, index, values) / count


def _places(mirror: Tensor, chosen: tuple[int, ...]) -> Int[Tensor, "n"]:
    """Return, for each chosen number, the place of its mirror image among the chosen."""
    place = {number: row for row, number in enumerate(chosen)}
    return torch.tensor([place[int(mirror[number])] for number in chosen])
