"""A run folder with real manifests and drawn faces, for tests of what reads runs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline.manifest import build_schema, manifest_path, to_table, write_table
from pipeline.storage import Store
from stages.base import Column, Kind

S, F, I, B, FILE = Kind.STRING, Kind.FLOAT, Kind.INT, Kind.BYTES, Kind.FILE  # noqa: E741 - short names for a table
COLUMNS: Mapping[str, tuple[str, Mapping[str, Kind]]] = {
    "ingest": ("photo_id", {"photo_id": S, "uri": S, "width": I, "height": I}),
    "align": ("portrait_id", {"portrait_id": S, "uri": S, "face_index": I, "num_faces": I, "crop": B,
                              "fit_residual": F}),
    "invert": ("portrait_id", {"portrait_id": S, "capsule": FILE, "reconstruction": B, "turned": B, "psnr": F,
                               "ssim": F}),
    "edit": ("edit_id", {"edit_id": S, "edit": S, "strength": F, "image": B}),
    "drive": ("driver_id", {"driver_id": S, "kind": S, "name": S}),
    "animate": ("clip_id", {"clip_id": S, "clip": FILE, "preview": FILE, "num_frames": I, "fps": F, "render_fps": F}),
    "evaluate": (
        "subject_id",
        {
            "subject_id": S, "kind": S, "identity_similarity": F, "psnr": F, "ssim": F, "yaw_error_deg": F,
            "expression_error": F, "view_landmark_error": F, "view_psnr": F, "verdict": S, "verdict_reason": S,
        },
    ),
}  # fmt: skip
MODELS = [
    {
        "name": "generator",
        "version": "1",
        "sha256": "ab" * 32,
        "licence": "Apache-2.0",
        "is_commercial_use_allowed": True,
    },
    {"name": "arcface", "version": "2", "sha256": "cd" * 32, "licence": "research", "is_commercial_use_allowed": False},
]
HOSTILE_NAME = '<img src=x onerror="document.title=1">.jpg'


def write_run(folder: Path, num_photos: int = 3, num_faces: int = 2, seed: int = 0) -> str:
    """Write a run of photos with several faces each; the last photo has no face, one clip was rejected."""
    random = np.random.default_rng(seed)
    store = Store(str(folder))
    rows: dict[str, list[dict[str, Any]]] = {stage: [] for stage in COLUMNS}
    for driver in ("smile", "turn"):
        rows["drive"].append({"driver_id": driver, "kind": "preset", "name": driver, "source_id": driver})
    for number in range(num_photos):
        name = HOSTILE_NAME if number == 0 else f"family {number:03d}.jpg"
        photo = {"photo_id": f"{number:016x}", "uri": f"/archive/{name}", "width": 640, "height": 480}
        rows["ingest"].append({**photo, "source_id": photo["uri"]})
        if number == num_photos - 1 and num_photos > 1:
            error = {"status": "no_face", "error_code": "no_face", "error_message": f"{name}: no face was found"}
            rows["align"].append({"portrait_id": None, "uri": photo["uri"], "source_id": photo["photo_id"], **error})
            continue
        for face in range(num_faces):
            _add_portrait(rows, photo, face, num_faces, random, store)
    for stage, stage_rows in rows.items():
        _write(store, stage, stage_rows)
    return str(folder)


def _add_portrait(
    rows: dict[str, list[dict[str, Any]]], photo: Mapping[str, Any], face: int, num_faces: int,
    random: np.random.Generator, store: Store,
) -> None:  # fmt: skip
    key = f"{photo['photo_id']}_{face}"
    tint = tuple(int(value) * 40 for value in random.integers(3, 6, 3))
    psnr, alike = float(random.normal(24, 2)), float(random.beta(12, 3))
    source = {"uri": photo["uri"], "face_index": face, "num_faces": num_faces, "source_id": photo["photo_id"]}
    fit = float(random.gamma(4, 0.005))
    rows["align"].append({"portrait_id": key, "crop": _webp(_face(tint)), "fit_residual": fit, **source})
    turned = np.concatenate([np.asarray(_face(tint, yaw=yaw, side=128)) for yaw in (-30, -15, 0, 15, 30)], axis=1)
    made = {"reconstruction": _webp(_face(tint, blur=True)), "turned": _webp(Image.fromarray(turned)), "psnr": psnr}
    rows["invert"].append({"portrait_id": key, "capsule": "invert/files/x", "ssim": 0.8, "source_id": key, **made})
    rows["evaluate"].append(_judged(key, "portrait", alike, psnr))
    for edit in ("none", "age", "smile"):
        edit_id = f"{key}.{edit}"
        image = _webp(_face(tint, mouth=0.4 if edit == "smile" else 0.0))
        rows["edit"].append({"edit_id": edit_id, "edit": edit, "strength": 1.0, "image": image, "source_id": key})
        for driver in ("smile", "turn"):
            clip_id, path = f"{edit_id}.{driver}", f"animate/files/preview/{edit_id}.{driver}.webp"
            store.write(path, _animation(tint, driver))
            clip = {"clip_id": clip_id, "clip": path, "preview": path, "num_frames": 8, "fps": 12.0, "render_fps": 3.0}
            rows["animate"].append({**clip, "source_id": clip_id})
            rows["evaluate"].append(_judged(clip_id, "clip", alike * 0.95, psnr - 1))


def _judged(subject_id: str, kind: str, alike: float, psnr: float) -> dict[str, Any]:
    is_good = alike > 0.65
    return {
        "subject_id": subject_id, "kind": kind, "identity_similarity": alike, "psnr": psnr, "ssim": 0.8,
        "yaw_error_deg": None if kind == "portrait" else 2.0 + alike, "expression_error": 0.1,
        "view_landmark_error": None if kind == "portrait" else 0.005,
        "view_psnr": None if kind == "portrait" else psnr + 5,
        "verdict": "accepted" if is_good else "rejected", "source_id": subject_id,
        "verdict_reason": "" if is_good else f"identity_similarity {alike:.2f} is below 0.65",
    }  # fmt: skip


def _write(store: Store, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    id_column, kinds = COLUMNS[stage]
    facts = {"status": "done", "error_code": "", "error_message": "", "fingerprint": "f", "run_seconds": 0.5,
             "code_version": "0.1.0+abc", "models": json.dumps(MODELS)}  # fmt: skip
    schema = build_schema(stage, id_column, [Column(name, kind, "") for name, kind in kinds.items()])
    write_table(store, manifest_path(stage), [to_table([{**facts, **row} for row in rows], schema)], schema)


def _face(
    tint: tuple[int, ...], yaw: float = 0.0, mouth: float = 0.0, side: int = 512, blur: bool = False
) -> Image.Image:
    ramp = np.linspace(0, 1, 64)[:, None, None]
    ground = (ramp * np.array([40, 60, 90]) + (1 - ramp) * np.array([140, 160, 190])).repeat(64, axis=1)
    image = Image.fromarray(ground.astype(np.uint8)).resize((512, 512))
    draw, shift = ImageDraw.Draw(image), yaw * 2.2
    draw.ellipse((136, 90, 376, 430), fill=tint)
    for x in (210, 302):
        draw.ellipse((x - 22 + shift, 220, x + 22 + shift, 250), fill=(250, 250, 250))
        draw.ellipse((x - 10 + shift, 224, x + 10 + shift, 246), fill=(50, 40, 30))
    draw.ellipse((206 + shift, 335 - 30 * mouth, 306 + shift, 355 + 60 * mouth), fill=(150, 50, 60))
    return (image.resize((64, 64)) if blur else image).resize((side, side), Image.Resampling.BICUBIC)


@cache
def _animation(tint: tuple[int, ...], driver: str) -> bytes:
    waves = np.sin(np.linspace(0, 2 * np.pi, 8, endpoint=False))
    frames = [_face(tint, yaw=25 * w if driver == "turn" else 0, mouth=max(w, 0), side=192) for w in waves]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], duration=83, loop=0, quality=80)
    return stream.getvalue()


def _webp(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=85)
    return stream.getvalue()
