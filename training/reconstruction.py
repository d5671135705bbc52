"""How well a generator reconstructs held-out heads: figures and sheets of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.view_planes import SurfaceTables
from training.distribution import frechet_distance
from training.head_images import HeadImages

BACKGROUND = 0.72
"""Grey (sRGB) behind the heads of a sheet."""


@torch.no_grad()
def reconstruct(
    generator: AnchoredGenerator, data: HeadImages, index: np.ndarray, resolution: int = 128
) -> tuple[Float[Tensor, "n 4 r r"], Float[Tensor, "n 4 r r"], Tensor]:
    """Return rendered and true colour times opacity with opacity, and the parts, of images of a data set."""
    resolution = min(resolution, data.size)
    found = []
    for row in index:
        state = np.array([int(np.searchsorted(data.first, row, "right") - 1)])
        rows = np.array([row])
        ws = generator.mapping(data.rows("code", rows))
        planes = generator.view_planes(generator.paint(ws), data.cast(generator, state), ws[:, -1])
        rays = camera_rays(data.rows("camera", rows), resolution)
        values, alpha, _ = generator.ray_caster(SurfaceTables.of(planes)).render(rays)
        maps = torch.cat([values[..., :3], alpha], -1).transpose(1, 2)
        found.append(maps.reshape(1, 4, resolution, resolution))
    truth, part = data.target(index)
    stride = data.size // resolution
    return torch.cat(found), F.avg_pool2d(truth, stride), part[:, stride // 2 :: stride, stride // 2 :: stride]


def evaluate(generator: AnchoredGenerator, data: HeadImages, num_images: int) -> dict[str, float]:
    """Return PSNR (dB) over the image and by part, opacity error, Frechet distance, correlation in eyes and mouth."""
    index = np.linspace(0, len(data) - 1, num_images).astype(int)
    found, truth, part = reconstruct(generator, data, index)
    figures = {
        "psnr": _psnr(found[:, :3], truth[:, :3]),
        "alpha_error": float((found[:, 3] - truth[:, 3]).abs().mean()),
    }
    if num_images > 1:
        figures["frechet"] = frechet_distance(found[:, :3], truth[:, :3])
    for name in ("skin", "eyes", "mouth", "hair", "brows", "cloth"):
        mask = (part == data.parts.index(name))[:, None].expand(-1, 3, -1, -1)
        if mask.any():
            figures[f"{name}_psnr"] = _psnr(found[:, :3][mask], truth[:, :3][mask])
    for name in ("eyes", "mouth"):
        figures[f"{name}_correlation"] = _correlation(found, truth, part == data.parts.index(name))
    return figures


def _psnr(found: Tensor, truth: Tensor) -> float:
    return float(-10 * torch.log10((found - truth).square().mean().clamp_min(1e-8)))


def _correlation(found: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Return the mean over images of the correlation of luminance in a part."""
    scores = []
    for image, wanted, chosen in zip(found[:, :3].mean(1), truth[:, :3].mean(1), mask, strict=True):
        if int(chosen.sum()) >= 12:
            scores.append(float(torch.corrcoef(torch.stack([image[chosen], wanted[chosen]]))[0, 1]))
    return float(np.nanmean(scores)) if scores else float("nan")


def write_sheet(generator: AnchoredGenerator, data: HeadImages, path: Path, columns: int = 8) -> Path:
    """Write truth above reconstruction of images spread over the data set."""
    index = np.linspace(1, len(data) - 2, 2 * columns).astype(int)
    found, truth, _ = reconstruct(generator, data, index)
    rows = []
    for start in range(0, len(index), columns):
        for maps in (truth, found):
            shown = maps[start : start + columns]
            shown = shown[:, :3] + BACKGROUND * (1 - shown[:, 3:])
            rows.append(torch.cat(list(shown), 2))
    save_picture(torch.cat(rows, 1), path)
    return path


def save_picture(image: Float[Tensor, "3 height width"], path: Path) -> None:
    """Write an image of [0,1] as PNG."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)
