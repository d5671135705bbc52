"""Command: measure a generator on held-out synthetic heads and write picture sheets.

`python -m training.evaluate_generator --generator builtin --holdout DIR --out DIR`

Prints and writes `figures.json`: reconstruction (PSNR over the image and by part, opacity, correlation in eyes and
mouth), landmarks (the open pack's on rendering and truth, share of the inter-pupil distance), identity (dlib distance
between views of one head, and between heads); and pictures: `holdout.png`, `views.png`, `expressions.png`,
`semantics.png`.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.checkpoint import load_generator
from galatea.errors import ConfigError
from galatea.faces.packs import FacePack, open_pack
from galatea.morphable.head import HeadCoefficients
from training.head_images import HeadImages
from training.reconstruction import BACKGROUND, evaluate, reconstruct, save_picture, write_sheet

logger = logging.getLogger(__name__)
YAWS = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)
ACTIONS = ("jawOpen", "mouthSmile", "eyeBlink", "browInnerUp", "mouthPucker", "eyeLookIn", "mouthFrown", "cheekPuff")
EYES = (468, 473)
"""Landmarks of the two irises' centres."""


@torch.no_grad()
def view(
    generator: AnchoredGenerator, ws: Tensor, head: HeadCoefficients, yaws: tuple[float, ...]
) -> Float[Tensor, "views 3 size size"]:
    """Return views of one head on grey, [-1,1]."""
    label = orbit(torch.tensor(yaws), torch.zeros(len(yaws)))
    rendering = generator.render(generator.planes(ws, head), label, ws)
    alpha = rendering.image_alpha if rendering.image_alpha is not None else rendering.alpha
    return rendering.image * alpha + (BACKGROUND * 2 - 1) * (1 - alpha)


def held_out_head(generator: AnchoredGenerator, data: HeadImages, row: int) -> tuple[Tensor, HeadCoefficients]:
    """Return `w_plus` and coefficients of a held-out head."""
    index = np.array([row])
    head = HeadCoefficients(data.rows("identity", index), data.rows("expression", index))
    return generator.mapping(data.rows("code", index)), head


@torch.no_grad()
def landmark_error(generator: AnchoredGenerator, data: HeadImages, pack: FacePack, num_images: int) -> dict[str, float]:
    """Return how far the reader's landmarks of renderings are from those of the true pictures, share of IPD."""
    index = np.linspace(0, len(data) - 1, num_images).astype(int)
    found, truth, _ = reconstruct(generator, data, index)
    pictures = [F.interpolate(_on_grey(maps), (256, 256), mode="bicubic") for maps in (found, truth)]
    both = [pack.landmarks(picture) for picture in pictures]
    ipd = (both[1].points[:, EYES[0]] - both[1].points[:, EYES[1]]).norm(dim=-1)
    error = (both[0].points - both[1].points).norm(dim=-1).median(1).values / ipd
    sure = torch.stack([found.confidence for found in both]).amin(0) > 0.5
    return {"landmark_error": float(error[sure].median()), "share_with_face": float(sure.float().mean())}


@torch.no_grad()
def identity_distances(
    generator: AnchoredGenerator, data: HeadImages, pack: FacePack, num_heads: int
) -> dict[str, float]:
    """Return dlib distances between views of a head (frontal against +-30 degrees), and between heads."""
    rows = np.linspace(0, len(data) - 1, num_heads).astype(int)
    embeddings = []
    for row in rows:
        ws, head = held_out_head(generator, data, int(row))
        rest = HeadCoefficients(head.identity, torch.zeros_like(head.expression))
        embeddings.append(pack.embed(view(generator, ws, rest, (-30.0, 0.0, 30.0))))
    table = torch.stack(embeddings)
    turned = (table[:, [0, 2]] - table[:, 1:2]).norm(dim=-1)
    between = torch.pdist(table[:, 1])
    return {"identity_turned": float(turned.mean()), "identity_between": float(between.mean())}


def _on_grey(maps: Float[Tensor, "n 4 size size"]) -> Float[Tensor, "n 3 size size"]:
    return (maps[:, :3] + BACKGROUND * (1 - maps[:, 3:])) * 2 - 1


def views_sheet(generator: AnchoredGenerator, data: HeadImages, path: Path, num_heads: int = 5) -> None:
    """Write heads (rows) turned from -45 to 45 degrees (columns)."""
    rows = [
        view(generator, *held_out_head(generator, data, int(row)), YAWS)
        for row in np.linspace(2, len(data) - 3, num_heads)
    ]
    _write(rows, path)


def expressions_sheet(generator: AnchoredGenerator, data: HeadImages, path: Path, num_heads: int = 3) -> None:
    """Write heads (rows) at rest and with single actions (columns)."""
    names = generator.mesh.action_names
    sheet = []
    for row in np.linspace(5, len(data) - 6, num_heads):
        ws, head = held_out_head(generator, data, int(row))
        pictures = [view(generator, ws, HeadCoefficients(head.identity, torch.zeros(1, 52)), (0.0,))]
        for action in ACTIONS:
            expression = torch.tensor([[float(name in (action, f"{action}Left", f"{action}Right")) for name in names]])
            pictures.append(view(generator, ws, HeadCoefficients(head.identity, 0.8 * expression), (0.0,)))
        sheet.append(torch.cat(pictures))
    _write(sheet, path)


def semantics_sheet(generator: AnchoredGenerator, data: HeadImages, path: Path) -> None:
    """Write one head with fields of its code exchanged for other heads' (columns), one field a row."""
    rows = np.linspace(3, len(data) - 4, 6).astype(int)
    codes = data.rows("code", rows)
    head = HeadCoefficients(data.rows("identity", rows[:1]), torch.zeros(1, 52))
    sheet = []
    for fields in (("skin_color", "skin_texture"), ("hair_style", "hair_color"), ("light_direction", "light_color")):
        changed = codes[:1].repeat(len(codes), 1)
        for field in fields:
            place = generator.code_fields[field]
            changed[:, place] = codes[:, place]
        sheet.append(torch.cat([view(generator, generator.mapping(code[None]), head, (15.0,)) for code in changed]))
    _write(sheet, path)


def _write(rows: list[Tensor], path: Path) -> None:
    save_picture(torch.cat([torch.cat(list(row), 2) for row in rows], 1) * 0.5 + 0.5, path)


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, measure, write; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Measure a generator on held-out synthetic heads.")
    parser.add_argument("--generator", default="builtin", help="'builtin' or the path of a checkpoint")
    parser.add_argument("--holdout", type=Path, required=True, help="folder of held-out shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of figures and pictures")
    parser.add_argument("--images", type=int, default=32, help="images that are measured")
    options = parser.parse_args(arguments)
    generator = load_generator(options.generator)
    if not isinstance(generator, AnchoredGenerator):
        raise ConfigError(f"generator: expected an anchored one, got {options.generator}")
    options.out.mkdir(parents=True, exist_ok=True)
    data, pack = HeadImages(options.holdout, limit=512), open_pack()
    figures = {"sha256": generator.sha256, "images": options.images, **evaluate(generator, data, options.images)}
    figures |= landmark_error(generator, data, pack, options.images)
    figures |= identity_distances(generator, data, pack, max(2, options.images // 4))
    for name, value in figures.items():
        logger.info("%s: %s", name, f"{value:.4f}" if isinstance(value, float) else value)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_sheet(generator, data, options.out / "holdout.png")
    views_sheet(generator, data, options.out / "views.png")
    expressions_sheet(generator, data, options.out / "expressions.png")
    semantics_sheet(generator, data, options.out / "semantics.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
