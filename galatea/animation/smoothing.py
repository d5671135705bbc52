"""Fill gaps of a tracked signal and take its jitter away."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


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
