"""What training minimises: differences from pictures, and from what is known of heads without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.head_cast import HeadCast
from galatea.eg3d.lighting import falling_light
from galatea.eg3d.view_planes import SurfaceTables
from training.hair_volumes import HairVolumes
from training.head_images import PATCH, HeadImages, PatchBatch
from training.reflectance import HeadReflectance, lamps
from training.training_config import TrainingConfig

KNOWN_ATLAS_SIZE = 64


def weighted_sum(terms: dict[str, Tensor], config: TrainingConfig) -> dict[str, Tensor]:
    """Return the terms with their weighted sum as `total`."""
    factors = {
        "colour": 1.0,
        "alpha": config.alpha_weight,
        "edge": config.edge_weight,
        "hair": config.hair_weight,
        "hair_colour": 0.5 * config.hair_weight,
        "reflectance": config.reflectance_weight,
        "adversarial": config.adversarial_weight,
    }
    return terms | {"total": torch.stack([factors[name] * value for name, value in terms.items()]).sum()}


def picture_losses(
    values: Float[Tensor, "heads rays channels"],
    alpha: Float[Tensor, "heads rays 1"],
    batch: PatchBatch,
    detail: tuple[Sequence[int], float],
) -> dict[str, Tensor]:
    """Return the losses of rendered patches against pictures.

    Args:
        values: colour times opacity along the batch's rays, and features.
        alpha: opacity.
        batch: the pictures' patches.
        detail: part ids that count more, and how much (1 elsewhere).
    """
    colour, opacity = as_patches(values[..., :3]), as_patches(alpha)
    parts, factor = detail
    weight = torch.isin(batch.part, batch.part.new_tensor(list(parts)))[:, None].float()
    weight = 1 + (factor - 1) * F.max_pool2d(weight, 3, 1, 1)
    weight = weight / weight.mean()
    error = (colour - batch.colour).abs()
    return {
        "colour": (weight * (error + 2 * error.square())).mean(),
        "alpha": (opacity - batch.alpha).abs().mean() + (opacity - batch.alpha).square().mean(),
        "edge": _edge_error(colour, batch.colour, weight),
    }


class KnownHeads:
    """What is known of heads without pictures: where hair is and its colour, what eyes and clothes look like.

    Args:
        generator: for its box, its head model and the average skull.
        assets: folder of MakeHuman's system assets.
        data: for the fields of codes.
        noise: draws points.
    """

    def __init__(self, generator: AnchoredGenerator, assets: Path, data: HeadImages, noise: torch.Generator) -> None:
        self.hair = HairVolumes(generator, assets)
        self.reflectance = HeadReflectance(generator.mesh, assets, KNOWN_ATLAS_SIZE, data.fields)
        self.fields, self.noise = data.fields, noise

    def losses(
        self,
        generator: AnchoredGenerator,
        tables: SurfaceTables,
        head: tuple[Tensor, Tensor, HeadCast],
        num_points: int,
    ) -> dict[str, Tensor]:
        """Return the losses.

        Args:
            generator: whose decoder reads the planes.
            tables: planes of the heads.
            head: their painted reflectance, codes and casts.
            num_points: points per head for the hair's density.
        """
        reflectance, codes, cast = head
        style, colour = (codes[:, slice(*self.fields[name])] for name in ("hair_style", "hair_color"))
        points = self.hair.sample(generator, cast, style.argmax(1), num_points, self.noise)
        outwards = F.normalize((points[0] - cast.skull[:, None, :, 0]) / cast.skull[:, None, :, 1], dim=-1)
        lit = colour[:, None] * falling_light(lamps(codes, self.fields), outwards)
        hair, hair_colour = self.hair.loss(generator, tables, points, lit)
        found = F.avg_pool2d(reflectance, reflectance.shape[-1] // self.reflectance.size)
        wanted = torch.stack([self.reflectance.atlas(code) for code in codes.cpu()]).to(found)
        mask = self.reflectance.is_certain.to(found)
        return {
            "hair": hair,
            "hair_colour": hair_colour,
            "reflectance": ((found - wanted).abs() * mask).sum() / (3 * len(codes) * mask.sum()),
        }


def as_patches(values: Float[Tensor, "heads rays channels"]) -> Float[Tensor, "heads_views channels patch patch"]:
    """Return what rays show as pictures."""
    return values.reshape(-1, PATCH, PATCH, values.shape[-1]).permute(0, 3, 1, 2)


def _edge_error(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the mean weighted error of differences between neighbours along both axes."""
    across = (torch.diff(found, dim=3) - torch.diff(wanted, dim=3)).abs() * weight[..., 1:]
    down = (torch.diff(found, dim=2) - torch.diff(wanted, dim=2)).abs() * weight[:, :, 1:]
    return across.mean() + down.mean()
