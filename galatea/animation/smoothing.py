"""Fill gaps of a tracked signal and take its jitter away, but not its blinks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

JITTERS, MIN_BOUND = 4.0, 0.02
"""Differences of so many standard deviations of the jitter are half motion, half jitter; the least such difference."""


def fill_gaps(values: Float[Tensor, "frames n"], is_valid: Bool[Tensor, "frames"]) -> Float[Tensor, "frames n"]:
    """Interpolate linearly over frames that are not valid; before the first and after the last valid one, hold it.

    Raises:
        ValueError: if no frame is valid.
    """
    if not bool(is_valid.any()):
        raise ValueError("fill_gaps: expected at least one valid frame, got none")
    times = torch.arange(values.shape[0], dtype=values.dtype)
    known = torch.nonzero(is_valid)[:, 0]
    after = torch.searchsorted(known, torch.arange(values.shape[0])).clamp(max=len(known) - 1)
    before = torch.where(known[after] > times, after - 1, after).clamp(min=0)
    start, end = known[before], known[after]
    share = ((times - start) / (end - start).clamp(min=1)).clamp(0, 1)[:, None]
    return values[start] * (1 - share) + values[end] * share


def steadied(
    values: Float[Tensor, "frames n"], fps: float, min_cutoff_hz: float = 1.5, beta: float = 0.5
) -> Float[Tensor, "frames n"]:
    """Smooth, but keep what is over in a few frames and yet no jitter, as blinks are.

    What `one_euro` takes away comes back as far as it exceeds each column's own jitter, as Wiener's filter would weigh
    it: `r^2 / (r^2 + t^2)` of a difference r comes back, t being `JITTERS` standard deviations of the jitter.
    """
    smooth = one_euro(values, fps, min_cutoff_hz, beta)
    taken = (values - smooth).square()
    bound = (JITTERS * jitter(values)).clamp_min(MIN_BOUND).square()
    return smooth + (values - smooth) * taken / (taken + bound)


def jitter(values: Float[Tensor, "frames n"]) -> Float[Tensor, "n"]:
    """Return the standard deviation of each column's noise, from the median of its second differences.

    Motion is smooth in most frames, so that of the second differences mostly noise remains; blinks are too few to
    count. Clips of fewer than three frames have none.
    """
    if len(values) < 3:
        return values.new_zeros(values.shape[1])
    second = values[2:] - 2 * values[1:-1] + values[:-2]
    return second.abs().median(0).values / (math.sqrt(6) * 0.6745)


def one_euro(
    values: Float[Tensor, "frames n"], fps: float, min_cutoff_hz: float = 1.5, beta: float = 0.5
) -> Float[Tensor, "frames n"]:
    """Smooth with the One-Euro filter (Casiez et al. 2012, CHI), run forward and backward so that nothing lags.

    Slow parts are smoothed strongly (`min_cutoff_hz`), fast ones let through: the cut-off rises by `beta` Hz for each
    unit per second of speed. Scale the signal so that its full range is about one.
    """
    forward = _one_euro_pass(values, fps, min_cutoff_hz, beta)
    backward = _one_euro_pass(values.flip(0), fps, min_cutoff_hz, beta).flip(0)
    return (forward + backward) / 2


def _one_euro_pass(values: Tensor, fps: float, min_cutoff_hz: float, beta: float) -> Tensor:
    def share(cutoff_hz: Tensor | float) -> Tensor:
        return 1 / (1 + fps / (2 * math.pi * torch.as_tensor(cutoff_hz)))

    smooth, speed = values[0], torch.zeros_like(values[0])
    result = [smooth]
    for value in values[1:]:
        speed = torch.lerp(speed, (value - smooth) * fps, share(1.0).to(values.dtype))
        smooth = torch.lerp(smooth, value, share(min_cutoff_hz + beta * speed.abs()))
        result.append(smooth)
    return torch.stack(result)
