"""A whole chain of small stages under the names of the real ones: text instead of photos, exact and quick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from galatea.errors import NoFaceError
from pipeline.driving import DriverSpec
from pipeline.run import RunPlan
from pipeline.settings import ExecutorConfig, StorageConfig
from pipeline.storage import Store
from stages.base import Column, Kind, Record, Stage


@dataclass(frozen=True)
class SmallConfig:
    note: str = ""


class SmallStage(Stage):
    """Shared parts; subclasses say what a record becomes."""

    batch_size = 2
    num_setups: ClassVar[int] = 0

    def __init__(self, config: SmallConfig) -> None:
        self.config = config

    def models(self) -> tuple[()]:
        return ()

    def setup(self, device: torch.device) -> None:
        SmallStage.num_setups += 1

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        for record in batch:
            missing = set(self.requires) - set(record)
            if missing:
                raise TypeError(f"{self.name}: no {missing}")
        return [self.make(record) for record in batch]

    def make(self, record: Record) -> list[Record]:
        raise NotImplementedError


def _text(name: str) -> Column:
    return Column(name, Kind.STRING, name)


class Align(SmallStage):
    name = "align"
    id_column = "portrait_id"
    source_id_column = "photo_id"
    requires = ("photo", "photo_id", "uri")
    produces = (
        _text("portrait_id"),
        _text("photo_id"),
        _text("uri"),
        Column("face_index", Kind.INT, ""),
        Column("camera", Kind.TENSOR, "", (25,)),
        Column("crop", Kind.BYTES, ""),
    )

    def make(self, record: Record) -> list[Record]:
        if len(record["photo"]) == 0:
            raise ValueError("no bytes")
        value = record["photo"][-20]
        if "landscape" in record["uri"]:
            raise NoFaceError("nobody is in this landscape")
        names = [f"{record['photo_id']}_{index}" for index in range(2 if "group" in record["uri"] else 1)]
        return [
            {
                "portrait_id": name,
                "photo_id": record["photo_id"],
                "uri": record["uri"],
                "face_index": index,
                "camera": np.full(25, value + index, np.float32),
                "crop": record["photo"][:10],
            }
            for index, name in enumerate(names)
        ]


class Invert(SmallStage):
    name = "invert"
    id_column = "portrait_id"
    source_id_column = "portrait_id"
    requires = ("portrait_id", "crop", "camera")
    produces = (
        _text("portrait_id"),
        Column("capsule", Kind.FILE, "", suffix=".bin"),
        Column("psnr", Kind.FLOAT, ""),
    )

    def make(self, record: Record) -> list[Record]:
        psnr = float(record["camera"].mean())
        return [{"portrait_id": record["portrait_id"], "capsule": b"plain" + record["crop"], "psnr": psnr}]


class Edit(SmallStage):
    name = "edit"
    id_column = "edit_id"
    source_id_column = "portrait_id"
    requires = ("portrait_id", "capsule")
    produces = (_text("edit_id"), _text("edit"), Column("capsule", Kind.FILE, "", suffix=".bin"))

    def make(self, record: Record) -> list[Record]:
        return [
            {
                "edit_id": f"{record['portrait_id']}.{edit}",
                "edit": edit,
                "capsule": edit.encode() + record["capsule"] + self.config.note.encode(),
            }
            for edit in ("none", "older")
        ]


class Drive(SmallStage):
    name = "drive"
    id_column = "driver_id"
    source_id_column = "driver_id"
    requires = ("driver_id", "kind", "name", "data")
    produces = (_text("driver_id"), _text("kind"), _text("name"), Column("motion", Kind.BYTES, ""))

    def make(self, record: Record) -> list[Record]:
        names = {name: record[name] for name in ("driver_id", "kind", "name")}
        return [{**names, "motion": record["name"].encode() + record["data"]}]


class Animate(SmallStage):
    name = "animate"
    id_column = "clip_id"
    source_id_column = "clip_id"
    requires = ("clip_id", "capsule", "motion", "camera", "photo")
    produces = (
        _text("clip_id"),
        Column("clip", Kind.FILE, "", suffix=".mp4"),
        Column("num_frames", Kind.INT, ""),
        Column("asked_yaw_deg", Kind.TENSOR, "", (-1,)),
    )

    def make(self, record: Record) -> list[Record]:
        clip = b"|".join([record["capsule"], record["motion"], record["photo"][:4]])
        yaw = np.arange(len(record["motion"]), dtype=np.float32)
        return [{"clip_id": record["clip_id"], "clip": clip, "num_frames": len(clip), "asked_yaw_deg": yaw}]


class Evaluate(SmallStage):
    name = "evaluate"
    id_column = "subject_id"
    source_id_column = "subject_id"
    requires = ("subject_id", "clip", "asked_yaw_deg", "capsule", "psnr")
    produces = (_text("subject_id"), _text("kind"), _text("seen"), Column("psnr", Kind.FLOAT, ""))

    def make(self, record: Record) -> list[Record]:
        kind = "portrait" if record["clip"] is None else "clip"
        seen = (record["clip"] or record["capsule"]).decode(errors="replace")
        return [{"subject_id": record["subject_id"], "kind": kind, "seen": seen, "psnr": record["psnr"]}]


CHAIN: tuple[Callable[[SmallConfig], SmallStage], ...] = (Align, Invert, Edit, Drive, Animate, Evaluate)
DRIVERS = (DriverSpec("smile", "preset", "smile"), DriverSpec("turn", "camera", "turn"))


def build_chain(**notes: str) -> list[Stage]:
    """The chain; a note changes the configuration of the stage that it is given for."""
    return [make(SmallConfig(notes.get(make.name, ""))) for make in CHAIN]  # type: ignore[attr-defined]


def plan_chain(inputs: Sequence[str], run: Store, **changes: Any) -> RunPlan:
    """A run of the small chain, in this process unless `executor` says otherwise."""
    parts: dict[str, Any] = {
        "inputs": tuple(inputs),
        "run": run,
        "stages": build_chain(),
        "drivers": DRIVERS,
        "executor": ExecutorConfig(kind="local"),
        "storage": StorageConfig(options=run.options),
    }
    return RunPlan(**{**parts, **changes})


def photo_bytes(shade: int, folder: Path) -> bytes:
    """A small picture whose bytes depend on the shade."""
    path = folder / "made.png"
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)
    data = path.read_bytes()
    path.unlink()
    return data


def write_photos(folder: Path) -> Path:
    """Five photos: two portraits, one group of two, one without a face, and one that is a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    shades = {"ann": 10, "bob": 20, "group": 30, "landscape": 40, "copy_of_ann": 10}
    for name, shade in shades.items():
        (folder / f"{name}.png").write_bytes(photo_bytes(shade, folder.parent))
    return folder
