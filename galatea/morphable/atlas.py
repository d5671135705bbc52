"""The UV atlas of the head model: the face large, the back of the head and what the eye rarely sees small.

MakeHuman's own layout gives the face 10% x 9% of the texture. Here the head's island is turned upright and stretched by
a separable, monotone map that widens its middle; every other island is rescaled into a box of its own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

BOXES = {
    "body": (0.005, 0.005, 0.215, 0.195),
    "left_eye_front": (0.23, 0.085, 0.34, 0.195),
    "right_eye_front": (0.36, 0.085, 0.47, 0.195),
    "left_eye_back": (0.23, 0.005, 0.29, 0.065),
    "right_eye_back": (0.36, 0.005, 0.42, 0.065),
    "left_socket": (0.485, 0.105, 0.585, 0.195),
    "right_socket": (0.485, 0.005, 0.585, 0.095),
    "mouth": (0.6, 0.005, 0.75, 0.195),
    "tongue": (0.765, 0.005, 0.845, 0.195),
    "upper_teeth": (0.86, 0.105, 0.995, 0.195),
    "lower_teeth": (0.86, 0.005, 0.995, 0.095),
}
"""Boxes (u0, v0, u1, v1) of the small islands, in a strip below the head."""
HEAD_BOX = (0.005, 0.205, 0.995, 0.995)
_ACROSS = ((0.0, 0.03, 0.11, 0.18, 0.345), (0.0, 0.13, 0.36, 0.44, 0.5))
"""Distance from the midline in MakeHuman's layout -> in the head box (half width 0.5)."""
_DOWN = ((0.63, 0.76, 0.80, 0.93, 0.965, 1.0), (0.0, 0.13, 0.24, 0.83, 0.95, 1.0))
"""MakeHuman's u (crown to chin) -> distance from the top of the head box."""
MIDLINE = 0.4837


def into_box(uv: Float[np.ndarray, "f 3 2"], box: tuple[float, float, float, float]) -> Float[np.ndarray, "f 3 2"]:
    """Rescale an island so that it fills a box."""
    low, high = uv.min((0, 1)), uv.max((0, 1))
    start, size = np.array(box[:2]), np.array(box[2:]) - np.array(box[:2])
    return np.asarray(start + (uv - low) / (high - low) * size)


def head_island(source_uv: Float[np.ndarray, "f 3 2"]) -> Float[np.ndarray, "f 3 2"]:
    """Turn MakeHuman's head island upright and widen the face; the image left of the atlas is the head's right (-x)."""
    across = source_uv[..., 1] - MIDLINE
    half = np.interp(np.abs(across), *_ACROSS)
    horizontal = 0.5 + np.sign(across) * half
    vertical = 1 - np.interp(source_uv[..., 0], *_DOWN)
    start, size = np.array(HEAD_BOX[:2]), np.array(HEAD_BOX[2:]) - np.array(HEAD_BOX[:2])
    return np.asarray(start + np.stack([horizontal, vertical], -1) * size)


def eye_front(directions: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, "f 3 2"]:
    """Project unit directions of the eyeball's front half so that the angle from the optical axis grows with radius."""
    angle = np.arccos(np.clip(directions[..., 2], -1, 1))
    planar = directions[..., :2] / np.maximum(np.linalg.norm(directions[..., :2], axis=-1, keepdims=True), 1e-9)
    return np.asarray(0.5 + planar * (angle / np.pi)[..., None])


def area(uv: Float[np.ndarray, "f 3 2"]) -> Float[np.ndarray, "f"]:
    """Return the area of triangles in the atlas (the whole atlas is 1)."""
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    return np.asarray(0.5 * np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]))


def islands(corners: Int[np.ndarray, "f n"], num: int) -> Int[np.ndarray, "f"]:
    """Label faces by the connected component of their corner indices (a vertex or a UV index)."""
    parent = np.arange(num)
    while True:
        lowest = parent[corners].min(1)
        before = parent.copy()
        for column in range(corners.shape[1]):
            np.minimum.at(parent, corners[:, column], lowest)
        parent = parent[parent]
        if np.array_equal(before, parent):
            return np.asarray(parent[corners[:, 0]])
