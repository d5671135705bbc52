"""Was done what was asked: landmarks, head angles and expression read back from rendered frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RIGHT_IRIS, LEFT_IRIS = 468, 473
"""Centres of the irises among the 478 landmarks of a face mesh with irises (MediaPipe's order)."""
NUM_LANDMARKS = 478


def inter_pupil_distance(landmarks: Float[Tensor, "batch 478 2"]) -> Float[Tensor, "batch"]:
    """Return the distance between the iris centres, in the landmarks' unit.

    Raises:
        ValueError: if the landmarks are not 478 per face.
    """
    if landmarks.shape[-2:] != (NUM_LANDMARKS, 2):
        raise ValueError(f"landmarks: expected (batch, {NUM_LANDMARKS}, 2), got {tuple(landmarks.shape)}")
    distance: Tensor = (landmarks[:, RIGHT_IRIS] - landmarks[:, LEFT_IRIS]).norm(dim=-1)
    return distance


def landmark_error(
    landmarks: Float[Tensor, "batch 478 2"], reference: Float[Tensor, "batch 478 2"]
) -> Float[Tensor, "batch"]:
    """Return the median distance between landmarks, in inter-pupil distances of the reference.

    The median and not the mean: a mesh model misplaces a few landmarks (temples, jaw) by much more than it reads the
    rest.
    """
    distance = (landmarks - reference).norm(dim=-1)
    error: Tensor = distance.median(dim=1).values / inter_pupil_distance(reference).clamp_min(1e-6)
    return error


def angle_error_deg(achieved: Float[Tensor, "frames"], asked: Float[Tensor, "frames"]) -> Float[Tensor, ""]:
    """Return the mean absolute difference of angles in degrees, the short way around."""
    difference = torch.remainder(achieved - asked + 180, 360) - 180
    return difference.abs().mean()


def expression_error(
    achieved: Float[Tensor, "frames actions"], asked: Float[Tensor, "frames actions"]
) -> Float[Tensor, ""]:
    """Return the mean absolute difference of coefficients over those that are asked for in at least one frame.

    Averaging over all 52 would hide a missed smile behind fifty actions that rest. With nothing asked, all count.
    """
    is_asked = (asked > 0.05).any(0)
    if not bool(is_asked.any()):
        is_asked = torch.ones_like(is_asked)
    return (achieved - asked)[:, is_asked].abs().mean()


def expression_correlation(
    achieved: Float[Tensor, "frames actions"], asked: Float[Tensor, "frames actions"]
) -> Float[Tensor, ""]:
    """Return the correlation of asked and achieved coefficients over time, averaged over actions that move.

    Returns NaN where nothing moves.
    """
    moves = asked.std(0, unbiased=False) > 0.02
    if not bool(moves.any()):
        return asked.new_tensor(float("nan"))
    ours = achieved[:, moves] - achieved[:, moves].mean(0)
    theirs = asked[:, moves] - asked[:, moves].mean(0)
    correlation: Tensor = ((ours * theirs).sum(0) / (ours.norm(dim=0) * theirs.norm(dim=0)).clamp_min(1e-6)).mean()
    return correlation
