"""Contact sheets: a few frames of a clip side by side."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from galatea.images import encode_webp

_QUALITY = 90


def pick_frames(num_frames: int, count: int) -> list[int]:
    """Return evenly spread frame numbers, first and last included; fewer where there are fewer."""
    return sorted({round(position) for position in np.linspace(0, num_frames - 1, min(count, num_frames))})


def contact_sheet(frames: UInt8[np.ndarray, "frames height width 3"], columns: int = 6, max_side: int = 256) -> bytes:
    """Return frames side by side, in rows of `columns`, as WebP; the last row is filled up with white.

    Args:
        frames: RGB.
        columns: frames in a row.
        max_side: larger frames are scaled down to it.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    tiles = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns if len(tiles) > columns else 0)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return encode_webp(np.concatenate(rows, axis=0), quality=_QUALITY, is_lossless=False)
