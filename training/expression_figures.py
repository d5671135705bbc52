"""Does a rendering show the expression that was asked for? Coefficients are read again by fitting the head model."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.faces.packs import FacePack
from galatea.morphable.fitting import HeadFitter
from galatea.morphable.head import HeadCoefficients, HeadModel
from training.head_images import HeadImages
from training.held_out import held_out_head, view

NUM_ACTIONS = 20
LEVELS = (0.0, 0.45, 0.9)
RESOLUTION = 80
"""Of the volume rendering: landmarks need no more."""


def strongest_actions(model: HeadModel) -> Int[Tensor, "n"]:
    """Return the actions that move the head's skin farthest (sum of the distances of all vertices)."""
    order: Tensor = model.action_basis.norm(dim=-1).sum(1).argsort(descending=True)
    return order[:NUM_ACTIONS]


@torch.no_grad()
def expression_correlations(
    generator: AnchoredGenerator, data: HeadImages, pack: FacePack, num_heads: int
) -> dict[str, float]:
    """Return the correlation of asked and re-read coefficients of every strong action, one at a time on held-out heads.

    Identities are given to the fit; landmarks and the expression it starts from are the face pack's: what its reader
    does not see counts against the generator here.
    """
    fitter, model = HeadFitter(generator.mesh), generator.mesh
    actions = strongest_actions(model)
    asked = torch.tensor(LEVELS)
    read = torch.zeros(num_heads, len(actions), len(LEVELS))
    for index, row in enumerate(np.linspace(1, len(data) - 2, num_heads)):
        ws, head = held_out_head(generator, data, int(row))
        for place, action in enumerate(actions):
            read[index, place] = _read_again(generator, (pack, fitter), (ws, head.identity), int(action), asked)
    found = {}
    for place, action in enumerate(actions):
        both = torch.stack([asked.repeat(num_heads), read[:, place].flatten()])
        found[model.action_names[int(action)]] = float(torch.corrcoef(both)[0, 1].nan_to_num())
    return found


def _read_again(
    generator: AnchoredGenerator,
    readers: tuple[FacePack, HeadFitter],
    person: tuple[Tensor, Tensor],
    action: int,
    levels: Float[Tensor, "n"],
) -> Float[Tensor, "n"]:
    pack, fitter = readers
    ws, identity = person
    pictures = []
    for level in levels:
        expression = torch.zeros(1, generator.mesh.action_basis.shape[0])
        expression[0, action] = level
        pictures.append(view(generator, ws, HeadCoefficients(identity, expression), (0.0,), RESOLUTION))
    fit = fitter.fit(pack.landmarks(torch.cat(pictures)), identity)
    return fit.expression[:, action]
