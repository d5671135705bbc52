"""Put a driver's motion on a portrait: its own resting face and pose stay its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.errors import ConfigError
from galatea.morphable.actions import ACTION_INDEX

if TYPE_CHECKING:
    from galatea.animation.motion import Motion

HeadMotion = Literal["motion", "absolute", "relative", "still"]
MAX_YAW_DEG, MAX_PITCH_DEG, MAX_ROLL_DEG = 45.0, 30.0, 30.0
_OPPOSED = (
    ("eyeBlink", "eyeWide", ("Left", "Right")),
    ("eyeLookUp", "eyeLookDown", ("Left", "Right")),
    ("eyeLookIn", "eyeLookOut", ("Left", "Right")),
    ("jawLeft", "jawRight", ("",)),
    ("mouthLeft", "mouthRight", ("",)),
    ("mouthSmile", "mouthFrown", ("Left", "Right")),
)
"""Pairs that pull against each other: a face does one of them, so the smaller is taken off both."""


@dataclass(frozen=True)
class RetargetSettings:
    """How a driver's motion is put on a portrait.

    Attributes:
        amplitude: scales the driver's expression (1 = as it was).
        head: "motion" follows the motion's own kind; "absolute" takes the driver's angles, "relative" adds the
            driver's change since its first frame to the portrait's angles, "still" leaves the head where it was.
        head_amplitude: scales head angles.
        own_share: scales how much of the portrait's own expression stays.
    """

    amplitude: float = 1.0
    head: HeadMotion = "motion"
    head_amplitude: float = 1.0
    own_share: float = 1.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        for name, low, high in (("amplitude", 0, 4), ("head_amplitude", 0, 4), ("own_share", 0, 1)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"retarget.{name}: expected {low} to {high}, got {value}")
        if self.head not in ("motion", "absolute", "relative", "still"):
            raise ConfigError(f"retarget.head: expected motion, absolute, relative or still, got {self.head!r}")


@dataclass(frozen=True)
class Retargeted:
    """What a portrait is asked to do: coefficients in [0, 1] and view angles in `cameras.view_angles`' signs."""

    expression: Float[Tensor, "frames 52"]
    yaw_deg: Float[Tensor, "frames"]
    pitch_deg: Float[Tensor, "frames"]
    roll_deg: Float[Tensor, "frames"]


def retarget(
    motion: Motion,
    own_expression: Float[Tensor, "52"],
    own_angles_deg: Float[Tensor, "3"],
    settings: RetargetSettings | None = None,
) -> Retargeted:
    """Return what the portrait shall do in every frame of `motion`.

    Args:
        motion: the driver.
        own_expression: the portrait's coefficients as its photo shows them.
        own_angles_deg: the portrait's yaw, pitch, roll.
        settings: amplitudes and modes; None takes the defaults.
    """
    settings = settings or RetargetSettings()
    own_share = settings.own_share * motion.own_share[:, None]
    change = settings.amplitude * (motion.expression - motion.neutral)
    expression = _untangle((own_share * own_expression + change).clamp(0, 1))
    angles = settings.head_amplitude * _head_angles(motion, settings.head)
    if _is_relative(motion, settings.head):
        angles = angles + own_angles_deg
    yaw, pitch, roll = angles.unbind(1)
    return Retargeted(
        expression,
        yaw.clamp(-MAX_YAW_DEG, MAX_YAW_DEG),
        pitch.clamp(-MAX_PITCH_DEG, MAX_PITCH_DEG),
        roll.clamp(-MAX_ROLL_DEG, MAX_ROLL_DEG),
    )


def driver_neutral(
    expression: Float[Tensor, "frames 52"], is_valid: Tensor, quantile: float = 0.1
) -> Float[Tensor, "52"]:
    """Estimate a driver's resting face from a clip: per action, a low quantile over the frames with a face.

    A low quantile rather than the first frame: drivers seldom start at rest, but every action rests now and then,
    unless the clip is short; then this underestimates the motion, never inverts it.
    """
    return torch.quantile(expression[is_valid], quantile, dim=0)


def _is_relative(motion: Motion, head: HeadMotion) -> bool:
    return head in ("relative", "still") or (head == "motion" and motion.kind == "relative")


def _head_angles(motion: Motion, head: HeadMotion) -> Tensor:
    if head == "still":
        return torch.zeros_like(motion.angles_deg)
    if head == "relative" and motion.kind == "absolute":
        return motion.angles_deg - motion.angles_deg[0]
    return motion.angles_deg


def _untangle(expression: Float[Tensor, "frames 52"]) -> Float[Tensor, "frames 52"]:
    result = expression.clone()
    for one, other, sides in _OPPOSED:
        for side in sides:
            first, second = ACTION_INDEX[one + side], ACTION_INDEX[other + side]
            both = torch.minimum(expression[:, first], expression[:, second])
            result[:, first] -= both
            result[:, second] -= both
    return result
