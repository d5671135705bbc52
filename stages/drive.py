"""Drive: whatever drives portraits (a name, a file) becomes a motion, once, for all portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from galatea.animation import drivers
from galatea.animation.motion import Motion
from galatea.errors import DriverError
from galatea.morphable.fitting import HeadFitter
from galatea.morphable.head import HeadModel
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.face_models import FaceModels
from stages.ranges import check_ranges

KINDS = ("preset", "camera", "photo", "video", "arkit")


@dataclass(frozen=True)
class DriveConfig(FaceModels):
    """Settings of the drive stage."""

    fps: float = 25.0
    """Frames per second of presets and camera paths; videos and recordings keep their own."""
    video_fps: float = 0.0
    """Frames per second at which driving videos are read; 0 = the file's own."""
    max_seconds: float = 30.0
    """Longer drivers are cut."""
    amplitude: float = 1.0
    """Scales presets and camera paths."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        super().__post_init__()
        check_ranges(
            "drive", self, {"fps": (1, 120), "video_fps": (0, 120), "max_seconds": (0.1, 600), "amplitude": (0, 4)}
        )


class DriveStage(Stage):
    """Reads drivers; the models are loaded only when the first photo or video comes."""

    name: ClassVar[str] = "drive"
    id_column: ClassVar[str] = "driver_id"
    source_id_column: ClassVar[str] = "driver_id"
    requires: ClassVar[tuple[str, ...]] = ("driver_id", "kind", "name", "data")
    produces: ClassVar[tuple[Column, ...]] = (
        Column("driver_id", Kind.STRING, "what the run calls it"),
        Column("kind", Kind.STRING, ", ".join(KINDS)),
        Column("name", Kind.STRING, "what people call it"),
        Column("num_frames", Kind.INT, "frames of the motion"),
        Column("num_valid_frames", Kind.INT, "frames in which the driver showed a face"),
        Column("fps", Kind.FLOAT, "frames per second"),
        Column("motion", Kind.BYTES, "the motion, safetensors"),
    )
    batch_size: int = 1

    def __init__(self, config: DriveConfig) -> None:
        """Keep the settings; models are loaded on demand."""
        self.config = config
        self._device = torch.device("cpu")
        self._reading: drivers.Reading | None = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the face pack's models and the head model."""
        return self.config.face_parts()

    def setup(self, device: torch.device) -> None:
        """Remember the device; presets and camera paths need no model."""
        self._device = device

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return one row for every driver.

        Raises:
            DriverError: a driver is unknown, cannot be read, or shows no face.
        """
        rows: list[list[Record]] = []
        for record in batch:
            motion = self._motion(record["kind"], record["name"], record["data"])
            row = {
                "driver_id": record["driver_id"],
                "kind": record["kind"],
                "name": record["name"],
                "num_frames": motion.num_frames,
                "num_valid_frames": int(motion.is_valid.sum()),
                "fps": motion.fps,
                "motion": motion.to_bytes(),
            }
            rows.append([row])
        return rows

    def _motion(self, kind: str, name: str, data: bytes) -> Motion:
        config = self.config
        if kind == "preset":
            return drivers.preset(name, config.fps, config.amplitude)
        if kind == "camera":
            return drivers.camera_path(name, config.fps, amplitude=config.amplitude)
        if kind not in KINDS:
            raise DriverError(f"driver {name!r}: expected a kind of {', '.join(KINDS)}, got {kind!r}")
        if not data:
            raise DriverError(f"driver {name!r}: the file is empty; expected a {kind}")
        if kind == "arkit":
            return drivers.from_arkit_csv(data, name, max_seconds=config.max_seconds)
        if kind == "photo":
            return drivers.from_photo(data, self._read(), name)
        settings = drivers.VideoSettings(max_seconds=config.max_seconds, fps=config.video_fps or None)
        return drivers.from_video(data, self._read(), name, settings)

    def _read(self) -> drivers.Reading:
        if self._reading is None:
            pack = self.config.open_faces(self._device)
            self._reading = drivers.Reading(pack, HeadFitter(HeadModel.load()), self._device)
        return self._reading
