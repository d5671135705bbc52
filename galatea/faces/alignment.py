"""Portrait crops as EG3D was trained on: placed by five points, never turned, soft beyond the photo's edge.

EG3D (Chan et al. 2022, appendix; its script for photos in the wild) fits the five standard points of Deep3DFaceRecon
to the photo with a scaled orthographic camera (POS, DeMenthon and Davis 1995) and keeps a square around the projected
origin, so that a focal length of 4.2647 crop widths and a camera distance of 2.7 fit every crop.

Pixel coordinates here are continuous: (0, 0) is the upper left corner of the upper left pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from galatea.errors import InputError

STANDARD_POINTS = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.0032535, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)
"""Image-left eye, image-right eye, nose tip, mouth corners of the standard face, y up, z towards the camera (Deng et
al. 2019, "Accurate 3D Face Reconstruction with Weakly-Supervised Learning"). EG3D's world: 0.27 p + (0, .006, .161)."""
CROP_UNITS = 700 / 300
"""Side of the crop in units of the standard face: EG3D scales one unit to 300 pixels and keeps 700."""
CROP_SIZE = 512
_MIN_SIDE = 8.0
_MARGIN = 8
_FADE_SHARE = 0.06
"""Beyond the photo's edge, the reflection is fully blurred after this share of the crop."""


@dataclass(frozen=True)
class PortraitCrop:
    """A square portrait cut from a photo.

    Attributes:
        image: the crop.
        matrix: brings continuous photo pixels to continuous crop pixels.
    """

    image: UInt8[np.ndarray, "size size 3"]
    matrix: Float[np.ndarray, "2 3"]

    @property
    def inverse(self) -> Float[np.ndarray, "2 3"]:
        """Brings crop pixels to photo pixels."""
        inverse: np.ndarray = cv2.invertAffineTransform(self.matrix)
        return inverse


def crop_square(landmarks_5: Float[np.ndarray, "5 2"]) -> tuple[float, float, float]:
    """Return centre x, centre y and side of the EG3D crop in photo pixels.

    Raises:
        InputError: the points are not finite or too close together to be a face.
    """
    points = np.asarray(landmarks_5, dtype=np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise InputError(f"Face alignment: expected five finite points (5, 2), got {points.shape}: {points.tolist()}.")
    system = np.concatenate([STANDARD_POINTS * [1, -1, 1], np.ones((5, 1))], axis=1)
    solution, _, _, _ = np.linalg.lstsq(system, points, rcond=None)
    scale = float(np.linalg.norm(solution[:3], axis=0).mean())
    side = CROP_UNITS * scale
    if not math.isfinite(side) or side < _MIN_SIDE:
        raise InputError(f"Face alignment: expected a face, got five points that span {side:.1f} pixels.")
    return float(solution[3, 0]), float(solution[3, 1]), side


def portrait_crop(
    image: UInt8[np.ndarray, "height width 3"], landmarks_5: Float[np.ndarray, "5 2"], size: int = CROP_SIZE
) -> PortraitCrop:
    """Cut the EG3D portrait crop out of a photo.

    Args:
        image: the upright photo.
        landmarks_5: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner (photo pixels).
        size: side of the result in pixels.

    Raises:
        InputError: the points are no face.
    """
    x, y, side = crop_square(landmarks_5)
    scale = size / side
    left, top = x - side / 2, y - side / 2
    matrix = np.array([[scale, 0.0, -scale * left], [0.0, scale, -scale * top]])
    return PortraitCrop(cut_crop(image, matrix, size), matrix)


def cut_crop(
    image: UInt8[np.ndarray, "height width 3"], matrix: Float[np.ndarray, "2 3"], size: int = CROP_SIZE
) -> UInt8[np.ndarray, "size size 3"]:
    """Cut a crop out of a picture, antialiased where it is made smaller, soft where it lies beyond the picture.

    Args:
        image: the picture.
        matrix: continuous pixels of the picture to those of the crop; it scales and moves, and does not turn.
        size: side of the result in pixels.

    Raises:
        InputError: the matrix is none of a crop.
    """
    matrix = np.asarray(matrix, np.float64)
    scale = float(matrix[0, 0]) if matrix.shape == (2, 3) else 0.0
    if not np.isfinite(matrix).all() or scale <= 0 or not np.allclose(matrix[:, :2], scale * np.eye(2)):
        raise InputError(f"Crop matrix: expected a scale and a shift, 2x3, got {matrix.tolist()}; run align again.")
    left, top = -matrix[:, 2] / scale
    pixels = _resample(image, (left, top, left + size / scale, top + size / scale), size)
    return _soften_beyond(pixels, matrix, image.shape[1], image.shape[0])


def _resample(
    image: UInt8[np.ndarray, "height width 3"], square: tuple[float, float, float, float], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Scale a (fractional) square of the photo with Lanczos, reflecting the photo at its edges."""
    height, width = image.shape[:2]
    low_x, low_y = math.floor(square[0]) - _MARGIN, math.floor(square[1]) - _MARGIN
    high_x, high_y = math.ceil(square[2]) + _MARGIN, math.ceil(square[3]) + _MARGIN
    columns = _reflected(low_x, high_x, width)
    rows = _reflected(low_y, high_y, height)
    window = image[rows[:, None], columns[None, :]]
    box = (square[0] - low_x, square[1] - low_y, square[2] - low_x, square[3] - low_y)
    return np.array(Image.fromarray(window).resize((size, size), Image.Resampling.LANCZOS, box=box))


def _reflected(low: int, high: int, length: int) -> np.ndarray:
    """Pixel numbers low..high of an axis that is mirrored at both ends, over and over."""
    position = np.mod(np.arange(low, high), 2 * length)
    reflected: np.ndarray = np.minimum(position, 2 * length - 1 - position)
    return reflected


def _soften_beyond(
    crop: UInt8[np.ndarray, "size size 3"], matrix: Float[np.ndarray, "2 3"], width: int, height: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Blur what lies beyond the photo, more with distance, so that a mirrored face or edge is not seen as one."""
    size = crop.shape[0]
    ticks = np.arange(size) + 0.5
    (scale, _, offset_x), (_, _, offset_y) = matrix
    beyond_x = np.maximum(offset_x - ticks, ticks - (width * scale + offset_x))
    beyond_y = np.maximum(offset_y - ticks, ticks - (height * scale + offset_y))
    distance = np.maximum(beyond_x[None, :], beyond_y[:, None])
    if distance.max() <= 0:
        return crop
    weight = np.clip(distance / (_FADE_SHARE * size), 0, 1)[..., None]
    soft = cv2.GaussianBlur(crop, (0, 0), size * 0.02)
    softer = cv2.GaussianBlur(crop, (0, 0), size * 0.06)
    blurred = soft * (1 - weight) + softer * weight
    mixed: np.ndarray = crop * (1 - weight) + blurred * weight + 0.5
    return mixed.clip(0, 255).astype(np.uint8)
