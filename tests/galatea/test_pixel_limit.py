"""Pillow's own limit on pixels does not get in the way of Galatea's, and is as it was afterwards."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from galatea.errors import InputError
from galatea.images import decode_image, encode_png
from galatea.pixel_limit import pixels_allowed


@pytest.fixture(autouse=True)
def _low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)


def test_a_photo_within_the_limit_is_decoded() -> None:
    assert decode_image(encode_png(np.zeros((48, 64, 3), np.uint8)), max_pixels=48 * 64).shape == (48, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_photo_beyond_the_limit_is_refused() -> None:
    for side in (20, 48):
        with pytest.raises(InputError, match="too large"):
            decode_image(encode_png(np.zeros((side, side, 3), np.uint8)), max_pixels=side * side - 1)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_do_not_take_the_limit_away_from_each_other() -> None:
    data = encode_png(np.zeros((48, 64, 3), np.uint8))

    def opened(number: int) -> tuple[int, int]:
        with pixels_allowed(10_000 if number % 2 else 5_000), Image.open(io.BytesIO(data)) as image:
            return image.size

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(opened, range(400))) == {(64, 48)}
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_limit_that_was_taken_away_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pixels_allowed(10):
        assert Image.MAX_IMAGE_PIXELS is None
