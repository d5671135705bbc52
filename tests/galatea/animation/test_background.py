"""What is behind a person is continued from what is beside it."""

import torch

from galatea.animation.background import fill_background

SIZE = 96


def stripes():
    columns = torch.arange(SIZE) // 6 % 2
    return columns.float().expand(1, 3, SIZE, SIZE) * 0.6 + 0.2


def test_a_pattern_goes_on_behind_the_hole():
    photo, hole = stripes(), torch.zeros(1, 1, SIZE, SIZE)
    hole[..., 36:60, 36:60] = 1
    filled = fill_background(photo * (1 - hole), hole)
    error = (filled - photo).abs()[..., 36:60, 36:60].mean()
    plain = (photo.mean() - photo).abs()[..., 36:60, 36:60].mean()
    assert error < 0.4 * plain
    assert torch.equal(filled * (1 - hole), photo * (1 - hole))


def test_nothing_of_the_hole_s_own_colour_stays():
    photo, hole = torch.full((2, 3, SIZE, SIZE), 0.5), torch.zeros(2, 1, SIZE, SIZE)
    hole[..., 20:70, 30:60] = 1
    photo = torch.where(hole > 0, 1.0, photo)
    assert torch.allclose(fill_background(photo, hole), torch.full_like(photo, 0.5), atol=1e-3)


def test_a_sliver_of_background_is_enough():
    photo, hole = torch.full((1, 3, SIZE, SIZE), 0.3), torch.ones(1, 1, SIZE, SIZE)
    hole[..., :2, :2] = 0
    assert torch.allclose(fill_background(photo, hole), photo, atol=1e-3)
