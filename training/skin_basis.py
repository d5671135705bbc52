"""Starting point of the neural texture: MakeHuman's CC0 skins brought into the head's atlas, as mean and principal maps.

Training could find these maps from pictures alone; starting from them spends the compute on hair, light and eyes instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.carry import barycentric, winning_triangles
from galatea.morphable.head import HeadModel

_LIP_TEETH_COLOURS = {"teeth": (0.86, 0.82, 0.76), "tongue": (0.67, 0.36, 0.35), "mouth": (0.35, 0.13, 0.13)}
"""Colours (sRGB) to start parts from that the skins do not paint."""
_BLEED_STEPS = 6


def bake_atlas(
    model: HeadModel, images: dict[str, Float[Tensor, "3 height width"]], size: int
) -> tuple[Float[Tensor, "3 size size"], Tensor]:
    """Return a texture in the atlas and where it is painted, from textures of parts in MakeHuman's layout.

    Args:
        model: head model, for its two layouts.
        images: picture per part name, sRGB in [0,1]; parts that are not named stay empty.
        size: texels per side.
    """
    uv = model.uv.clone()
    points = torch.stack([uv[..., 0] * size - 0.5, (1 - uv[..., 1]) * size - 0.5], -1).view(1, -1, 2)
    corners = torch.arange(points.shape[1]).view(-1, 3)
    # The atlas may hold mirrored islands: offer every triangle in both turns.
    both = torch.cat([corners, corners[:, [0, 2, 1]]])
    triangle = winning_triangles(points, torch.zeros_like(points[..., 0]), both, (size, size))[0]
    rows, columns = (triangle >= 0).nonzero(as_tuple=True)
    which = triangle[rows, columns] % corners.shape[0]
    weights = torch.stack(barycentric(points[0].view(-1, 3, 2)[which], columns.float(), rows.float()), -1)
    source = (weights[..., None] * model.source_uv[which]).sum(1)
    atlas, painted = torch.zeros(3, size, size), torch.zeros(size, size, dtype=torch.bool)
    for name, image in images.items():
        chosen = model.part[which] == model.part_names.index(name)
        grid = torch.stack([source[chosen, 0] * 2 - 1, 1 - source[chosen, 1] * 2], -1)[None, None]
        grid = grid % 4 if False else grid
        atlas[:, rows[chosen], columns[chosen]] = F.grid_sample(
            image[None], grid, padding_mode="border", align_corners=False
        )[0, :, 0]
        painted[rows[chosen], columns[chosen]] = True
    return atlas, painted


def bleed(atlas: Float[Tensor, "3 size size"], painted: Tensor) -> Float[Tensor, "3 size size"]:
    """Continue painted texels outwards, so that reads at island borders are sound; the mean colour farther out."""
    mean = atlas[:, painted].mean(1)
    for _ in range(_BLEED_STEPS):
        count = F.avg_pool2d(painted[None, None].float(), 3, 1, 1)[0, 0]
        total = F.avg_pool2d((atlas * painted)[None], 3, 1, 1)[0]
        grown = count > 0
        atlas = torch.where(painted, atlas, total / count.clamp_min(1e-6))
        painted = painted | grown
    return torch.where(painted, atlas, mean[:, None, None])


def skin_atlases(model: HeadModel, assets: Path, size: int) -> Float[Tensor, "skins 3 size size"]:
    """Return every skin of MakeHuman's system assets in the atlas, with eyes, teeth, tongue and mouth."""
    eye = read_picture(assets / "eyes" / "materials" / "grey_eye.png")
    flat = {name: torch.tensor(colour).view(3, 1, 1).expand(3, 8, 8) for name, colour in _LIP_TEETH_COLOURS.items()}
    atlases = []
    for path in sorted((assets / "skins" / "textures").glob("*.png")):
        skin = read_picture(path)
        atlases.append(bleed(*bake_atlas(model, {"skin": skin, "socket": skin, "eye": eye} | flat, size)))
    return torch.stack(atlases)


def read_picture(path: Path) -> Float[Tensor, "3 height width"]:
    """Read a picture as sRGB in [0,1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"))).permute(2, 0, 1) / 255.0


def start_from_skins(generator: AnchoredGenerator, assets: Path) -> None:
    """Set mean and basis of the texture from the skins; basis maps beyond their number stay small and random."""
    atlases = skin_atlases(generator.mesh, assets, generator.config.texture_size)
    mean = atlases.mean(0)
    _, values, components = torch.linalg.svd((atlases - mean).flatten(1), full_matrices=False)
    count = min(generator.config.num_texture_maps - 4, atlases.shape[0] - 1)
    maps = components[:count] * values[:count, None] / atlases.shape[0] ** 0.5
    with torch.no_grad():
        generator.texture.mean.copy_(mean)
        generator.texture.basis[:count] = maps.view(count, *mean.shape)
        generator.texture.basis[count:] *= 0.5
