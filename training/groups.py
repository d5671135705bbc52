"""How well a generator reproduces held-out heads of different people: by gender, age, origin and tone of skin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from training.head_images import HeadImages
from training.reconstruction import reconstruct

OLD, FEMALE = 0.88, 0.5
"""Codes of age and gender from which people count as old, and as women."""
DARK, LIGHT = 0.4, 0.62
"""Mean of the skin's colour (sRGB, 0..1) below and above which it counts as dark and as light."""
_LEAST_IMAGES = 4


def groups_of(codes: Float[Tensor, "n z"], fields: Mapping[str, tuple[int, int]]) -> dict[str, Bool[Tensor, "n"]]:
    """Return who belongs to which group."""

    def field(name: str) -> Float[Tensor, "n"]:
        return codes[:, slice(*fields[name])].mean(1)

    origins = ("african", "asian", "caucasian")
    largest = torch.stack([field(name) for name in origins]).argmax(0)
    tone = field("skin_color")
    return {
        "women": field("gender") > FEMALE,
        "men": field("gender") <= FEMALE,
        "old": field("age") > OLD,
        "not old": field("age") <= OLD,
        **{f"mostly {name}": largest == row for row, name in enumerate(origins)},
        "dark skin": tone < DARK,
        "medium skin": (tone >= DARK) & (tone <= LIGHT),
        "light skin": tone > LIGHT,
    }


def figures_by_group(generator: AnchoredGenerator, data: HeadImages, num_images: int) -> dict[str, dict[str, float]]:
    """Measure groups of held-out people.

    Returns:
        By group of at least four images: how many, PSNR (dB) over whole pictures, and the mean error of skin as a share
        of its brightness (decibels alone would favour dark pictures).
    """
    index = np.linspace(0, len(data) - 1, num_images).astype(int)
    found, truth, part = reconstruct(generator, data, index)
    error = (found[:, :3] - truth[:, :3]).square().mean((1, 2, 3))
    is_skin = (part == data.parts.index("skin"))[:, None].float()
    off = ((found[:, :3] - truth[:, :3]).abs() * is_skin).sum((1, 2, 3))
    share = off / (truth[:, :3] * is_skin).sum((1, 2, 3)).clamp_min(1e-6)
    figures = {}
    for name, chosen in groups_of(data.rows("code", index), data.fields).items():
        if int(chosen.sum()) >= _LEAST_IMAGES:
            psnr = float(-10 * torch.log10(error[chosen].mean()))
            figures[name] = {"images": int(chosen.sum()), "psnr": psnr, "skin_error": float(share[chosen].mean())}
    return figures
