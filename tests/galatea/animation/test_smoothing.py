import pytest
import torch

from galatea.animation.smoothing import fill_gaps, jitter, one_euro, steadied


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


def noisy_rest(frames: int = 120, spread: float = 0.02) -> torch.Tensor:
    return 0.2 + spread * torch.randn(frames, 1, generator=torch.Generator().manual_seed(1))


def test_a_blink_is_kept_while_jitter_goes():
    values = noisy_rest()
    blink = torch.tensor([[0.3], [0.9], [0.95], [0.4]])
    values[60:64] = blink
    steady = steadied(values, fps=30)
    assert (steady[60:64] - blink).abs().max() < 0.1
    assert one_euro(values, fps=30)[60:64].max() < 0.75, "smoothing alone takes it away"
    assert steady[:50].std() < 0.5 * values[:50].std()


def test_what_a_blink_spreads_over_the_frames_beside_it_is_taken_back():
    values = torch.zeros(60, 1)
    values[30:32] = 1.0
    assert steadied(values, fps=30)[:29].max() < 0.02


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_are_steadied_too(frames: int):
    values = torch.full((frames, 2), 0.4)
    assert torch.allclose(steadied(values, fps=25), values)


def test_jitter_is_measured_beside_motion_and_blinks():
    moving = noisy_rest() + 0.5 * torch.sin(torch.arange(120) / 20)[:, None]
    moving[60:63] += 0.7
    assert jitter(moving).item() == pytest.approx(0.02, rel=0.25)
