"""How well a generator reproduces real photos: inverted with the product's settings, seen from the front and turned."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.posing import own_angles, turned_camera
from galatea.errors import RecordError
from galatea.faces.packs import FacePack
from galatea.inversion.binding import full_maps
from galatea.inversion.inverting import GeneratorIdentity, Inversion, invert
from galatea.inversion.objective import shown
from galatea.inversion.projector import latent_statistics
from galatea.inversion.target import InversionTarget
from stages.align import AlignConfig, AlignStage
from stages.invert import InvertConfig, decode_portraits, make_target
from training.reconstruction import BACKGROUND, save_picture
from training.sheets import depth_normals

logger = logging.getLogger(__name__)
TURNS = (-30.0, -20.0, 0.0, 20.0, 30.0)
"""Degrees away from the photo's own view."""


def photo_figures(
    generator: AnchoredGenerator, pack: FacePack, folder: Path, config: InvertConfig, sheet: Path
) -> dict[str, dict[str, float]]:
    """Invert every photo of a folder.

    Writes rows of photo, views at `TURNS` and the normals of the last one to `sheet`.

    Returns:
        By file name: PSNR in the face, dlib distance to the photo at each turn, processor seconds.
    """
    statistics = latent_statistics(generator, config.num_candidates)
    figures, rows = {}, []
    for name, target in _targets(generator, folder):
        started = time.process_time()
        inversion = invert(generator, GeneratorIdentity("evaluated", ""), target, statistics, config.method())
        seconds = time.process_time() - started
        pictures, normals = _turned(generator, inversion, target)
        photo = _on_grey(target.image * 0.5 + 0.5, target.matte) * 2 - 1
        embeddings = pack.embed(torch.cat([photo, *pictures]).clamp(-1, 1))
        distances = (embeddings[1:] - embeddings[:1]).norm(dim=-1).tolist()
        figures[name] = {"psnr": float(inversion.psnr[0]), "seconds": seconds}
        figures[name] |= {f"distance_{turn:+.0f}": value for turn, value in zip(TURNS, distances, strict=True)}
        logger.info("%s: %s", name, " ".join(f"{key} {value:.3f}" for key, value in figures[name].items()))
        rows.append(torch.cat([*(image[0] for image in (photo, *pictures)), normals[0]], 2))
    save_picture(torch.cat(rows, 1) * 0.5 + 0.5, sheet)
    return figures


def _targets(generator: AnchoredGenerator, folder: Path) -> Iterator[tuple[str, InversionTarget]]:
    """Yield the largest usable face of every photo."""
    stage = AlignStage(AlignConfig(max_faces=1))
    stage.setup(torch.device("cpu"))
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")):
        record = {"photo_id": path.stem, "uri": str(path), "photo": path.read_bytes()}
        try:
            portrait = stage.process([record])[0][0]
        except RecordError as error:
            logger.info("%s: %s", path.name, error)
            continue
        if portrait["is_usable"]:
            yield path.name, make_target(decode_portraits([portrait], torch.device("cpu")), generator)


@torch.no_grad()
def _turned(generator: AnchoredGenerator, inversion: Inversion, target: InversionTarget) -> tuple[list[Tensor], Tensor]:
    """Return the portrait at every turn on grey, and the normals of the last."""
    capsule = inversion.capsules[0]
    own, ws = own_angles(capsule.camera[None]), capsule.w_plus[None]
    residuals = full_maps(generator, {name: value[None] for name, value in capsule.residuals.items()})
    planes = generator.planes(ws, target.head, residuals)
    cameras = [turned_camera(capsule.camera[None], own + own.new_tensor([turn, 0, 0])) for turn in TURNS]
    renderings = [generator.render(planes, camera, ws) for camera in cameras]
    grey = torch.full_like(target.image, BACKGROUND * 2 - 1)
    normals = depth_normals(renderings[-1].depth, renderings[-1].alpha, cameras[-1])
    enlarged = torch.nn.functional.interpolate(normals, grey.shape[-2:])
    return [shown(rendering, grey) for rendering in renderings], enlarged


def _on_grey(image: Tensor, matte: Tensor) -> Tensor:
    return image * matte + BACKGROUND * (1 - matte)
