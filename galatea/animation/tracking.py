"""Follow one face through a clip: landmarks in every frame, in the frame of its own portrait crop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from galatea.errors import InputError
from galatea.faces.alignment import crop_square, portrait_crop
from galatea.faces.landmarks import FaceLandmarks
from galatea.faces.packs import DetectedFace
from galatea.images import to_tensor

Frame = UInt8[np.ndarray, "height width 3"]
Place = Float[np.ndarray, "5 2"]
CROP_SIZE = 256
"""Pixels of tracking crops: the networks look at 192 and less."""
CHUNK = 8
"""Frames that are cut at the place of the face before them; a third of a second, in which a face moves little."""
MIN_CONFIDENCE = 0.5
MAX_SPREAD = 0.012
"""Mean standard deviation of landmarks (share of the crop's side) above which a followed face is looked for again."""
MAX_MOVE = 0.3
"""A face further from the middle of its crop than this share of the side is looked for again."""
SIZE_RANGE = (0.6, 1.7)
"""Plausible change of size within a chunk."""


class FaceModels(Protocol):
    """What is needed of a face pack."""

    def detect(self, images: Sequence[Frame]) -> list[list[DetectedFace]]:
        """Find the faces of each picture, largest first."""
        ...

    def landmarks(self, crops: Tensor) -> FaceLandmarks:
        """Return landmarks of portrait crops."""
        ...


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip.

    Attributes:
        points: landmarks, normalised to the portrait crop of each frame; NaN where there is no face.
        is_found: whether the frame shows the face.
        spread: standard deviation of each point in crop sides, where the pack's reader knows it.
        expression: 52 coefficients, where they were read from the picture.
    """

    points: Float[Tensor, "frames 478 2"]
    is_found: Bool[Tensor, "frames"]
    spread: Float[Tensor, "frames 478"] | None = None
    expression: Float[Tensor, "frames 52"] | None = None


@dataclass(frozen=True)
class _Found:
    """The face in one frame: landmarks in its own portrait crop, five points in the frame, and what else was read."""

    points: Float[Tensor, "478 2"]
    five: Float[np.ndarray, "5 2"]
    spread: Float[Tensor, "478"] | None
    expression: Float[Tensor, "52"] | None


def track_face(frames: Iterable[Frame], reader: FaceModels, device: torch.device | str = "cpu") -> FaceTrack:
    """Follow the largest face of the first frame that has one; when it is lost, the detector looks for it again.

    Args:
        frames: pictures of one size; a few are held at a time.
        reader: a face pack.
        device: where the pack's networks run.
    """
    found: list[_Found | None] = []
    place: Place | None = None
    rest = iter(frames)
    while chunk := list(islice(rest, CHUNK)):
        faces, place = _follow(chunk, place, reader, device)
        found += faces
    return _track(found)


def _follow(
    frames: Sequence[Frame], place: Place | None, reader: FaceModels, device: torch.device | str
) -> tuple[list[_Found | None], Place | None]:
    """Read a few frames where the face was before them; return what they show, and where the face is now."""
    found: list[_Found | None] = [None] * len(frames)
    places: dict[int, Place] = {} if place is None else dict.fromkeys(range(len(frames)), place)
    for is_second_look in (False, True):
        seen = _read([frames[i] for i in places], list(places.values()), reader, device)
        for index, face in zip(places, seen, strict=True):
            if face is not None:
                found[index], place = face, face.five
        lost = [index for index, face in enumerate(found) if _is_unsure(face)]
        if is_second_look or not lost:
            break
        places = {}
        for index in lost:
            at = _look_for(frames[index], place, reader)
            if at is not None:
                places[index] = at
                place = place if place is not None else at
    return found, place


def _is_unsure(face: _Found | None) -> bool:
    return face is None or (face.spread is not None and float(face.spread.mean()) > MAX_SPREAD)


def _track(found: Sequence[_Found | None]) -> FaceTrack:
    """Join what was found in the frames; NaN where nothing was."""
    is_found = torch.tensor([face is not None for face in found], dtype=torch.bool)
    first = next((face for face in found if face is not None), None)

    def column(name: str, *shape: int) -> Tensor:
        empty = torch.full(shape, torch.nan)
        return torch.stack([empty if face is None else getattr(face, name) for face in found])

    return FaceTrack(
        column("points", 478, 2) if found else torch.zeros(0, 478, 2),
        is_found,
        column("spread", 478) if first is not None and first.spread is not None else None,
        column("expression", 52) if first is not None and first.expression is not None else None,
    )


def _read(
    frames: Sequence[Frame], places: Sequence[Place], reader: FaceModels, device: torch.device | str
) -> list[_Found | None]:
    """Return what each frame's own portrait crop shows, or None."""
    cuts = [portrait_crop(frame, at, CROP_SIZE) for frame, at in zip(frames, places, strict=True)]
    if not cuts:
        return []
    with torch.no_grad():
        landmarks = reader.landmarks(to_tensor([cut.image for cut in cuts], device))
    five, points = landmarks.five().cpu().numpy(), landmarks.points.cpu().double().numpy()
    results: list[_Found | None] = []
    for row, (cut, confidence) in enumerate(zip(cuts, landmarks.confidence.tolist(), strict=True)):
        back = cut.inverse
        in_frame = five[row] * CROP_SIZE @ back[:, :2].T + back[:, 2]
        square = _plausible(in_frame, cut.matrix)
        if confidence < MIN_CONFIDENCE or square is None:
            results.append(None)
            continue
        x, y, side = square
        whole = points[row] * CROP_SIZE @ back[:, :2].T + back[:, 2]
        own = torch.from_numpy((whole - np.array([x, y])) / side + 0.5).float()
        spread, expression = landmarks.spread, landmarks.expression
        results.append(
            _Found(
                own,
                in_frame,
                None if spread is None else spread[row].cpu() * (CROP_SIZE / cut.matrix[0, 0] / side),
                None if expression is None else expression[row].cpu(),
            )
        )
    return results


def _plausible(five: Float[np.ndarray, "5 2"], matrix: Float[np.ndarray, "2 3"]) -> tuple[float, float, float] | None:
    """Return the portrait square of five points, unless it strays from the crop that they were found in."""
    try:
        x, y, side = crop_square(five)
    except InputError:
        return None
    crop_side = CROP_SIZE / matrix[0, 0]
    centre = matrix[:, :2] @ np.array([x, y]) + matrix[:, 2]
    is_near = bool(np.abs(centre / CROP_SIZE - 0.5).max() <= MAX_MOVE)
    return (x, y, side) if is_near and SIZE_RANGE[0] <= side / crop_side <= SIZE_RANGE[1] else None


def _look_for(frame: Frame, place: Place | None, reader: FaceModels) -> Place | None:
    """Return the five points of the detected face that is nearest to where it was, or of the largest one."""
    faces = reader.detect([frame])[0]
    if not faces:
        return None
    if place is None:
        return faces[0].landmarks_5
    size = np.ptp(place, axis=0).max()

    def distance(face: DetectedFace) -> float:
        moved = np.linalg.norm(face.landmarks_5.mean(0) - place.mean(0)) / size
        return float(moved + abs(np.log(np.ptp(face.landmarks_5, axis=0).max() / size)))

    return min(faces, key=distance).landmarks_5
