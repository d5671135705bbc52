"""A video around a generated head: the planes once, then a camera that sways from side to side."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from galatea.animation.camera_path import TURN_DEG
from galatea.animation.video import encode_mp4
from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.images import to_uint8

BACKGROUND = 0.85
"""Grey behind a head that is rendered on nothing, [-1,1]."""


@torch.no_grad()
def turntable(
    generator: TriPlaneGenerator | AnchoredGenerator,
    planes: Float[Tensor, "1 planes channels height width"],
    ws: Float[Tensor, "1 num_ws w_dim"],
    fps: float = 25.0,
    seconds: float = 4.0,
    amplitude_deg: float = TURN_DEG,
    batch_size: int = 4,
) -> bytes:
    """Return an MP4 of the head seen from cameras that go to both sides and back; it loops.

    Args:
        generator: plain or anchored.
        planes: of one head, from `generator.planes`.
        ws: its `w_plus`.
        fps: frames per second.
        seconds: length.
        amplitude_deg: how far to either side, degrees.
        batch_size: frames rendered at once.
    """
    num_frames = max(2, round(seconds * fps))
    yaw = amplitude_deg * torch.sin(torch.arange(num_frames, device=planes.device) / num_frames * 2 * math.pi)
    frames: list[np.ndarray] = []
    for angles in torch.split(yaw, batch_size):
        rendering = generator.render(planes, orbit(angles, torch.zeros_like(angles)), ws)
        image = rendering.image
        if rendering.image_alpha is not None:
            image = BACKGROUND + rendering.image_alpha * (image - BACKGROUND)
        frames.append(to_uint8(image))
    return encode_mp4(np.concatenate(frames), fps)
