"""Read-back measures: analytic values."""

import pytest
import torch

from galatea.metrics import pose_expression as measure


def face(scale=1.0):
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(1, 478, 2, generator=draw)
    points[:, measure.RIGHT_IRIS] = torch.tensor([0.4, 0.4])
    points[:, measure.LEFT_IRIS] = torch.tensor([0.6, 0.4])
    return points * scale


def test_landmark_error_is_in_inter_pupil_distances_whatever_the_unit():
    for scale in (1.0, 512.0):
        moved = face(scale) + torch.tensor([0.02, 0.0]) * scale
        assert measure.landmark_error(moved, face(scale)).item() == pytest.approx(0.1, rel=1e-4)


def test_landmark_error_outlives_a_few_outliers():
    moved = face()
    moved[:, :100] += 5
    assert measure.landmark_error(moved, face()).item() == 0


def test_angles_are_compared_the_short_way_around():
    assert measure.angle_error_deg(torch.tensor([179.0, 5.0]), torch.tensor([-179.0, 1.0])).item() == pytest.approx(3.0)


def test_expression_error_counts_what_was_asked():
    asked, achieved = torch.zeros(4, 52), torch.zeros(4, 52)
    asked[:, 3] = 0.8
    achieved[:, 3] = 0.6
    assert measure.expression_error(achieved, asked).item() == pytest.approx(0.2)
    assert measure.expression_error(achieved * 0, asked * 0).item() == 0


def test_correlation_ignores_gain_and_sees_direction():
    asked = torch.zeros(10, 52)
    asked[:, 7] = torch.linspace(0, 1, 10)
    assert measure.expression_correlation(0.3 * asked + 0.1, asked).item() == pytest.approx(1.0, abs=1e-4)
    assert measure.expression_correlation(-asked, asked).item() == pytest.approx(-1.0, abs=1e-4)
    assert torch.isnan(measure.expression_correlation(asked, torch.zeros(10, 52)))


def test_landmarks_of_another_mesh_are_refused():
    with pytest.raises(ValueError, match="478"):
        measure.landmark_error(torch.zeros(1, 468, 2), torch.zeros(1, 468, 2))
