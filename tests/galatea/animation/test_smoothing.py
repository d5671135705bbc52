import pytest
import torch

from galatea.animation.smoothing import fill_gaps, one_euro


def test_gaps_are_interpolated_and_ends_held():
    values = torch.tensor([[9.0], [1.0], [9.0], [9.0], [4.0], [9.0]])
    is_valid = torch.tensor([False, True, False, False, True, False])
    assert fill_gaps(values, is_valid)[:, 0].tolist() == pytest.approx([1, 1, 2, 3, 4, 4])


def test_nothing_valid_is_refused():
    with pytest.raises(ValueError, match="valid"):
        fill_gaps(torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool))


def test_valid_frames_are_untouched():
    values = torch.rand(10, 3)
    assert torch.equal(fill_gaps(values, torch.ones(10, dtype=torch.bool)), values)


def test_jitter_goes_and_motion_stays_in_place():
    generator = torch.Generator().manual_seed(0)
    times = torch.arange(100) / 25
    truth = torch.sigmoid((times - 2) * 8)[:, None]
    noisy = truth + 0.03 * torch.randn(100, 1, generator=generator)
    smooth = one_euro(noisy, fps=25)
    still = slice(0, 35)
    assert smooth[still].std() < 0.5 * noisy[still].std()
    assert (smooth - truth).abs().max() < 0.12
    assert abs(int((smooth > 0.5).float().argmax()) - int((truth > 0.5).float().argmax())) <= 1


def test_constant_stays_constant():
    assert torch.allclose(one_euro(torch.full((20, 2), 0.3), fps=30), torch.full((20, 2), 0.3))
