"""Portrait crops are placed as EG3D places them."""

import numpy as np
import pytest

from galatea.errors import InputError
from galatea.faces.alignment import STANDARD_POINTS, crop_square, cut_crop, portrait_crop


def face(x: float, y: float, scale: float, roll_deg: float = 0.0) -> np.ndarray:
    """The standard face seen from far ahead: `scale` pixels a unit, turned in the plane."""
    roll = np.deg2rad(roll_deg)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return (STANDARD_POINTS[:, :2] * [1, -1] * scale) @ turn.T + [x, y]


def test_standard_face_gives_the_standard_crop() -> None:
    x, y, side = crop_square(face(400, 300, 90))
    assert (x, y) == pytest.approx((400, 300))
    assert side == pytest.approx(90 * 700 / 300)


def test_crop_does_not_turn_or_change_with_roll() -> None:
    image = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    upright, rolled = (portrait_crop(image, face(400, 300, 90, roll)) for roll in (0, 30))
    assert np.allclose(upright.matrix, rolled.matrix)
    assert upright.matrix[0, 1] == upright.matrix[1, 0] == 0
    assert np.array_equal(upright.image, rolled.image)


def test_eyes_are_where_eg3d_has_them() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    crop = portrait_crop(image, face(420, 310, 80))
    points = face(420, 310, 80) @ crop.matrix[:, :2].T + crop.matrix[:, 2]
    assert points[:2, 1] / 512 == pytest.approx([0.376, 0.376], abs=0.001)
    assert points[3:, 1] / 512 == pytest.approx([0.663, 0.663], abs=0.001)


def test_matrix_and_inverse_bring_pixels_there_and_back() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    image[300:310, 400:410] = 255
    crop = portrait_crop(image, face(400, 300, 100))
    middle = np.array([405.0, 305.0, 1.0])
    column, row = crop.matrix @ middle
    assert crop.image[int(row), int(column)].min() > 200
    assert crop.inverse @ [column, row, 1] == pytest.approx(middle[:2])
    weight = crop.image[..., 0].astype(float)
    rows, columns = np.mgrid[:512, :512] + 0.5
    assert (weight * columns).sum() / weight.sum() == pytest.approx(column, abs=0.3)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(row, abs=0.3)


def test_beyond_the_photo_is_soft_and_not_black() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(150, 255, (200, 200, 3), dtype=np.uint8)
    crop = portrait_crop(image, face(20, 100, 90))
    assert crop.image.min() > 100
    outside = crop.image[:, : int(crop.matrix[0, 2]) - 60]
    assert outside.shape[1] > 50
    assert outside.std() < 0.3 * image.std()
    tiny = portrait_crop(image[:12, :9], face(4, 4, 90))
    assert tiny.image.shape == (512, 512, 3)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_points_that_are_no_face_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InputError, match="Face alignment"):
        portrait_crop(np.zeros((10, 10, 3), np.uint8), points)


def test_a_crop_is_cut_by_its_matrix_as_by_its_landmarks() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    crop = portrait_crop(image, face(90, 150, 80))
    assert np.array_equal(cut_crop(image, crop.matrix), crop.image)


@pytest.mark.parametrize("matrix", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.array([[1.0, 0.2, 0], [0, 1.0, 0]])])
def test_a_matrix_that_is_none_of_a_crop_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="Crop matrix"):
        cut_crop(np.zeros((8, 8, 3), np.uint8), matrix)
