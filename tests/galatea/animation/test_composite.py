"""Compositing: exact where nothing changed, no ghost where the head was, exact outside a pasted crop."""

import numpy as np
import pytest
import torch

from galatea.animation.composite import clean_background, compose, paste_back, photo_layer
from galatea.errors import InputError
from galatea.faces.alignment import cut_crop


@pytest.fixture
def scene():
    """A grey ramp with a red disc in front: photo, matte, background."""
    size = 64
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    background = (0.3 + 0.4 * column / size).expand(1, 3, size, size).clone()
    matte = (((row - 32) ** 2 + (column - 32) ** 2) < 15**2).float()[None, None]
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    return matte * red + (1 - matte) * background, matte, background


def test_the_person_s_layer_over_the_clean_background_is_the_photo(scene):
    photo, matte, _ = scene
    clean = clean_background(photo, matte)
    assert torch.allclose(compose(photo_layer(photo, clean, matte), clean), photo, atol=1e-5)


def test_the_clean_background_has_no_ghost(scene):
    photo, matte, background = scene
    clean = clean_background(photo, matte)
    assert (clean - background).abs().max() < 0.12
    redness = (clean[:, 0] - clean[:, 1]).abs().max()
    assert redness < 0.02


def test_a_photo_full_of_person_still_gets_a_finite_background(scene):
    photo, matte, _ = scene
    assert torch.isfinite(clean_background(photo, torch.ones_like(matte))).all()


def test_an_empty_layer_shows_the_background(scene):
    _, _, background = scene
    assert torch.equal(compose(torch.zeros(1, 4, 64, 64), background), background)


def test_pasting_the_crop_itself_changes_nothing():
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -20], [0, 1.0, -10]])
    crop = photo[10:74, 20:84]
    assert np.abs(paste_back(photo, crop, matrix, crop_size=64).astype(int) - photo).max() <= 1


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_what_a_crop_shows_is_pasted_back_where_it_was(scale):
    photo = np.full((200, 240, 3), 40, np.uint8)
    photo[90:110, 110:130] = 220
    matrix = np.array([[scale, 0, -70 * scale], [0, scale, -50 * scale]])
    frame = cut_crop(photo, matrix, size=round(100 * scale))
    pasted = paste_back(photo, frame, matrix, crop_size=len(frame)).astype(float)[..., 0] - 40
    rows, columns = np.mgrid[:200, :240] + 0.5
    assert (pasted * columns).sum() / pasted.sum() == pytest.approx(120, abs=0.1)
    assert (pasted * rows).sum() / pasted.sum() == pytest.approx(100, abs=0.1)


def test_a_frame_that_is_made_smaller_does_not_alias():
    photo = np.full((64, 64, 3), 127, np.uint8)
    board = np.tile(np.array([[0, 254], [254, 0]], np.uint8), (128, 128))[..., None].repeat(3, axis=2)
    pasted = paste_back(photo, board, np.array([[8.0, 0, -128], [0, 8.0, -128]]), crop_size=256)
    assert np.abs(pasted.astype(int) - 127).max() <= 1


def test_pasting_touches_only_the_crop():
    photo = np.full((90, 120, 3), 50, np.uint8)
    matrix = np.array([[1.0, 0, -20], [0, 1.0, -10]])
    pasted = paste_back(photo, np.full((128, 128, 3), 200, np.uint8), matrix, crop_size=64)
    assert pasted[42, 52].tolist() == [200, 200, 200]
    outside = np.ones((90, 120), bool)
    outside[10:74, 20:84] = False
    assert (pasted[outside] == 50).all()


def test_a_matrix_that_cannot_be_inverted_is_refused():
    with pytest.raises(InputError, match="crop_matrix"):
        paste_back(np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), np.zeros((2, 3)))
