"""Compose the pictures of the tour from a run folder: `python docs/make_pictures.py RUN`.

The run: `galatea animate astronaut.png --driver talk --driver turn --driver surprise --out RUN animate.fps=10
animate.edited_with=[turn]`, on the astronaut that `python -m pipeline.demo FOLDER` writes.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from galatea.animation.video import read_video

IMAGES = Path(__file__).parent / "images"
TILE = 208


def main(run: Path) -> None:
    """Write docs/images/*.webp."""
    (portrait,) = _rows(run, "align")
    (inverted,) = _rows(run, "invert")
    edits = {row["edit"]: row for row in _rows(run, "edit")}
    clips = {row["clip_id"].split(".", 1)[1]: _frames(run / row["clip"]) for row in _rows(run, "animate")}
    photo = _tile(_picture(portrait["crop"]))
    IMAGES.mkdir(exist_ok=True)
    shown = [clips[name] for name in ("none.talk", "none.turn", "none.surprise", "older.turn")]
    length = max(len(frames) for frames in shown)
    frames = [_row([photo, *(clip[index % len(clip)] for clip in shown)]) for index in range(length)]
    frames[0].save(
        IMAGES / "astronaut.webp", save_all=True, append_images=frames[1:], duration=100, loop=0, quality=78, method=6
    )
    turned = _picture(inverted["turned"])
    turned = turned.resize((turned.width * TILE // turned.height, TILE), Image.Resampling.LANCZOS)
    _row([photo, _tile(_picture(inverted["reconstruction"])), turned]).save(IMAGES / "turned.webp", quality=88)
    pictures = [_tile(_picture(edits[name]["image"])) for name in edits]
    _row([photo, *pictures]).save(IMAGES / "edits.webp", quality=88)
    for name in ("talk", "surprise"):
        clip = clips[f"none.{name}"]
        _row([clip[len(clip) * step // 6] for step in range(6)]).save(IMAGES / f"{name}.webp", quality=88)


def _rows(run: Path, stage: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / stage / "manifest.parquet").to_pylist()
    return [row for row in rows if row["status"] == "done"]


def _picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _frames(path: Path) -> list[Image.Image]:
    return [_tile(Image.fromarray(frame)) for frame in read_video(path.read_bytes()).frames]


def _tile(image: Image.Image) -> Image.Image:
    return image.resize((TILE, TILE), Image.Resampling.LANCZOS)


def _row(images: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (sum(image.width for image in images), TILE))
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compose the pictures of the tour.")
    parser.add_argument("run", type=Path, help="run folder, as the head of this file says")
    main(parser.parse_args().run)
