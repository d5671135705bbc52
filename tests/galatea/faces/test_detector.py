"""All faces of a photo are found, small, large and turned, and nothing else."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from skimage import data

from galatea.faces.detector import merge, pyramid
from galatea.faces.packs import FacePack

pytestmark = pytest.mark.weights


def turned(image: np.ndarray, angle: float, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The photo turned about its middle on a large enough grey canvas, and the matrix that did it."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (int(width * cos + height * sin), int(width * sin + height * cos))
    matrix[:, 2] += np.array(size) / 2 - np.array([width, height]) / 2
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_AREA, borderValue=(127, 127, 127)), matrix


def test_six_people_are_six_faces_largest_first(pack: FacePack, group_photo: np.ndarray) -> None:
    (faces,) = pack.detect([group_photo])
    assert len(faces) == 6
    assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)
    for face in faces:
        left_eye, right_eye, nose, mouth_left, mouth_right = face.landmarks_5
        assert left_eye[0] < right_eye[0]
        assert mouth_left[0] < mouth_right[0]
        assert (face.landmarks_5 > face.box[:2]).all()
        assert (face.landmarks_5 < face.box[2:]).all()
        assert nose[1] > min(left_eye[1], right_eye[1])


@pytest.mark.parametrize("angle", [-45, -20, 20, 45])
def test_turned_faces_are_found_where_they_went(pack: FacePack, astronaut: np.ndarray, angle: float) -> None:
    (upright,) = pack.detect([astronaut])[0]
    picture, matrix = turned(astronaut, angle)
    (face,) = pack.detect([picture])[0]
    expected = upright.landmarks_5 @ matrix[:, :2].T + matrix[:, 2]
    eyes = np.linalg.norm(upright.landmarks_5[0] - upright.landmarks_5[1])
    assert np.abs(face.landmarks_5 - expected).max() < 0.12 * eyes


@pytest.mark.parametrize("angle", [-45, 0, 45])
def test_group_is_found_at_any_angle(pack: FacePack, group_photo: np.ndarray, angle: float) -> None:
    picture, _ = turned(group_photo, angle, scale=0.5)
    assert len(pack.detect([picture])[0]) == 6


@pytest.mark.parametrize("face_px", [40, 80, 400, 1100])
def test_small_faces_and_close_ups_are_found(pack: FacePack, astronaut: np.ndarray, face_px: int) -> None:
    # The astronaut's face is 107 pixels wide in 512.
    scale = face_px / 107
    picture = cv2.resize(
        astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    if face_px < 100:
        canvas = np.full((1000, 1500, 3), 120, np.uint8)
        canvas[600 : 600 + len(picture), 1100 : 1100 + picture.shape[1]] = picture
        picture = canvas
    if face_px > 1000:
        picture = picture[600:1900, 1600:2950]
    (face,) = pack.detect([picture])[0]
    assert 0.75 < (face.box[2] - face.box[0]) / face_px < 1.35


def test_pictures_without_faces_have_none(pack: FacePack) -> None:
    pictures = [data.coffee(), data.chelsea(), data.rocket(), data.hubble_deep_field(), np.zeros((30, 40, 3), np.uint8)]
    assert pack.detect(pictures) == [[], [], [], [], []]


def test_photo_without_a_face_shifts_nothing(pack: FacePack, astronaut: np.ndarray) -> None:
    alone = pack.detect([astronaut])[0][0]
    results = pack.detect([data.coffee(), astronaut, np.zeros((1, 1, 3), np.uint8), astronaut[:, ::-1]])
    assert [len(faces) for faces in results] == [0, 1, 0, 1]
    assert np.array_equal(results[1][0].landmarks_5, alone.landmarks_5)
    assert pack.detect([]) == []


def test_pyramid_reaches_from_fine_to_close_up() -> None:
    for height, width in ((10, 10), (300, 400), (1000, 2000), (9000, 12000)):
        sides = pyramid(height, width)
        assert sides == sorted(sides, reverse=True)
        assert sides[0] <= 1920
        assert sides[-1] <= 192
        assert max((a / b for a, b in pairwise(sides)), default=1) <= 3.01


def test_overlapping_boxes_become_their_weighted_mean() -> None:
    def candidate(x: float, y: float, size: float) -> np.ndarray:
        return np.array([[x, y], [size, size], *[[x, y]] * 6])

    values = np.stack(
        [candidate(100, 100, 50), candidate(104, 100, 50), candidate(100, 100, 20), candidate(300, 100, 50)]
    )
    first, second = merge(np.array([0.9, 0.3, 0.8, 0.7]), values)
    assert first.score == 0.9
    assert np.allclose(first.box, [76, 75, 126, 125])
    assert np.allclose(second.box, [275, 75, 325, 125])
    assert merge(np.zeros(0), np.zeros((0, 8, 2))) == []
