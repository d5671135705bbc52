"""Motion: what a driver asks of a portrait, frame by frame, independent of whom it drives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from galatea.errors import InputError
from galatea.morphable.actions import ARKIT_ACTIONS

MotionKind = Literal["absolute", "relative"]
NUM_ACTIONS = len(ARKIT_ACTIONS)
_TRACKS = ("expression", "yaw_deg", "pitch_deg", "roll_deg", "is_valid", "neutral", "own_share")


@dataclass(frozen=True)
class Motion:
    """Expression and head angles over time.

    The portrait's expression at frame t is `own_share[t] * own + (expression[t] - neutral)`, see `retarget`.

    Attributes:
        expression: the driver's 52 ARKit coefficients per frame, in [0, 1].
        yaw_deg: head yaw in the camera's sign (> 0: the nose points to the image's left).
        pitch_deg: head pitch in the camera's sign (> 0: seen from above, the head looks down).
        roll_deg: camera roll, as `cameras.view_angles` reads it.
        is_valid: False where the driver showed no face and the values are interpolated.
        fps: frames per second.
        kind: "absolute" angles replace the portrait's own, "relative" ones are added to them.
        name: what a person calls it.
        neutral: the driver's own resting coefficients.
        own_share: how much of the portrait's own expression stays, in [0, 1].
    """

    expression: Float[Tensor, "frames 52"]
    yaw_deg: Float[Tensor, "frames"]
    pitch_deg: Float[Tensor, "frames"]
    roll_deg: Float[Tensor, "frames"]
    is_valid: Bool[Tensor, "frames"]
    fps: float
    kind: MotionKind
    name: str
    neutral: Float[Tensor, "52"]
    own_share: Float[Tensor, "frames"]

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            InputError: if a track has another shape, is not finite, or the rate or kind is impossible.
        """
        frames = self.yaw_deg.shape[0] if self.yaw_deg.ndim == 1 else 0
        if frames < 1:
            raise InputError(f"motion {self.name!r}: expected at least one frame, got {tuple(self.yaw_deg.shape)}")
        for track in _TRACKS:
            expected = {"expression": (frames, NUM_ACTIONS), "neutral": (NUM_ACTIONS,)}.get(track, (frames,))
            value: Tensor = getattr(self, track)
            if tuple(value.shape) != expected:
                raise InputError(f"motion {self.name!r}, {track}: expected shape {expected}, got {tuple(value.shape)}")
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"motion {self.name!r}, {track}: expected finite numbers, got NaN or infinity")
        if not 0.5 <= self.fps <= 240:
            raise InputError(f"motion {self.name!r}, fps: expected 0.5 to 240, got {self.fps}")
        if self.kind not in get_args(MotionKind):
            raise InputError(f"motion {self.name!r}, kind: expected 'absolute' or 'relative', got {self.kind!r}")

    @classmethod
    def build(
        cls, *, name: str, fps: float, kind: MotionKind, expression: Tensor, angles_deg: Tensor, **tracks: Tensor
    ) -> Motion:
        """Build a motion whose optional tracks have their usual values.

        Args:
            name: what a person calls it.
            fps: frames per second.
            kind: how `angles_deg` is meant.
            expression: (frames, 52).
            angles_deg: (frames, 3) yaw, pitch, roll.
            tracks: any of `is_valid` (default all), `neutral` (default 0), `own_share` (default 1).
        """
        frames = expression.shape[0]
        return cls(
            expression=expression.float(),
            yaw_deg=angles_deg[:, 0].float(),
            pitch_deg=angles_deg[:, 1].float(),
            roll_deg=angles_deg[:, 2].float(),
            is_valid=tracks.get("is_valid", torch.ones(frames, dtype=torch.bool)),
            fps=float(fps),
            kind=kind,
            name=name,
            neutral=tracks.get("neutral", torch.zeros(NUM_ACTIONS)).float(),
            own_share=tracks.get("own_share", torch.ones(frames)).float(),
        )

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.expression.shape[0]

    @property
    def angles_deg(self) -> Float[Tensor, "frames 3"]:
        """Yaw, pitch, roll per frame."""
        return torch.stack([self.yaw_deg, self.pitch_deg, self.roll_deg], dim=1)

    def to_bytes(self) -> bytes:
        """Return the motion as one safetensors file."""
        tensors = {track: getattr(self, track).contiguous().cpu() for track in _TRACKS}
        facts = {"format": "galatea-motion-1", "fps": repr(self.fps), "kind": self.kind, "name": self.name}
        return save(tensors, metadata={"motion": json.dumps(facts, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Motion:
        """Read what `to_bytes` wrote.

        Raises:
            InputError: if the bytes are not a motion, or hold impossible values.
        """
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            facts = json.loads(header["__metadata__"]["motion"])
            fps, kind, name = float(facts["fps"]), facts["kind"], str(facts["name"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"motion: expected a Galatea motion file, got {len(data)} other bytes ({error})"
            ) from error
        missing = [track for track in _TRACKS if track not in tensors]
        if missing:
            raise InputError(f"motion {name!r}: expected the tracks {_TRACKS}, {missing} are missing")
        return cls(fps=fps, kind=cast(MotionKind, kind), name=name, **{track: tensors[track] for track in _TRACKS})
