"""What lies behind a person: the hole is filled with pieces of the background that the photo does show.

Patches around the hole are continued by the most similar ones elsewhere, coarse to fine, until all overlapping ones
agree (Wexler et al. 2007, "Space-Time Completion of Video"). On coarse grids all pairs of patches can be compared, so
that no random search (PatchMatch) is needed and results are the same everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.seen_surface import box_blurred, fill_unseen

_GRIDS = (32, 64, 128)
_ROUNDS = (10, 4, 1)
"""Sizes of the grids, and on each the rounds of finding similar patches and averaging what they propose."""
_PATCH = 5
_NEARNESS = 0.1
"""Price of taking a patch from elsewhere: squared colour difference for a distance of the picture's side."""
_TRUST = 0.6
"""Each cell farther from what is known, a pixel counts so many times as much: what is continued grows inwards."""
_LEAST_TRUST, _SURE = 1e-3, 0.02
_FEW = 16
"""Fewer patches without a hole than these are too little to continue from: a finer grid may have more of them."""
_QUERIES = 2048
"""Patches that are compared at once."""


@torch.no_grad()
def fill_background(
    photo: Float[Tensor, "batch 3 size size"], hole: Float[Tensor, "batch 1 size size"]
) -> Float[Tensor, "batch 3 size size"]:
    """Return the photo with its hole (1) filled; deterministic.

    Args:
        photo: 0..1.
        hole: 1 where the photo is not to be used.
    """
    smooth = fill_unseen(photo, 1 - hole)
    single = (torch.split(maps, 1) for maps in (photo, hole, smooth))
    return torch.cat([_filled(*one) for one in zip(*single, strict=True)])


def _filled(photo: Tensor, hole: Tensor, smooth: Tensor) -> Float[Tensor, "1 3 size size"]:
    size = photo.shape[-1]
    grids = [grid for grid in _GRIDS if grid <= size]
    guess, is_hole, shift = smooth, hole, None
    for grid, rounds in zip(grids, _ROUNDS, strict=False):
        known = F.interpolate(photo, (grid, grid), mode="area")
        is_hole = (F.interpolate(hole, (grid, grid), mode="area") > 0.02).to(photo.dtype)
        guess = known * (1 - is_hole) + is_hole * F.interpolate(guess, (grid, grid), mode="bilinear")
        trust = _trust(is_hole)
        for _ in range(rounds):
            found = _nearest(guess, is_hole, trust)
            if found is None:
                break
            shift = found
            guess = known * (1 - is_hole) + is_hole * _voted(guess, shift, trust)
    if shift is None:
        return photo * (1 - hole) + smooth * hole
    copied = photo * (1 - hole) + hole * _copied(photo, smooth, hole, shift)
    # Far from what is known a continuation is a guess: its edges are softened.
    sure = F.interpolate(_trust(is_hole).clamp_min(_SURE).sqrt(), photo.shape[-2:], mode="bilinear")
    return torch.where(hole > 0, torch.lerp(box_blurred(copied, size // 40), copied, sure), photo)


def _trust(is_hole: Float[Tensor, "1 1 g g"]) -> Float[Tensor, "1 1 g g"]:
    """Return 1 outside the hole, less and less towards its middle."""
    trust, inside = torch.ones_like(is_hole), is_hole
    while bool(inside.any()) and float(trust.min()) > _LEAST_TRUST:
        trust = torch.where(inside > 0, trust * _TRUST, trust)
        inside = -F.max_pool2d(-inside, 3, 1, 1)
    return trust


def _nearest(
    guess: Float[Tensor, "1 3 g g"], is_hole: Float[Tensor, "1 1 g g"], trust: Float[Tensor, "1 1 g g"]
) -> Int[Tensor, "2 g g"] | None:
    """Return from how many rows and columns away each patch that touches the hole is best taken; None: nowhere."""
    grid = guess.shape[-1]
    patches = F.unfold(guess, _PATCH, padding=_PATCH // 2)[0].T
    weight = F.unfold(trust, _PATCH, padding=_PATCH // 2)[0].T.repeat(1, 3)
    touched = F.max_pool2d(is_hole, _PATCH, 1, _PATCH // 2).flatten() > 0
    ticks = torch.arange(grid, device=guess.device)
    row, column = (axis.flatten() for axis in torch.meshgrid(ticks, ticks, indexing="ij"))
    border = _PATCH // 2
    is_inner = torch.stack([row, column, grid - 1 - row, grid - 1 - column]).amin(0) >= border
    source, query = (~touched & is_inner).nonzero()[:, 0], touched.nonzero()[:, 0]
    if len(source) < _FEW:
        return None
    values = patches[source]
    place = torch.stack([row, column], 1).to(guess.dtype) / grid
    chosen = []
    for some in torch.split(query, _QUERIES):
        own, share = patches[some], weight[some] / weight[some].sum(1, keepdim=True)
        cost = share @ values.square().T - 2 * (share * own) @ values.T
        cost = cost + _NEARNESS * torch.cdist(place[some], place[source]).square()
        chosen.append(source[cost.argmin(1)])
    best = torch.cat(chosen) if chosen else query
    shift = torch.zeros(2, grid * grid, dtype=torch.long, device=guess.device)
    shift[0, query], shift[1, query] = row[best] - row[query], column[best] - column[query]
    return shift.view(2, grid, grid)


def _voted(
    guess: Float[Tensor, "1 3 g g"], shift: Int[Tensor, "2 g g"], trust: Float[Tensor, "1 1 g g"]
) -> Float[Tensor, "1 3 g g"]:
    """Return the mean of what all patches over a pixel propose for it; those nearer to what is known count more."""
    grid, border = guess.shape[-1], _PATCH // 2
    ticks = torch.arange(grid, device=guess.device)
    row, column = torch.meshgrid(ticks, ticks, indexing="ij")
    total, sum_of_weights = torch.zeros_like(guess[0]), torch.zeros_like(guess[0, :1])
    for down in range(-border, border + 1):
        for right in range(-border, border + 1):
            moved = shift.roll((down, right), (1, 2))
            rows, columns = (row + moved[0]).clamp(0, grid - 1), (column + moved[1]).clamp(0, grid - 1)
            weight = trust[0].roll((down, right), (1, 2))
            total += weight * guess[0, :, rows, columns]
            sum_of_weights += weight
    return (total / sum_of_weights)[None]


def _copied(photo: Tensor, smooth: Tensor, hole: Tensor, shift: Int[Tensor, "2 g g"]) -> Float[Tensor, "1 3 size size"]:
    """Return pixels copied over the shifts of the nearest four cells of the grid, blended."""
    size, grid = photo.shape[-1], shift.shape[-1]
    known = torch.cat([photo * (1 - hole), 1 - hole], 1)
    centres = (torch.arange(size, device=photo.device, dtype=photo.dtype) + 0.5) / size
    place = (centres * grid - 0.5).clamp(0, grid - 1)
    low = place.floor().long().clamp(max=grid - 2)
    part = place - low
    total = torch.zeros_like(known)
    for down in (0, 1):
        for right in (0, 1):
            cell = shift[:, (low + down)[:, None], (low + right)[None]].to(photo.dtype) / grid
            source = torch.stack([centres[None] + cell[1], centres[:, None] + cell[0]], -1) * 2 - 1
            share = (part if down else 1 - part)[:, None] * (part if right else 1 - part)[None]
            total += share * F.grid_sample(known, source[None], align_corners=False, padding_mode="border")
    return total[:, :3] / total[:, 3:].clamp_min(1e-3) * (total[:, 3:] > 0.05) + smooth * (total[:, 3:] <= 0.05)
