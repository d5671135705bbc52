"""Outlines at image size: where one surface ends in front of another, single rays of a small rendering draw stairs.

Rays through the final image's pixels along such outlines replace the enlarged rendering there; everywhere else it is
smooth, and enlarging it is as good.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from galatea.eg3d.ray_casting import RayCaster
from galatea.eg3d.rays import Rays

_ALPHA_JUMP = 0.7
"""Difference of opacity between neighbouring rays that makes an outline; that of hair is softer."""
_DEPTH_JUMP = 0.06
"""Difference of depth (world units, 2 cm on a real head) between neighbouring opaque rays that makes one."""


def find_outlines(
    alpha: Float[Tensor, "batch 1 size size"], depth: Float[Tensor, "batch 1 size size"]
) -> Bool[Tensor, "batch 1 size size"]:
    """Return the rays next to which opacity or depth jumps."""
    opaque = torch.where(alpha > 0.1, depth, depth.mean())
    return (_range(alpha) > _ALPHA_JUMP) | ((_range(opaque) > _DEPTH_JUMP) & (alpha > 0.1))


def refine_outlines(
    image: Float[Tensor, "batch 4 size size"],
    depth: Float[Tensor, "batch 1 size size"],
    is_outline: Bool[Tensor, "batch 1 rendered rendered"],
    caster: RayCaster,
    rays: Rays,
) -> tuple[Float[Tensor, "batch 4 size size"], Float[Tensor, "batch 1 size size"]]:
    """Cast the rays of all pixels on outlines.

    Args:
        image: enlarged rendering: colour times opacity, opacity.
        depth: enlarged depth.
        is_outline: at the size that was rendered.
        caster: renders rays.
        rays: of the image's pixels, row by row.

    Returns:
        Image and depth with these pixels replaced. All heads of a batch get as many rays as the one with most outlines.
    """
    batch, size = image.shape[0], image.shape[-1]
    wanted = F.interpolate(is_outline.float(), (size, size), mode="nearest").flatten(1)
    most = int(wanted.sum(1).amax())
    if not most:
        return image, depth
    chosen = wanted.topk(most, dim=1).indices.sort(dim=1).values
    head = torch.arange(batch, device=chosen.device)[:, None]
    values, alpha, along = caster.render_chunks(Rays(rays.origins[head, chosen], rays.directions[head, chosen]))

    def replaced(maps: Tensor, found: Tensor) -> Tensor:
        index = chosen[:, None].expand(-1, maps.shape[1], -1)
        return maps.flatten(2).scatter(2, index, found.transpose(1, 2).to(maps.dtype)).view_as(maps)

    return replaced(image, torch.cat([values[..., :3], alpha], -1)), replaced(depth, along)


def _range(maps: Float[Tensor, "batch 1 size size"]) -> Float[Tensor, "batch 1 size size"]:
    """Return the difference between the largest and the smallest of each pixel and its neighbours."""
    return F.max_pool2d(maps, 3, 1, 1) + F.max_pool2d(-maps, 3, 1, 1)
