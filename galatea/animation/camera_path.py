"""Camera paths: motions that keep the portrait's own expression and move only the point of view."""

from __future__ import annotations

import math

import torch

from galatea.animation.motion import NUM_ACTIONS, Motion, MotionKind
from galatea.errors import DriverError

_PATHS: dict[str, tuple[MotionKind, float]] = {
    "turn": ("absolute", 4.0),
    "nod": ("relative", 2.4),
    "shake": ("relative", 2.4),
    "orbit": ("absolute", 4.0),
}
"""Name -> kind of motion, seconds."""
TURN_DEG, NOD_DEG, SHAKE_DEG = 30.0, 9.0, 16.0
ORBIT_YAW_DEG, ORBIT_PITCH_DEG = 22.0, 12.0


def camera_path_names() -> tuple[str, ...]:
    """Return the names that `camera_path` knows."""
    return tuple(_PATHS)


def camera_path(name: str, fps: float = 25.0, amplitude: float = 1.0) -> Motion:
    """Return a camera path that ends where it begins.

    Args:
        name: one of `camera_path_names`.
        fps: frames per second.
        amplitude: scales the angles (1: turn +-30 degrees, nod 9, shake +-16, orbit 22 by 12).

    Raises:
        DriverError: if there is no such path.
    """
    if name not in _PATHS:
        raise DriverError(f"camera path: expected one of {', '.join(_PATHS)}, got {name!r}")
    kind, seconds = _PATHS[name]
    frames = max(2, round(seconds * fps))
    phase = torch.arange(frames) / frames * 2 * math.pi
    yaw = pitch = torch.zeros(frames)
    if name == "turn":
        # Frontal -> one side -> other side -> frontal; starting in the middle keeps the first frame close to the photo.
        yaw = TURN_DEG * torch.sin(phase)
    elif name == "nod":
        pitch = NOD_DEG * torch.sin(2 * phase) * torch.sin(phase / 2)
    elif name == "shake":
        yaw = SHAKE_DEG * torch.sin(2 * phase) * torch.sin(phase / 2)
    else:
        yaw, pitch = ORBIT_YAW_DEG * torch.sin(phase), ORBIT_PITCH_DEG * torch.cos(phase)
    angles = amplitude * torch.stack([yaw, pitch, torch.zeros(frames)], dim=1)
    return Motion.build(name=name, fps=fps, kind=kind, expression=torch.zeros(frames, NUM_ACTIONS), angles_deg=angles)
