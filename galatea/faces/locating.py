"""Which way round a picture is looked at to find its face: one look, and yet mirrored pictures have mirrored places.

The brighter half decides (a frame of Puny et al. 2022, "Frame Averaging for Invariant and Equivariant Network Design"):
pictures that are brighter on the right are looked at mirrored, and what is found is mirrored back. Where both halves
are about as bright, both ways round are looked at and mixed, so that nothing jumps when the light changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.faces.reader_network import FirstLook
from galatea.faces.second_look import mirrored_rotation, shortened

TIE = 0.1
"""Balances of brightness nearer to zero than this are no decision; no real photo of ours is, one in ten renders is."""


@dataclass(frozen=True)
class Place:
    """Where the first look finds a face in a region, as in `FirstReading`."""

    rotation: Float[Tensor, "batch 3 3"]
    centre: Float[Tensor, "batch 2"]
    log_scale: Float[Tensor, "batch"]


def straight_share(cuts: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch"]:
    """Return how much of each look is taken as it is (1: all), the rest mirrored; a mirrored picture has one minus it.

    Weights follow one period of a sine across and half a period down: the middle and the border hardly count.
    """
    size, half = cuts.shape[-1], cuts.shape[-1] // 2
    ticks = math.pi * (torch.arange(size, device=cuts.device, dtype=cuts.dtype) + 0.5) / size
    weight = torch.sin(ticks)[:, None] * torch.sin(2 * ticks[:half])
    # The difference of mirror images has exactly the other sign in the mirrored picture, whatever is rounded after it.
    brightness = cuts.mean(1)
    difference = weight * (brightness[..., :half] - brightness[..., size - half :].flip(2))
    balance = difference.sum((1, 2)) / difference.abs().sum((1, 2)).clamp_min(1e-6)
    return (0.5 + balance / (2 * TIE)).clamp(0, 1)


def locate(network: FirstLook, cuts: Float[Tensor, "batch 3 128 128"]) -> Place:
    """Return where faces are in cut regions."""
    share = straight_share(cuts)
    straight, mirrored = torch.nonzero(share > 0)[:, 0], torch.nonzero(share < 1)[:, 0]
    looks = torch.cat([cuts[straight], cuts[mirrored].flip(3)]).contiguous(memory_format=torch.channels_last)
    with shortened(looks):
        raw = network(looks)
    num, flip = len(straight), raw.centre.new_tensor([-1.0, 1.0])

    def mixed(there: Tensor, back: Tensor) -> Tensor:
        shape = (-1, *[1] * (there.ndim - 1))
        total = there.new_zeros(len(cuts), *there.shape[1:])
        total = total.index_add(0, straight, there * share[straight].view(shape))
        return total.index_add(0, mirrored, back * (1 - share[mirrored]).view(shape))

    return Place(
        mixed(raw.rotation[:num], mirrored_rotation(raw.rotation[num:])),
        mixed(raw.centre[:num] - 0.5, (raw.centre[num:] - 0.5) * flip) + 0.5,
        mixed(raw.log_scale[:num], raw.log_scale[num:]),
    )
