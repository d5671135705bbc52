"""The matte keeps the person and follows the picture's edges."""

import pytest
import torch

from galatea.faces.packs import FacePack
from galatea.faces.segmentation import guided_upsample

pytestmark = pytest.mark.weights


def test_person_is_inside_and_background_outside(pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    with torch.no_grad():
        matte = pack.segment(torch.cat([astronaut_crop, astronaut_crop.flip(3)]))
        points = (pack.landmarks(astronaut_crop).points[0, :468] * 512).long().clamp(0, 511)
    assert matte.shape == (2, 1, 512, 512)
    assert matte.min() >= 0
    assert matte.max() <= 1
    assert matte[0, 0, points[:, 1], points[:, 0]].mean() > 0.98
    assert matte[0, 0, 60:300, :15].mean() < 0.02
    assert (matte[0] - matte[1].flip(2)).abs().mean() < 0.01


def test_guided_matte_moves_to_the_edge_of_the_picture() -> None:
    full = torch.zeros(1, 3, 128, 128)
    full[..., 60:] = 1
    small = torch.nn.functional.avg_pool2d(full, 2)
    coarse = torch.zeros(1, 1, 64, 64)
    coarse[..., 28:] = 1  # two pixels off the edge at 30
    matte = guided_upsample(small, coarse, full)
    assert (matte[0, 0, 64, 50:58] < 0.4).all()
    assert (matte[0, 0, 64, 62:] > 0.9).all()
    assert (matte[0, 0, 64, 60] - matte[0, 0, 64, 59]) > 0.5


def test_flat_matte_stays_flat() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    matte = guided_upsample(picture, torch.full((1, 1, 64, 64), 0.3), picture)
    assert torch.allclose(matte, torch.full_like(matte, 0.3), atol=1e-4)
