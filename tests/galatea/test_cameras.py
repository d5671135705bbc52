"""Cameras have analytic answers: one axis at a time, and round trips."""

import pytest
import torch

from galatea import cameras


def angles(*degrees: float) -> torch.Tensor:
    return torch.tensor(degrees, dtype=torch.float32)


def test_orbit_and_view_angles_are_inverse() -> None:
    yaw, pitch, roll = angles(0, 20, -35, 60), angles(0, 10, -15, 25), angles(0, 5, -7, 12)
    read = cameras.view_angles(cameras.orbit(yaw, pitch, roll))
    torch.testing.assert_close(read.yaw_deg, yaw, atol=1e-3, rtol=0)
    torch.testing.assert_close(read.pitch_deg, pitch, atol=1e-3, rtol=0)
    torch.testing.assert_close(read.roll_deg, roll, atol=1e-3, rtol=0)


def test_the_pivot_is_in_the_middle_of_every_image() -> None:
    label = cameras.orbit(angles(0, 40, -40), angles(0, 20, -20), angles(0, 10, 90))
    points, depth = cameras.project(torch.tensor(cameras.PIVOT).expand(3, 1, 3), label)
    torch.testing.assert_close(points, torch.full((3, 1, 2), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(depth, torch.full((3, 1), cameras.RADIUS), atol=1e-5, rtol=0)


def test_a_positive_yaw_turns_the_nose_to_the_left_of_the_image() -> None:
    nose = torch.tensor([[[0.0, 0.0, 0.5]]])
    image, _ = cameras.project(nose, cameras.orbit(angles(20), angles(0)))
    assert image[0, 0, 0] < 0.5


def test_world_up_is_image_up_and_world_x_is_image_right() -> None:
    points = torch.tensor([[[0.0, 0.1, 0.2], [0.1, 0.0, 0.2]]])
    image, _ = cameras.project(points, cameras.orbit(angles(0), angles(0)))
    assert image[0, 0, 1] < 0.5
    assert image[0, 1, 0] > 0.5


def test_rotations_are_orthonormal_and_right_handed() -> None:
    cam2world, intrinsics = cameras.unpack_label(cameras.orbit(angles(33), angles(-12), angles(8)))
    rotation = cam2world[0, :3, :3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)
    assert intrinsics[0, 0, 0] == pytest.approx(4.2647, abs=1e-4)


def test_a_label_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(batch, 25\), got \(2, 24\)"):
        cameras.unpack_label(torch.zeros(2, 24))
