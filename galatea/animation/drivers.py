"""Everything that can drive a portrait becomes a `Motion`: names, ARKit files, photos and videos of other people."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from galatea.animation.arkit import from_arkit_csv
from galatea.animation.camera_path import camera_path, camera_path_names
from galatea.animation.motion import Motion
from galatea.animation.presets import preset, preset_names
from galatea.animation.smoothing import fill_gaps, steadied
from galatea.animation.tracking import FaceModels, FaceTrack, track_face
from galatea.animation.video import open_video
from galatea.cameras import view_angles
from galatea.errors import DriverError, InputError
from galatea.images import decode_image
from galatea.morphable.actions import ACTION_INDEX, ARKIT_ACTIONS
from galatea.morphable.fitting import HeadFit, HeadFitter
from galatea.morphable.retarget import driver_neutral

__all__ = ["camera_path", "camera_path_names", "from_arkit_csv", "from_photo", "from_video", "preset", "preset_names"]

PHOTO_SECONDS, PHOTO_FPS = 3.0, 25.0
PHOTO_RISE = 0.25
"""Share of a photo-driven clip in which the expression comes, and again in which it goes."""
SHUT = 0.35
"""Eyes that are shut so far, and those of the frames before and after, have no gaze."""
ANGLE_UNIT_DEG = 30.0
"""Angles are smoothed in this unit, so that their range is about one, like a coefficient's."""


@dataclass(frozen=True)
class VideoSettings:
    """How a driving video is read.

    Attributes:
        max_seconds: what comes later is not read.
        fps: sample at this rate; None keeps the source's.
        min_cutoff_hz, beta: of the One-Euro filter (`smoothing.steadied`).
        min_found: smallest share of frames with a face that makes a usable driver.
    """

    max_seconds: float = 30.0
    fps: float | None = None
    min_cutoff_hz: float = 2.0
    beta: float = 0.6
    min_found: float = 0.1


@dataclass(frozen=True)
class Reading:
    """What reads a driver's face: a face pack, a head fitter, and the device of the pack."""

    pack: FaceModels
    fitter: HeadFitter
    device: torch.device | str = "cpu"


def from_video(data: bytes, reading: Reading, name: str = "video", settings: VideoSettings | None = None) -> Motion:
    """Read expression and head pose of the main face of a driving video.

    Frames without the face are interpolated and marked as not valid.

    Raises:
        DriverError: not a video, or hardly a frame shows a face.
    """
    settings = settings or VideoSettings()
    video = open_video(data, settings.max_seconds, settings.fps)
    track = track_face(video.frames, reading.pack, reading.device)
    found, num_frames = int(track.is_found.sum()), len(track.is_found)
    if found < max(1, settings.min_found * num_frames):
        raise DriverError(
            f"driving video {name!r}: expected a face, found one in {found} of {num_frames} frames; "
            "use a video whose main face is visible and larger than about 40 pixels"
        )
    fit, is_valid = _fit(track, reading.fitter)
    if not bool(is_valid.any()):
        raise DriverError(f"driving video {name!r}: the head model fits the face in none of {found} frames")
    signal = fill_gaps(torch.cat([held_gaze(fit.expression, is_valid), _angles(fit) / ANGLE_UNIT_DEG], dim=1), is_valid)
    smooth = steadied(signal, video.fps, settings.min_cutoff_hz, settings.beta)
    expression = smooth[:, :-3].clamp(0, 1)
    return Motion.build(
        name=name,
        fps=video.fps,
        kind="absolute",
        expression=expression,
        angles_deg=smooth[:, -3:] * ANGLE_UNIT_DEG,
        is_valid=is_valid,
        neutral=driver_neutral(expression, is_valid),
    )


def from_photo(data: bytes, reading: Reading, name: str = "photo") -> Motion:
    """Read expression and head pose of the largest face of a photo, and let a portrait take them on and off.

    Raises:
        DriverError: not a photo, or without a face that the head model fits.
    """
    try:
        image = decode_image(data)
    except InputError as error:
        raise DriverError(f"driving photo {name!r}: {error}") from error
    track = track_face([image], reading.pack, reading.device)
    if not bool(track.is_found[0]):
        raise DriverError(f"driving photo {name!r}: expected a face, found none")
    fit = reading.fitter.fit(track)
    if not bool(fit.is_converged[0]):
        raise DriverError(
            f"driving photo {name!r}: the head model does not fit the face (error {float(fit.residual[0]):.1%} of the "
            "inter-pupil distance); use a clearer photo"
        )
    frames = round(PHOTO_SECONDS * PHOTO_FPS)
    phase = torch.arange(frames) / frames
    near_end = torch.minimum(phase, 1 - phase) / PHOTO_RISE
    envelope = near_end.clamp(0, 1).square() * (3 - 2 * near_end.clamp(0, 1))
    return Motion.build(
        name=name,
        fps=PHOTO_FPS,
        kind="absolute",
        expression=envelope[:, None] * fit.expression,
        angles_deg=_angles(fit).expand(frames, 3),
        own_share=1 - envelope,
    )


def _fit(track: FaceTrack, fitter: HeadFitter) -> tuple[HeadFit, Tensor]:
    fit = fitter.fit_track(track)
    return fit, fit.is_converged & track.is_found


def held_gaze(expression: Float[Tensor, "frames 52"], is_valid: Bool[Tensor, "frames"]) -> Float[Tensor, "frames 52"]:
    """Return coefficients whose gaze passes smoothly over valid frames with closing, shut and opening eyes.

    What is seen between lids that are nearly shut is hardly a gaze: eyes would dart about within each blink.
    """
    is_shut = expression[:, [ACTION_INDEX["eyeBlinkLeft"], ACTION_INDEX["eyeBlinkRight"]]].amax(1) > SHUT
    is_open = (F.max_pool1d(is_shut[None].float(), 3, 1, 1)[0] == 0) & is_valid
    if not bool(is_open.any()):
        return expression
    gaze = [index for index, action in enumerate(ARKIT_ACTIONS) if action.startswith("eyeLook")]
    return expression.index_copy(1, torch.tensor(gaze), fill_gaps(expression[:, gaze], is_open))


def _angles(fit: HeadFit) -> Float[Tensor, "frames 3"]:
    angles = view_angles(fit.camera)
    return torch.stack([angles.yaw_deg, angles.pitch_deg, angles.roll_deg], dim=1)
