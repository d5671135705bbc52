"""Galatea's own reader of faces: dense landmarks with their uncertainty, facial actions, gaze and head pose.

Small networks, trained on rendered heads only (`training/reader`, docs/reader.md). The first looks at portraits to find
where the face is and how it is rolled (`locating`), then at the face upright and centred and at its mirror image: the
mean gives landmarks and pose. Two others take a second look at eyes and mouth; their points, actions and features are
weighed together with everything else (`closer_look`). A mirrored photo has the mirrored reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from galatea.errors import WeightsError
from galatea.faces.closer_look import CloserLook, Seen
from galatea.faces.landmarks import FaceLandmarks
from galatea.faces.locating import locate
from galatea.faces.reader_data import built_in, part_of
from galatea.faces.reader_network import FirstLook, FirstReading, fold_normalisation, orthonormal
from galatea.faces.reading import (
    FaceReading,
    cut_region,
    far,
    flipped,
    next_regions,
    pooled,
    raised,
    to_portrait,
    usual_regions,
)
from galatea.faces.regions import Regions
from galatea.faces.second_look import EYE_ACTIONS, MOUTH_ACTIONS, SecondLook, shortened
from galatea.faces.weighing import Weighing

DOUBTFUL_SPREAD, DOUBT_WIDTH = 0.022, 0.12
"""Median spread of the first look (in region sides, before calibration) at which a face is as likely as not, and the
width of the change (of its logarithm)."""
_MIRROR = (-1.0, 1.0, 1.0)


class FaceReader(nn.Module):
    """The reader with its weights.

    Args:
        first: looks at faces.
        closer: second looks and their weighing. All networks are folded and in eval mode.
        calibration: slope and offset of each action, from held-out renders.
        sigma_scale: what the networks' standard deviations are multiplied by to be true on held-out renders.
    """

    calibration: Tensor
    finder: Callable[[Tensor], Regions] | None = None
    """Says roughly where the faces of crops are (`FaceLandmarker.find`), for those that are not in the middle."""

    def __init__(
        self,
        first: FirstLook,
        closer: CloserLook,
        calibration: Float[Tensor, "2 52"],
        sigma_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.first, self.closer, self.sigma_scale = first, closer, sigma_scale
        self.register_buffer("calibration", calibration)

    @property
    def mirror(self) -> Int[Tensor, "478"]:
        """For each landmark, its mirror image."""
        return self.closer.mirror

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
        try:
            first = FirstLook(tensors["first.mean_points"].float())
            eyes = SecondLook(tensors["eyes.mean_points"].float(), len(EYE_ACTIONS) + 4)
            mouth = SecondLook(tensors["mouth.mean_points"].float(), len(MOUTH_ACTIONS))
            # A copy: each network loads its own mean points into it.
            weighing = Weighing(tensors["first.mean_points"].float().clone())
            parts = {"first.": first, "eyes.": eyes, "mouth.": mouth, "weighing.": weighing}
            for part, network in parts.items():
                fold_normalisation(network.eval())
                network.load_state_dict(part_of(tensors, part))
            closer = CloserLook(eyes, mouth, weighing, tensors["mirror"].long())
            reader = cls(first, closer, tensors["calibration"].float(), float(tensors["sigma_scale"]))
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
        first = self.first_look(crops, regions)
        return self._reading(first, self.closer(crops, regions, first), regions)

    @torch.no_grad()
    def regions(self, crops: Float[Tensor, "batch 3 size size"]) -> Regions:
        """Return where the faces of portrait crops are: centred, upright, of the usual size.

        A face that is not where portrait crops have theirs is looked for with `finder`, if there is one, and in any
        case looked at again from where it seems to be.
        """
        small = pooled(crops)
        usual = usual_regions(len(crops), crops.device, crops.dtype)
        found = self._looked_for(small, usual)
        rows = far(usual, found)
        if len(rows):
            start = found.select(rows) if self.finder is None else raised(self.finder(small[rows]))
            found = found.replaced(rows, self._looked_for(small[rows], start))
        return found

    def first_look(self, crops: Tensor, regions: Regions) -> FirstReading:
        """Return the mean of what the first network says about regions and about their mirror images."""
        cuts = cut_region(crops, regions)
        with shortened(cuts):
            raw = self.first(torch.cat([cuts, cuts.flip(3)]))
        return self._fused(raw, len(cuts))

    def landmarks(self, crops: Float[Tensor, "batch 3 size size"]) -> FaceLandmarks:
        """Return the landmarks of portrait crops, with their spread and the expression."""
        return self.read(crops).landmarks()

    def _looked_for(self, crops: Tensor, start: Regions) -> Regions:
        """Return where faces are that are about at `start`."""
        return next_regions(start, locate(self.first, cut_region(crops, start)))

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

    def _reading(self, first: FirstReading, seen: Seen, regions: Regions) -> FaceReading:
        sigma = torch.exp(seen.log_sigma) * self.sigma_scale
        slope, offset = self.calibration
        turn = to_portrait(regions)
        doubt = (first.log_sigma.median(1).values - math.log(DOUBTFUL_SPREAD)) / DOUBT_WIDTH
        return FaceReading(
            points=regions.to_image(seen.points),
            sigma=sigma * regions.side[:, None],
            expression=(seen.actions * slope + offset).clamp(0, 1),
            gaze=seen.gaze @ turn.transpose(1, 2),
            rotation=turn @ first.rotation,
            confidence=torch.sigmoid(-doubt),
        )
