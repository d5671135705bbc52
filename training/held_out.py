"""Held-out synthetic heads as a generator shows them: views, landmarks against the true pictures, identity."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.faces.packs import FacePack
from galatea.morphable.head import HeadCoefficients
from training.head_images import HeadImages
from training.reconstruction import BACKGROUND, reconstruct

EYES = (468, 473)
"""Landmarks of the two irises' centres."""


@torch.no_grad()
def view(
    generator: AnchoredGenerator,
    ws: Tensor,
    head: HeadCoefficients,
    yaws: tuple[float, ...],
    resolution: int | None = None,
) -> Float[Tensor, "views 3 size size"]:
    """Return views of one head on grey, [-1,1]."""
    label = orbit(torch.tensor(yaws), torch.zeros(len(yaws)))
    rendering = generator.render(generator.planes(ws, head), label, ws, resolution)
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
