"""The stage that draws synthetic heads: a person's number in, labelled images out.

It lives beside the renderer, above `stages/`: the renderer belongs to training, and stages do not know training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import torch

from galatea.errors import ConfigError, WeightsError
from galatea.morphable.sampling import PHENOTYPES
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.provenance import head_parts
from training.heads.settings import PEOPLE_PER_SEED, HeadsConfig

if TYPE_CHECKING:
    from training.heads.rows import HeadRows

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}
WHERE_FROM = "docs/synthetic_heads.md#licence says where to get MakeHuman's system assets (CC0)"


def columns(image_format: str) -> tuple[Column, ...]:
    """Return the columns of an image's row."""
    return (
        Column("image_id", Kind.STRING, "person, expression and view"),
        Column("person_id", Kind.STRING, "the person; split by this, so that nobody is in two splits"),
        Column("expression_index", Kind.INT, "number of the person's expression; also another light"),
        Column("view_index", Kind.INT, "number of the expression's camera"),
        Column("image", Kind.FILE, "the picture, sRGB", suffix=SUFFIXES[image_format]),
        Column("alpha", Kind.BYTES, "PNG, 8 bits: coverage of the head and what it wears", suffix=".png"),
        Column("part", Kind.BYTES, "PNG, 8 bits: part numbers, see PARTS", suffix=".png"),
        Column(
            "depth", Kind.BYTES, "PNG, 16 bits: 10000 x world units along the viewing axis, 0 = nothing", suffix=".png"
        ),
        Column(
            "normal", Kind.BYTES, "PNG, RGB: 127.5 + 127.5 x normal in the camera's frame, 0 = nothing", suffix=".png"
        ),
        Column("camera", Kind.TENSOR, "EG3D label: cam2world, intrinsics", (25,)),
        Column("yaw_deg", Kind.FLOAT, "of the camera around the head; > 0: the nose points to image left"),
        Column("pitch_deg", Kind.FLOAT, "of the camera around the head; > 0: from above"),
        Column("roll_deg", Kind.FLOAT, "of the camera about its axis"),
        Column("landmarks", Kind.TENSOR, "468 FaceMesh points, then 5 of each iris; in image sides", (478, 2)),
        Column("is_visible", Kind.TENSOR, "1 where the camera sees the landmark, else 0", (478,)),
        Column("gaze", Kind.TENSOR, "unit vectors of the image-left and the image-right eye, world", (2, 3)),
        Column("gaze_camera", Kind.TENSOR, "the same in the camera's frame: x right, y down, z away", (2, 3)),
        Column("expression", Kind.TENSOR, "52 ARKit coefficients, alphabetical", (52,)),
        Column("identity", Kind.TENSOR, "identity of the head model, standard deviations", (100,)),
        Column("phenotypes", Kind.TENSOR, ", ".join(PHENOTYPES), (len(PHENOTYPES),)),
        Column("skin_color", Kind.TENSOR, "average colour of the face in neutral light, sRGB 0..1", (3,)),
        Column("hair_color", Kind.TENSOR, "sRGB 0..1", (3,)),
        Column("eye_color", Kind.TENSOR, "sRGB 0..1", (3,)),
        Column("light", Kind.TENSOR, "direction to the key light; its, the sky's and the ground's linear RGB", (4, 3)),
        Column("skin", Kind.STRING, "name of the skin texture"),
        Column("hair", Kind.STRING, "name of the hair style, empty = bald"),
        Column("has_glasses", Kind.BOOL, "clear or dark"),
        Column("has_beard", Kind.BOOL, "stubble, moustache or longer"),
        Column("has_occluder", Kind.BOOL, "a hand, a cup or a bar is in front of the face, or near it"),
        Column("background", Kind.STRING, "kind of background"),
    )


class SynthesizeStage(Stage):
    """Draws people. A record is a person; its rows are the person's expressions times views."""

    name: ClassVar[str] = "synthesize"
    id_column: ClassVar[str] = "image_id"
    source_id_column: ClassVar[str] = "person_id"
    requires: ClassVar[tuple[str, ...]] = ("person_id", "person", "num_images")
    produces: ClassVar[tuple[Column, ...]] = columns("jpeg")
    batch_size: int = 8

    def __init__(self, config: HeadsConfig) -> None:
        """Keep the settings; assets and head model are loaded in `setup`."""
        self.config = config
        self.produces = columns(config.image_format)  # type: ignore[misc]  # the ending of files follows the format
        self._rows: HeadRows | None = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the head model and the assets, by the hash of their files."""
        digest = assets_digest(self.config.assets_folder)
        assets = ModelPart("makehuman_assets", digest[:12], digest, "CC0-1.0", True)
        return (*head_parts(), assets)

    def setup(self, device: torch.device) -> None:
        """Load head model and assets, and compile the ray caster (cached on disk)."""
        from training.heads.rows import HeadRows

        with one_thread():
            self._rows = HeadRows.load(self.config, device)

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return the images of every person."""
        if self._rows is None:
            raise ConfigError("stage synthesize: expected setup() before process()")
        with one_thread():
            return [self._rows.of(record["person_id"], record["person"], record["num_images"]) for record in batch]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in another order differ in their last digits, and pictures would depend on the number of workers."""
    before, before_cv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before_cv)


@cache
def assets_digest(folder: Path) -> str:
    """Return the hash of all files of an assets folder.

    Raises:
        WeightsError: if there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise WeightsError(f"head assets: expected MakeHuman's system assets in {folder}, found nothing; {WHERE_FROM}")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def person_record(config: HeadsConfig, index: int, num_images: int) -> dict[str, Any]:
    """Return the record of the run's person number `index`, of whom `num_images` images are wanted."""
    person = config.seed * PEOPLE_PER_SEED + index
    return {"person_id": f"p{person:012d}", "person": person, "num_images": num_images}
