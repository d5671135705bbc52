"""Named expressions that play without a driver: timed like a face, and looping without a seam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.animation.motion import NUM_ACTIONS, Motion
from galatea.errors import DriverError
from galatea.morphable.actions import ACTION_INDEX, action_vector

MICRO_YAW_DEG, MICRO_PITCH_DEG, MICRO_ROLL_DEG = 1.6, 1.0, 0.6
BLINK_CLOSE_S, BLINK_SHUT_S, BLINK_OPEN_S = 0.09, 0.05, 0.19
"""A lid falls in about 90 ms and rises twice as slowly (Evinger et al. 1991)."""
SMILE = {"mouthSmile": 0.85, "cheekSquint": 0.5, "eyeSquint": 0.35, "mouthDimple": 0.15, "mouthUpperUp": 0.15}


@dataclass(frozen=True)
class Gesture:
    """One rise, hold and fall of some actions, in seconds from the beginning of the clip.

    Attributes:
        weights: coefficients at the top; pairs may leave out Left and Right.
        start, rise, hold, fall: timing; the motion between is minimum-jerk.
        own_share: how much of the portrait's own expression stays at the top.
        pitch_deg, yaw_deg: the head's part in it.
    """

    weights: Mapping[str, float]
    start: float
    rise: float
    hold: float
    fall: float
    own_share: float = 1.0
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0

    def envelope(self, times: Float[Tensor, "frames"], seconds: float) -> Float[Tensor, "frames"]:
        """Return the activation 0..1 at `times`, wrapped around a loop of `seconds`."""
        since = torch.remainder(times - self.start, seconds)
        up = _minimum_jerk(since / self.rise)
        return torch.minimum(up, 1 - _minimum_jerk((since - self.rise - self.hold) / self.fall))


@dataclass(frozen=True)
class _Preset:
    seconds: float
    gestures: tuple[Gesture, ...]
    blinks: tuple[float, ...] = ()


def _minimum_jerk(share: Tensor) -> Tensor:
    """Flash and Hogan 1985: the smoothest path from 0 to 1."""
    x = share.clamp(0, 1)
    return x * x * x * (10 - 15 * x + 6 * x * x)


def _blink(start: float, weight: float = 1.0) -> Gesture:
    return Gesture({"eyeBlink": weight}, start, BLINK_CLOSE_S, BLINK_SHUT_S, BLINK_OPEN_S)


_VISEMES: Mapping[str, Mapping[str, float]] = {
    "a": {"jawOpen": 0.42, "mouthLowerDown": 0.25, "mouthUpperUp": 0.12},
    "e": {"jawOpen": 0.2, "mouthStretch": 0.3, "mouthSmile": 0.22, "mouthLowerDown": 0.3},
    "i": {"jawOpen": 0.12, "mouthSmile": 0.3, "mouthStretch": 0.2, "mouthLowerDown": 0.2},
    "o": {"jawOpen": 0.3, "mouthFunnel": 0.5, "mouthPucker": 0.2},
    "u": {"jawOpen": 0.14, "mouthPucker": 0.6, "mouthFunnel": 0.3},
    "m": {"mouthPress": 0.35, "mouthRollLower": 0.2, "mouthRollUpper": 0.15},
    "f": {"jawOpen": 0.08, "mouthRollLower": 0.35, "mouthUpperUp": 0.25},
    "l": {"jawOpen": 0.22, "mouthLowerDown": 0.15},
}
_UTTERANCE = "m a l o . u i e f a m e . o l a m i . e u a"
"""Syllables of 160 ms with short rests: about the 4 to 6 a second of easy speech."""
SYLLABLE_S = 0.16


def _talk() -> _Preset:
    gestures: list[Gesture] = [Gesture({}, 0.05, 0.3, 3.0, 0.35, own_share=0.35)]
    for index, sound in enumerate(_UTTERANCE.split()):
        if sound != ".":
            start = 0.2 + index * SYLLABLE_S
            gestures.append(Gesture(_VISEMES[sound], start, SYLLABLE_S * 0.8, SYLLABLE_S * 0.15, SYLLABLE_S * 1.05))
    for start in (0.5, 1.9):
        gestures.append(Gesture({"browInnerUp": 0.35, "browOuterUp": 0.25}, start, 0.25, 0.2, 0.5, pitch_deg=-2.5))
    gestures.append(Gesture({}, 1.2, 0.5, 0.5, 0.7, yaw_deg=4.0, pitch_deg=1.5))
    return _Preset(4.0, tuple(gestures), blinks=(0.1, 2.55))


_PRESETS: Mapping[str, _Preset] = {
    "neutral": _Preset(3.0, (Gesture({}, 0.2, 0.5, 1.5, 0.6, own_share=0.0),), blinks=(1.3,)),
    "smile": _Preset(
        3.0, (Gesture(SMILE, 0.3, 0.55, 1.1, 0.8, own_share=0.4, pitch_deg=-1.5, yaw_deg=2.0),), blinks=(2.4,)
    ),
    "open_mouth": _Preset(
        2.6, (Gesture({"jawOpen": 0.85, "mouthLowerDown": 0.2}, 0.3, 0.45, 0.7, 0.6, own_share=0.25),), blinks=(2.1,)
    ),
    "blink": _Preset(3.0, (_blink(0.5), _blink(1.6), _blink(1.98)), blinks=()),
    "surprise": _Preset(
        2.8,
        (
            Gesture(
                {"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.8, "jawOpen": 0.5, "mouthFunnel": 0.15},
                0.3, 0.28, 0.9, 0.7, own_share=0.1, pitch_deg=-4.0,
            ),
        ),
        blinks=(0.18, 2.2),
    ),
    "frown": _Preset(
        3.0,
        (
            Gesture(
                {"browDown": 0.85, "mouthFrown": 0.8, "eyeSquint": 0.35, "mouthShrugLower": 0.4, "noseSneer": 0.15},
                0.3, 0.55, 1.1, 0.8, own_share=0.0, pitch_deg=3.5,
            ),
        ),
        blinks=(2.45,),
    ),
    "talk": _talk(),
}  # fmt: skip


def preset_names() -> tuple[str, ...]:
    """Return the names that `preset` knows."""
    return tuple(_PRESETS)


def preset(name: str, fps: float = 25.0, amplitude: float = 1.0) -> Motion:
    """Return a named expression as a motion whose last frame leads back to the first.

    Args:
        name: one of `preset_names`.
        fps: frames per second.
        amplitude: scales expression and head motion; coefficients stay within [0, 1].

    Raises:
        DriverError: if there is no such preset.
    """
    if name not in _PRESETS:
        raise DriverError(f"preset: expected one of {', '.join(_PRESETS)}, got {name!r}")
    chosen = _PRESETS[name]
    frames = round(chosen.seconds * fps)
    times = torch.arange(frames) / fps
    seconds = frames / fps
    expression, own_share = torch.zeros(frames, NUM_ACTIONS), torch.ones(frames)
    angles = _micro_motion(frames)
    for gesture in chosen.gestures:
        envelope = gesture.envelope(times, seconds)
        expression = expression + amplitude * envelope[:, None] * action_vector(gesture.weights)
        own_share = torch.minimum(own_share, 1 - envelope * (1 - gesture.own_share))
        angles = angles + amplitude * envelope[:, None] * torch.tensor([gesture.yaw_deg, gesture.pitch_deg, 0.0])
    for start in chosen.blinks:
        blink = _blink(start)
        shut = blink.envelope(times, seconds)[:, None] * action_vector(blink.weights)
        expression = torch.maximum(expression, shut)
    return Motion.build(
        name=name, fps=fps, kind="relative", expression=_settle_lids(expression).clamp(0, 1), angles_deg=angles,
        own_share=own_share,
    )  # fmt: skip


def _settle_lids(expression: Float[Tensor, "frames 52"]) -> Float[Tensor, "frames 52"]:
    """While a lid is shut it neither squints nor opens wide, else the two add up to a lid pushed into the cheek."""
    settled = expression.clone()
    for side in ("Left", "Right"):
        is_open = 1 - expression[:, ACTION_INDEX[f"eyeBlink{side}"]].clamp(0, 1)
        for action in ("eyeSquint", "eyeWide"):
            settled[:, ACTION_INDEX[f"{action}{side}"]] *= is_open
    return settled


def _micro_motion(frames: int) -> Float[Tensor, "frames 3"]:
    """A living head is never still: slow sways of a degree or two, whole periods a loop, zero in the first frame."""
    phase = torch.arange(frames) / frames * 2 * math.pi
    yaw = MICRO_YAW_DEG * (0.7 * torch.sin(phase) + 0.3 * torch.sin(2 * phase))
    pitch = MICRO_PITCH_DEG * (0.6 * torch.sin(2 * phase) - 0.4 * torch.sin(3 * phase))
    roll = MICRO_ROLL_DEG * torch.sin(phase) * torch.cos(phase)
    return torch.stack([yaw, pitch, roll], dim=1)
