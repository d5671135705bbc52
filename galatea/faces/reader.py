"""Galatea's own reader of faces: dense landmarks with their uncertainty, facial actions, gaze and head pose.

Three small networks, trained on rendered heads only (`training/reader`, docs/reader.md). The first looks at portraits
to find where the face is and how it is rolled, then at the face upright and centred, each time also mirrored: the mean
gives landmarks and pose. Two others take a second look at eyes and mouth, and read their points and all actions.
Both eyes go through one network, the left one mirrored, and the mouth is read with its mirror image, so that a mirrored
photo has the mirrored reading.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from galatea.errors import WeightsError
from galatea.faces.landmarks import FaceLandmarks
from galatea.faces.reader_data import built_in
from galatea.faces.reader_network import FirstLook, FirstReading, fold_normalisation, orthonormal
from galatea.faces.reading import (
    FaceReading,
    cut_region,
    far,
    flipped,
    next_regions,
    pooled,
    raised,
    repeated,
    to_portrait,
    usual_regions,
    within,
)
from galatea.faces.regions import Regions
from galatea.faces.second_look import (
    EYE_ACTIONS,
    LEFT_EYE,
    MOUTH_ACTIONS,
    MOUTH_POINTS,
    PATCH_SIZE,
    RIGHT_EYE,
    SecondLook,
    eye_action_index,
    eye_patches,
    eyes_together,
    mirrored_rotation,
    mouth_patches,
)
from galatea.morphable.actions import mirror_permutation

DOUBTFUL_SPREAD, DOUBT_WIDTH = 0.022, 0.12
"""Median spread of the first look (in region sides, before calibration) at which a face is as likely as not, and the
width of the change (of its logarithm)."""
_MIRROR = (-1.0, 1.0, 1.0)


@dataclass(frozen=True)
class _Seen:
    """What is known after the second looks, in region coordinates; gaze in the region's camera."""

    points: Tensor
    log_sigma: Tensor
    expression: Tensor
    gaze: Tensor


class FaceReader(nn.Module):
    """The reader with its weights.

    Args:
        first: looks at faces.
        eyes, mouth: second looks. All networks are folded and in eval mode.
        mirror: for each landmark, its mirror image.
        calibration: slope and offset of each action, from held-out renders.
        sigma_scale: what the networks' standard deviations are multiplied by to be true on held-out renders.
    """

    mirror: Tensor
    action_mirror: Tensor
    calibration: Tensor
    eye_actions: Tensor
    together: Tensor
    finder: Callable[[Tensor], Regions] | None = None
    """Says roughly where the faces of crops are (`FaceLandmarker.find`), for those that are not in the middle."""

    def __init__(
        self,
        first: FirstLook,
        eyes: SecondLook,
        mouth: SecondLook,
        mirror: Int[Tensor, "478"],
        calibration: Float[Tensor, "2 52"],
        sigma_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.first, self.eyes, self.mouth, self.sigma_scale = first, eyes, mouth, sigma_scale
        self.register_buffer("mirror", mirror)
        self.register_buffer("action_mirror", torch.tensor(mirror_permutation()))
        self.register_buffer("calibration", calibration)
        self.register_buffer("eye_actions", eye_action_index())
        self.register_buffer("together", eyes_together())

    @classmethod
    def load(cls, device: torch.device | str = "cpu") -> FaceReader:
        """Load the built-in weights.

        Raises:
            WeightsError: if they are missing or damaged.
        """
        return cls.from_tensors(built_in()).to(device).eval()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FaceReader:
        """Build the reader from the tensors of its file.

        Raises:
            WeightsError: if they do not fit the networks.
        """

        def weights(part: str) -> dict[str, Tensor]:
            return {name[len(part) :]: value.float() for name, value in tensors.items() if name.startswith(part)}

        def loaded(network: nn.Module, part: str) -> nn.Module:
            fold_normalisation(network.eval())
            network.load_state_dict(weights(part))
            return network

        try:
            first = FirstLook(tensors["first.mean_points"].float())
            eyes = SecondLook(tensors["eyes.mean_points"].float(), len(EYE_ACTIONS) + 4)
            mouth = SecondLook(tensors["mouth.mean_points"].float(), len(MOUTH_ACTIONS))
            for network, part in ((first, "first."), (eyes, "eyes."), (mouth, "mouth.")):
                loaded(network, part)
            scale, mirror = float(tensors["sigma_scale"]), tensors["mirror"].long()
            reader = cls(first, eyes, mouth, mirror, tensors["calibration"].float(), scale)
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"face reader: the weights do not fit its networks ({error}); reinstall") from error
        reader.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return reader.requires_grad_(False).eval()

    def read(self, crops: Float[Tensor, "batch 3 size size"], regions: Regions | None = None) -> FaceReading:
        """Read the one face of each crop; differentiable in the crops, but for where the first look is cut.

        Args:
            crops: square RGB in [-1, 1]; portrait crops, if pose and gaze are to be in the portrait camera's frame.
            regions: where the faces are, from `regions`; None looks there first.

        Raises:
            ValueError: if the crops are not square RGB pictures.
        """
        if crops.ndim != 4 or crops.shape[1] != 3 or crops.shape[2] != crops.shape[3]:
            raise ValueError(f"face reader: expected square RGB crops (batch, 3, size, size), got {tuple(crops.shape)}")
        crops = pooled(crops)
        if regions is None:
            regions = self.regions(crops)
        cuts = cut_region(crops, regions)
        first = self._fused(self.first(torch.cat([cuts, cuts.flip(3)])), len(crops))
        return self._reading(first, self._second(crops, regions, first), regions)

    @torch.no_grad()
    def regions(self, crops: Float[Tensor, "batch 3 size size"]) -> Regions:
        """Return where the faces of portrait crops are: centred, upright, of the usual size.

        A face that is not where portrait crops have theirs is looked for with `finder`, if there is one, and in any
        case looked at again from where it seems to be.
        """
        small = pooled(crops)
        usual = usual_regions(len(crops), crops.device, crops.dtype)
        found = next_regions(usual, self._found(cut_region(small, usual)))
        rows = far(usual, found)
        if len(rows):
            start = found.select(rows) if self.finder is None else raised(self.finder(crops[rows]))
            again = next_regions(start, self._found(cut_region(small[rows], start)))
            found = found.replaced(rows, again)
        return found

    def _found(self, cuts: Float[Tensor, "batch 3 128 128"]) -> FirstReading:
        """Return a quick first reading, the mean of pictures and mirror images: it only says where to look next."""
        is_short = has_fast_bfloat16() and cuts.device.type == "cpu" and cuts.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16, enabled=is_short):
            raw = self.first(torch.cat([cuts, cuts.flip(3)]))
        return self._fused(raw, len(cuts))

    def landmarks(self, crops: Float[Tensor, "batch 3 size size"]) -> FaceLandmarks:
        """Return the landmarks of portrait crops, with their spread and the expression."""
        return self.read(crops).landmarks()

    def _fused(self, raw: FirstReading, batch: int) -> FirstReading:
        """Return the mean of readings and of the readings of mirrored regions behind them."""
        flip = raw.points.new_tensor(_MIRROR)

        def halves(values: Tensor) -> tuple[Tensor, Tensor]:
            return values[:batch], values[batch:]

        points, other_points = halves(raw.points)
        sigma, other_sigma = halves(raw.log_sigma)
        other_points = flipped(other_points)[:, self.mirror]
        variance = (torch.exp(2 * sigma) + torch.exp(2 * other_sigma[:, self.mirror])) / 2
        rotation, other_rotation = halves(raw.rotation)
        centre, other_centre = halves(raw.centre)
        scale, other_scale = halves(raw.log_scale)
        return FirstReading(
            points=(points + other_points) / 2,
            log_sigma=0.5 * torch.log(variance),
            rotation=orthonormal(rotation + flip[:, None] * other_rotation * flip),
            centre=(centre + flipped(other_centre)) / 2,
            log_scale=(scale + other_scale) / 2,
        )

    def _second(self, crops: Tensor, regions: Regions, first: FirstReading) -> _Seen:
        batch = len(crops)
        where = eye_patches(first.points, first.log_scale)
        patches = within(repeated(regions, 2), where).cut(crops.repeat_interleave(2, 0), PATCH_SIZE)
        pose = torch.stack([first.rotation, mirrored_rotation(first.rotation)], 1).flatten(0, 1)
        seen, spread, numbers = self.eyes(patches.contiguous(memory_format=torch.channels_last), pose)
        eye_points = where.to_image(seen).reshape(batch, -1, 2)
        eye_sigma = (spread + where.side.log()[:, None]).reshape(batch, -1)
        gaze = F.normalize(pose[..., 2] + numbers[:, -3:], dim=-1).reshape(batch, 2, 3)
        gaze = gaze * gaze.new_tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
        actions = numbers[:, :-3].reshape(batch, -1)

        mouth = mouth_patches(first.points, first.log_scale)
        mouth_points, mouth_sigma, mouth_actions = self._read_mouth(crops, regions, mouth, first.rotation)
        index, mouth_index = self.eye_actions.flatten(), torch.tensor(MOUTH_ACTIONS, device=crops.device)
        count = torch.zeros(52, device=crops.device, dtype=crops.dtype)
        count = count.index_add(0, index, torch.ones_like(index, dtype=crops.dtype))
        count = count.index_add(0, mouth_index, torch.ones_like(mouth_index, dtype=crops.dtype))
        total = torch.zeros(batch, 52, device=crops.device, dtype=crops.dtype)
        total = total.index_add(1, index, actions).index_add(1, mouth_index, mouth_actions)
        where_points = torch.tensor([*RIGHT_EYE, *LEFT_EYE, *MOUTH_POINTS], device=crops.device)
        return _Seen(
            points=first.points.index_copy(1, where_points, torch.cat([eye_points, mouth_points], 1)),
            log_sigma=first.log_sigma.index_copy(1, where_points, torch.cat([eye_sigma, mouth_sigma], 1)),
            expression=(total / count + (total / count)[:, self.together]) / 2,
            gaze=gaze,
        )

    def _read_mouth(
        self, crops: Tensor, regions: Regions, where: Regions, rotation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return points, log sigma (region coordinates) and actions: the mean of the mouth and its mirror image."""
        batch = len(crops)
        patches = within(regions, where).cut(crops, PATCH_SIZE)
        both = torch.cat([patches, patches.flip(3)]).contiguous(memory_format=torch.channels_last)
        seen, spread, numbers = self.mouth(both, torch.cat([rotation, mirrored_rotation(rotation)]))
        place = {number: row for row, number in enumerate(MOUTH_POINTS)}
        mirror = torch.tensor([place[int(number)] for number in self.mirror[list(MOUTH_POINTS)]])
        points = (seen[:batch] + flipped(seen[batch:])[:, mirror]) / 2
        variance = (torch.exp(2 * spread[:batch]) + torch.exp(2 * spread[batch:, mirror])) / 2
        action_place = {number: row for row, number in enumerate(MOUTH_ACTIONS)}
        action_mirror = [action_place[int(self.action_mirror[number])] for number in MOUTH_ACTIONS]
        actions = (numbers[:batch] + numbers[batch:, action_mirror]) / 2
        return where.to_image(points), 0.5 * torch.log(variance) + where.side.log()[:, None], actions

    def _reading(self, first: FirstReading, seen: _Seen, regions: Regions) -> FaceReading:
        sigma = torch.exp(seen.log_sigma) * self.sigma_scale
        slope, offset = self.calibration
        turn = to_portrait(regions)
        doubt = (first.log_sigma.median(1).values - math.log(DOUBTFUL_SPREAD)) / DOUBT_WIDTH
        return FaceReading(
            points=regions.to_image(seen.points),
            sigma=sigma * regions.side[:, None],
            expression=(seen.expression * slope + offset).clamp(0, 1),
            gaze=seen.gaze @ turn.transpose(1, 2),
            rotation=turn @ first.rotation,
            confidence=torch.sigmoid(-doubt),
        )


@functools.cache
def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself; elsewhere it would be slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
