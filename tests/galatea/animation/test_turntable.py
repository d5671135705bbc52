"""Turntable videos of plain and anchored generators."""

import numpy as np
import torch

from galatea.animation.turntable import turntable
from galatea.animation.video import read_video
from galatea.eg3d import TriPlaneGenerator
from tests.small_generators import SMALL_PLAIN


def test_a_turntable_goes_round_and_comes_back() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = TriPlaneGenerator(SMALL_PLAIN).eval()
    ws = torch.ones(1, generator.num_ws, generator.w_dim)
    with torch.no_grad():
        planes = generator.planes(ws)
    video = read_video(turntable(generator, planes, ws, fps=8, seconds=1))
    assert video.frames.shape == (8, 128, 128, 3)
    middle, start, side = (video.frames[index].astype(float) for index in (4, 0, 2))
    assert np.abs(middle - start).mean() < np.abs(side - start).mean()
