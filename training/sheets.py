"""Pictures of a generator: heads turned, with expressions, with parts of their codes exchanged, and as normals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.rays import camera_rays
from galatea.morphable.head import HeadCoefficients
from training.head_images import HeadImages
from training.held_out import held_out_head, view
from training.reconstruction import save_picture

YAWS = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)
ACTIONS = ("jawOpen", "mouthSmile", "eyeBlink", "browInnerUp", "mouthPucker", "eyeLookIn", "mouthFrown", "cheekPuff")


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


def depth_normals(
    depth: Float[Tensor, "views 1 size size"],
    alpha: Float[Tensor, "views 1 size size"],
    camera: Float[Tensor, "views 25"],
) -> Float[Tensor, "views 3 size size"]:
    """Return normals of rendered depth as colours in [-1,1], in world axes; grey where little is opaque."""
    size = depth.shape[-1]
    rays = camera_rays(camera, size)
    points = rays.origins + depth.flatten(1)[..., None] * rays.directions
    points = F.avg_pool2d(points.transpose(1, 2).reshape(-1, 3, size, size), 3, 1, 1)
    across = F.pad(points[..., 2:] - points[..., :-2], (1, 1, 0, 0))
    down = F.pad(points[..., 2:, :] - points[..., :-2, :], (0, 0, 1, 1))
    normals = F.normalize(torch.cross(down, across, dim=1), dim=1)
    return torch.where(alpha > 0.5, normals, torch.zeros_like(normals))


@torch.no_grad()
def normals_sheet(generator: AnchoredGenerator, data: HeadImages, path: Path, num_heads: int = 3) -> None:
    """Write heads (rows) turned from -45 to 45 degrees (columns) as the normals of their rendered depth."""
    label = orbit(torch.tensor(YAWS), torch.zeros(len(YAWS)))
    rows = []
    for row in np.linspace(2, len(data) - 3, num_heads):
        ws, head = held_out_head(generator, data, int(row))
        rendering = generator.render(generator.planes(ws, head), label, ws)
        rows.append(depth_normals(rendering.depth, rendering.alpha, label))
    _write(rows, path)


def _write(rows: list[Tensor], path: Path) -> None:
    save_picture(torch.cat([torch.cat(list(row), 2) for row in rows], 1) * 0.5 + 0.5, path)
