"""Animate: a portrait's capsule and a driver's motion become a clip."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea.animation.composite import paste_back
from galatea.animation.contact_sheet import contact_sheet, pick_frames
from galatea.animation.motion import Motion
from galatea.animation.rendering import PortraitAnimator, RenderSettings
from galatea.animation.transfer import TransferAnimator
from galatea.animation.video import Frame, encode_mp4, encode_webp_animation, shrunk
from galatea.eg3d.checkpoint import load_generator, read_facts
from galatea.errors import ConfigError, InputError
from galatea.faces.alignment import CROP_SIZE
from galatea.images import decode_grey, decode_image, to_tensor
from galatea.inversion.binding import PortraitGenerator
from galatea.inversion.capsule import Capsule
from galatea.inversion.expression_pivots import TransferSettings
from galatea.morphable.head import HeadCoefficients
from galatea.morphable.retarget import Retargeted, RetargetSettings, retarget
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.generator_provenance import generator_part
from stages.provenance import head_parts
from stages.ranges import check_ranges

_LOG = logging.getLogger(__name__)
_SHEET_FRAMES = 6
_RANGES = {
    "transfer_steps": (1, 100_000),
    "transfer_tuning_steps": (0, 100_000),
    "fps": (0, 120),
    "size": (64, 2048),
    "resolution": (0, 2048),
    "detail": (0, 1),
    "crf": (0, 51),
    "preview_size": (32, 4096),
    "paste_max_side": (64, 65_536),
    "batch_frames": (1, 4096),
}
Frames = UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True)
class AnimateConfig:
    """Settings of the animate stage."""

    generator: str = "builtin"
    """Name or path of the checkpoint that the capsules were made with."""
    method: Literal["anchored", "paper"] = "anchored"
    """How expressions come about: by the generator's own head, or (slowly) by a latent for each, as Lin et al. 2022 do
    it for generators without a head."""
    transfer_steps: int = 100
    """Method paper: steps for the latent of each expression."""
    transfer_tuning_steps: int = 400
    """Method paper: steps of the tuning of the generator on all expressions of a clip."""
    fps: float = 0.0
    """Frames per second of the clip; 0 = the driver's own."""
    size: int = 384
    """Pixels a side of the animated crop."""
    resolution: int = 0
    """Size of the volume rendering; 0 = the generator's own. Smaller is faster, with stairs along jaw and teeth."""
    detail: float = 1.0
    """Share of the photo's own detail that is carried to every view, 0 to 1."""
    amplitude: float = 1.0
    """Scales the driver's expression."""
    head: Literal["motion", "absolute", "relative", "still"] = "motion"
    """How the driver's head angles are used; see `RetargetSettings`."""
    head_amplitude: float = 1.0
    """Scales head angles."""
    own_share: float = 1.0
    """How much of the portrait's own expression stays where the driver lets it."""
    use_neck: bool = True
    """The body stays with the photo and the neck bends; otherwise the whole portrait turns."""
    paste_back: bool = False
    """Put the animated crop back into the whole photo."""
    paste_max_side: int = 1280
    """Larger photos are scaled down to it before pasting."""
    preview_size: int = 256
    """Longest side of the animated WebP."""
    crf: int = 18
    """Quality of the H.264 clip, 0 (lossless) to 51."""
    edited_with: tuple[str, ...] = field(default=("*",), metadata={"affects_rows": False})
    """Drivers that edited portraits are animated with; `*` is all of them. Unedited portraits take all drivers."""
    batch_frames: int = field(default=4, metadata={"affects_rows": False})
    """Frames rendered at once."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        if not self.generator:
            raise ConfigError("animate.generator: expected a name or a path, got an empty string")
        check_ranges("animate", self, _RANGES)
        if self.size % 2:
            raise ConfigError(f"animate.size: expected an even number, got {self.size}")
        if 0 < self.resolution < 16:
            raise ConfigError(f"animate.resolution: expected 0 or at least 16, got {self.resolution}")
        if self.method not in ("anchored", "paper"):
            raise ConfigError(f"animate.method: expected anchored or paper, got {self.method!r}")
        self.render_settings()
        self.retarget_settings()
        self.transfer_settings()

    def render_settings(self) -> RenderSettings:
        """Return the library's rendering settings.

        Raises:
            ConfigError: if a value is out of range.
        """
        return RenderSettings(self.size, self.resolution or None, self.detail, self.use_neck, self.batch_frames)

    def transfer_settings(self) -> TransferSettings:
        """Return the library's settings of method paper.

        Raises:
            ConfigError: if a value is out of range.
        """
        return TransferSettings(pivot_steps=self.transfer_steps, tuning_steps=self.transfer_tuning_steps)

    def retarget_settings(self) -> RetargetSettings:
        """Return the library's retargeting settings.

        Raises:
            ConfigError: if a value is out of range.
        """
        return RetargetSettings(self.amplitude, self.head, self.head_amplitude, self.own_share)


class AnimateStage(Stage):
    """Renders clips; consecutive clips of one portrait share its preparation."""

    name: ClassVar[str] = "animate"
    id_column: ClassVar[str] = "clip_id"
    source_id_column: ClassVar[str] = "clip_id"
    requires: ClassVar[tuple[str, ...]] = ("clip_id", "capsule", "crop", "matte", "motion")
    produces: ClassVar[tuple[Column, ...]] = (
        Column("clip_id", Kind.STRING, "edited portrait and driver"),
        Column("clip", Kind.FILE, "the clip, H.264", suffix=".mp4"),
        Column("preview", Kind.FILE, "the clip, small, animated WebP", suffix=".webp"),
        Column("sheet", Kind.BYTES, "frames of the clip side by side, WebP"),
        Column("num_frames", Kind.INT, "frames of the clip"),
        Column("fps", Kind.FLOAT, "frames per second of the clip"),
        Column("render_fps", Kind.FLOAT, "frames rendered in a second"),
        Column("clip_matrix", Kind.TENSOR, "clip pixels to crop pixels; null where the clip shows the crop", (2, 3)),
        Column("asked_yaw_deg", Kind.TENSOR, "yaw that each frame was asked to show", (-1,)),
        Column("asked_pitch_deg", Kind.TENSOR, "pitch that each frame was asked to show", (-1,)),
        Column("asked_expression", Kind.TENSOR, "coefficients that each frame was asked to show", (-1, 52)),
    )
    batch_size: int = 1

    def __init__(self, config: AnimateConfig) -> None:
        """Keep the settings; models are loaded by `setup`."""
        self.config = config
        # What is required depends on the settings here, and only here.
        more: tuple[str, ...] = ("photo", "uri", "crop_matrix") if config.paste_back else ()
        more += ("identity_coeffs", "expression_coeffs") if config.method == "paper" else ()
        self.requires = (*type(self).requires, *more)  # type: ignore[misc]
        self._device = torch.device("cpu")
        self._generator: PortraitGenerator | None = None
        self._prepared: tuple[str, PortraitAnimator] | None = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the generator and the head model.

        Raises:
            ConfigError: the method is not for this generator, which is found out before anything runs.
            WeightsError: if the generator is missing.
        """
        if self.config.method == "paper" and read_facts(self.config.generator).kind == "anchored":
            raise ConfigError("animate.method: paper is for generators without a head; use anchored with this one")
        return (generator_part(self.config.generator), *head_parts())

    def wants(self, ids: Mapping[str, str]) -> bool:
        """Edited portraits are only animated with the drivers of `edited_with`."""
        wanted = self.config.edited_with
        is_edited = not ids.get("edit_id", ".none").endswith(".none")
        return not is_edited or "*" in wanted or ids.get("driver_id") in wanted

    def setup(self, device: torch.device) -> None:
        """Load the generator."""
        self._device = device
        self._generator = load_generator(self.config.generator, device)
        if not self._generator.is_anchored and self.config.method == "anchored":
            _LOG.warning(
                "animate: generator %s has no head model, so drivers only turn the head and expressions are ignored; "
                "animate.method=paper shows them, slowly",
                self.config.generator,
            )

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return one row for every clip.

        Raises:
            InputError: a capsule, crop or motion cannot be read.
            WeightsError: a capsule was made with another generator.
        """
        return [[self._clip(record)] for record in batch]

    def _clip(self, record: Record) -> Record:
        animator = self._animator(record)
        motion, fps = Motion.from_bytes(record["motion"]), self.config.fps
        own = animator.own_expression.cpu()
        asked = retarget(motion, own, animator.own_angles_deg.cpu(), self.config.retarget_settings())
        frames_at = resampled(motion.num_frames, motion.fps, fps or motion.fps)
        asked = Retargeted(*(values[frames_at] for values in (asked.expression, *_angles(asked))))
        whole = self._whole_photo(record) if self.config.paste_back else None
        batches = animator.frames(asked.expression, torch.stack(_angles(asked), dim=1))
        film = _Film(batches if whole is None else whole.around(batches), len(frames_at), self.config.preview_size)
        clip = encode_mp4(film, fps or motion.fps, self.config.crf)
        return {
            "clip_id": record["clip_id"],
            "clip": clip,
            "preview": encode_webp_animation(film.small, fps or motion.fps),
            "sheet": contact_sheet(np.stack(film.picked), _SHEET_FRAMES),
            "num_frames": len(film.small),
            "fps": fps or motion.fps,
            "render_fps": len(film.small) / max(film.seconds, 1e-6),
            "clip_matrix": None if whole is None else whole.matrix.astype(np.float32),
            "asked_yaw_deg": asked.yaw_deg.numpy().astype(np.float32),
            "asked_pitch_deg": asked.pitch_deg.numpy().astype(np.float32),
            "asked_expression": asked.expression.numpy().astype(np.float32),
        }

    def _animator(self, record: Record) -> PortraitAnimator:
        """Return the animator of a record's portrait, prepared once for consecutive clips."""
        if self._generator is None:
            raise RuntimeError("AnimateStage.process was called before setup")
        key = hashlib.sha256(record["capsule"] + record["crop"]).hexdigest()
        if self._prepared is None or self._prepared[0] != key:
            crop, matte = decode_image(record["crop"]), decode_grey(record["matte"])
            if crop.shape[:2] != matte.shape:
                raise InputError(
                    f"clip {record['clip_id']}: expected a matte of the crop's size {crop.shape[:2]}, got {matte.shape}"
                )
            photo = to_tensor(crop, self._device)
            person = torch.from_numpy(matte).to(self._device)[None, None].float() / 255
            self._prepared = key, self._prepare(Capsule.from_bytes(record["capsule"]), photo, person, record)
        return self._prepared[1]

    def _prepare(self, capsule: Capsule, photo: Tensor, person: Tensor, record: Record) -> PortraitAnimator:
        if self._generator is None:
            raise RuntimeError("AnimateStage.process was called before setup")
        settings = self.config.render_settings()
        if self.config.method == "anchored":
            return PortraitAnimator(self._generator, capsule, photo, person, settings)
        identity, expression = (
            torch.from_numpy(np.array(record[name], np.float32))[None].to(self._device)
            for name in ("identity_coeffs", "expression_coeffs")
        )
        head = HeadCoefficients(identity, expression)
        return TransferAnimator(self._generator, capsule, photo, head, settings, self.config.transfer_settings())

    def _whole_photo(self, record: Record) -> _WholePhoto:
        # The limit on pixels is align's, which has accepted this photo.
        photo, scale = _limited(decode_image(record["photo"], max_pixels=sys.maxsize), self.config.paste_max_side)
        crop_matrix = np.asarray(record["crop_matrix"], np.float64).reshape(2, 3)
        return _WholePhoto(photo, crop_matrix @ np.diag([1 / scale, 1 / scale, 1]))


@dataclass(frozen=True)
class _WholePhoto:
    """The photo that frames are put back into; `matrix` brings its pixels to crop pixels."""

    photo: Frame
    matrix: Float[np.ndarray, "2 3"]

    def around(self, batches: Iterator[Frames]) -> Iterator[Frames]:
        """Yield the photo with every frame in it."""
        for batch in batches:
            yield np.stack([paste_back(self.photo, frame, self.matrix, CROP_SIZE) for frame in batch])


class _Film:
    """Frames on their way into a file: small ones are kept, and some large ones, and how long rendering took."""

    def __init__(self, batches: Iterator[Frames], num_frames: int, small_side: int) -> None:
        self.batches, self.small_side = batches, small_side
        self.numbers = set(pick_frames(num_frames, _SHEET_FRAMES))
        self.small: list[Frame] = []
        self.picked: list[Frame] = []
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Render and yield frame by frame."""
        began = time.perf_counter()
        for batch in self.batches:
            self.seconds += time.perf_counter() - began
            for frame in batch:
                if len(self.small) in self.numbers:
                    self.picked.append(frame)
                self.small.append(shrunk(frame, self.small_side))
                yield frame
            began = time.perf_counter()


def resampled(num_frames: int, fps: float, wanted_fps: float) -> torch.Tensor:
    """Return the frame numbers that show a motion at another rate; at least one."""
    count = max(1, round(num_frames * wanted_fps / fps))
    return (torch.arange(count) * (fps / wanted_fps)).round().long().clamp_max(num_frames - 1)


def _angles(asked: Retargeted) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return asked.yaw_deg, asked.pitch_deg, asked.roll_deg


def _limited(
    photo: UInt8[np.ndarray, "height width 3"], max_side: int
) -> tuple[UInt8[np.ndarray, "height width 3"], float]:
    """Return the photo, scaled down to at most `max_side`, and the scale."""
    scale = min(1.0, max_side / max(photo.shape[:2]))
    if scale == 1.0:
        return photo, scale
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8), scale
