"""Quality measures against values known by formula."""

import pytest
import torch

from galatea.metrics import quality


def test_psnr_of_a_constant_error_is_known():
    image = torch.zeros(2, 3, 16, 16)
    assert quality.psnr(image, image + 0.2).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)


def test_equal_images_are_perfect_and_finite():
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    assert quality.psnr(image, image).item() == 100
    assert quality.ssim(image, image).item() == pytest.approx(1, abs=1e-5)
    assert quality.ms_ssim(image, image).item() == pytest.approx(1, abs=1e-5)


def test_the_mask_selects_what_counts():
    image, damaged = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    damaged[..., :16] = 1
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    assert quality.psnr(damaged, image, mask).item() == 100
    assert quality.psnr(damaged, image, 1 - mask).item() == pytest.approx(6.02, abs=0.01)


def test_noise_lowers_ssim_steadily():
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=draw) * 2 - 1
    noise = torch.randn(1, 3, 64, 64, generator=draw)
    scores = [quality.ms_ssim(image + strength * noise, image).item() for strength in (0.05, 0.2, 0.8)]
    assert scores == sorted(scores, reverse=True)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="mask"):
        quality.psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 4, 4))
