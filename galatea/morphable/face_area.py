"""Which vertices of the head model are the face: the skin around the landmarks."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from galatea.morphable.correspondence import load_correspondence
from galatea.morphable.head import HeadModel

REACH = 0.02
"""The face: skin within so far (world units, 7 mm) of a landmark."""


def face_vertices(head: HeadModel, reach: float = REACH) -> Int[Tensor, "n"]:
    """Return the numbers of the vertices of the face, on the CPU: those within `reach` of a landmark.

    Raises:
        WeightsError: if the built-in correspondence is missing or damaged.
    """
    mean = head.mean.cpu()
    landmarks = load_correspondence().points(mean[None])[0]
    index = torch.unique(head.faces[head.part == head.part_names.index("skin")].cpu())
    near: Tensor = index[torch.cdist(mean[index], landmarks).amin(1) < reach]
    return near
