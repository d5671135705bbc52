"""What the reader's figures count."""

import numpy as np
import torch

from galatea.morphable.actions import ACTION_INDEX
from training.heads.renderer import PARTS
from training.reader.evaluate_renders import INNER_BROWS, action_figures, covered_points

BROWS = ACTION_INDEX["browInnerUp"]


def test_points_under_hair_and_beyond_the_outline_are_covered() -> None:
    points = torch.full((1, 478, 2), 0.9)
    points[0, 0], points[0, 1] = torch.tensor([0.1, 0.1]), torch.tensor([0.1, 0.9])
    parts = np.full((1, 10, 10), PARTS.index("skin"), np.uint8)
    parts[0, 1, 1], parts[0, 9, 1] = PARTS.index("hair"), PARTS.index("background")
    assert covered_points(points, parts)[0].nonzero().flatten().tolist() == [0, 1]


def test_brows_under_hair_count_among_all_but_not_among_those_in_sight() -> None:
    true, covered = torch.zeros(6, 52), torch.zeros(6, 478, dtype=torch.bool)
    true[:, BROWS] = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0, 0.9])
    read = true.clone()
    read[4:, BROWS], covered[4:, INNER_BROWS[0]] = 0.0, True
    figures = action_figures(read, true, covered)
    assert figures["browInnerUp_correlation"] < 0.5
    assert figures["browInnerUp_correlation_in_sight"] > 0.999


def test_shut_eyes_do_not_count_for_the_gaze() -> None:
    true = torch.zeros(4, 52)
    for side in ("Left", "Right"):
        true[:, ACTION_INDEX[f"eyeLookUp{side}"]] = torch.tensor([0.0, 0.4, 0.8, 1.0])
        true[3, ACTION_INDEX[f"eyeBlink{side}"]] = 1.0
    read = true.clone()
    read[3] = 0.0
    assert action_figures(read, true)["eyeLookUp_correlation"] > 0.999
