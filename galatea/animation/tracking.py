"""Follow one face through a clip: landmarks in every frame, in the frame of its own portrait crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
CROP_SIZE = 256
"""Pixels of tracking crops: the networks look at 192 and less."""
CHUNK = 8
"""Frames that are cut at the place of the face before them; a third of a second, in which a face moves little."""
MIN_CONFIDENCE = 0.5
MAX_MOVE = 0.3
"""A face further from the middle of its crop than this share of the side is looked for again."""
SIZE_RANGE = (0.6, 1.7)
"""Plausible change of size within a chunk."""


class FaceReader(Protocol):
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
    """

    points: Float[Tensor, "frames 478 2"]
    is_found: Bool[Tensor, "frames"]


def track_face(frames: Sequence[Frame], reader: FaceReader, device: torch.device | str = "cpu") -> FaceTrack:
    """Follow the largest face of the first frame that has one; when it is lost, the detector looks for it again.

    Args:
        frames: pictures of one size.
        reader: a face pack.
        device: where the pack's networks run.
    """
    points = torch.full((len(frames), 478, 2), torch.nan)
    place: Float[np.ndarray, "5 2"] | None = None
    for start in range(0, len(frames), CHUNK):
        chunk = frames[start : start + CHUNK]
        places: list[Float[np.ndarray, "5 2"] | None] = [place] * len(chunk)
        for is_second_look in (False, True):
            todo = [i for i, at in enumerate(places) if at is not None and bool(points[start + i].isnan().any())]
            for index, found in zip(
                todo, _read([chunk[i] for i in todo], [places[i] for i in todo], reader, device), strict=True
            ):
                if found is not None:
                    points[start + index] = found[0]
                    place = found[1]
            lost = [i for i in range(len(chunk)) if bool(points[start + i].isnan().any())]
            if is_second_look or not lost:
                break
            for index in lost:
                places[index] = _look_for(chunk[index], place, reader)
                place = place if place is not None else places[index]
    return FaceTrack(points, ~points.isnan().any(dim=2).any(dim=1))


def _read(
    frames: Sequence[Frame],
    places: Sequence[Float[np.ndarray, "5 2"] | None],
    reader: FaceReader,
    device: torch.device | str,
) -> list[tuple[Tensor, Float[np.ndarray, "5 2"]] | None]:
    """Return for each frame the landmarks in its own portrait crop and its five points, or None."""
    cuts = [portrait_crop(frame, at, CROP_SIZE) for frame, at in zip(frames, places, strict=True) if at is not None]
    if not cuts:
        return []
    with torch.no_grad():
        landmarks = reader.landmarks(to_tensor([cut.image for cut in cuts], device))
    five, points = landmarks.five().cpu().numpy(), landmarks.points.cpu().double().numpy()
    results: list[tuple[Tensor, Float[np.ndarray, "5 2"]] | None] = []
    for cut, seen, all_points, confidence in zip(cuts, five, points, landmarks.confidence.tolist(), strict=True):
        back = cut.inverse
        in_frame = seen * CROP_SIZE @ back[:, :2].T + back[:, 2]
        square = _plausible(in_frame, cut.matrix)
        if confidence < MIN_CONFIDENCE or square is None:
            results.append(None)
            continue
        x, y, side = square
        whole = all_points * CROP_SIZE @ back[:, :2].T + back[:, 2]
        own = (whole - np.array([x, y])) / side + 0.5
        results.append((torch.from_numpy(own).float(), in_frame))
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


def _look_for(
    frame: Frame, place: Float[np.ndarray, "5 2"] | None, reader: FaceReader
) -> Float[np.ndarray, "5 2"] | None:
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
