"""Texture coordinates of the eyeballs: the head model has none of its own for the eye pictures."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from galatea.morphable.head import HeadModel


def eye_uv(model: HeadModel) -> Float[np.ndarray, "f 3 2"]:
    """Return, for the corners of the eyeballs' front, coordinates around the pupil: angle grows with radius."""
    corners = model.mean.numpy()[model.faces.numpy()]
    centres = model.eye_centres(model.mean[None])[0].numpy()
    rays = corners - np.where(corners[..., :1] > 0, centres[0], centres[1])
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    angle = np.arccos(np.clip(rays[..., 2], -1, 1))
    planar = rays[..., :2] / np.maximum(np.linalg.norm(rays[..., :2], axis=-1, keepdims=True), 1e-9)
    return np.asarray(0.5 + planar * (angle / np.pi)[..., None])
