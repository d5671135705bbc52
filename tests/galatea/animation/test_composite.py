"""Compositing: exact where nothing changed, no ghost where the head was, exact outside a pasted crop."""

import numpy as np
import pytest
import torch

from galatea.animation.composite import clean_background, compose, paste_back, photo_layer
from galatea.errors import InputError


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
