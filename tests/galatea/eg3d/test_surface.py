"""Colours of the head's surface where its planes know of none: behind the teeth."""

import torch

from galatea.eg3d.surface import dark_mouth
from galatea.eg3d.view_planes import MOUTH, NUM_SURFACE_CHANNELS


def test_behind_the_teeth_it_is_dark_and_elsewhere_as_it_was():
    teeth = torch.full((1, 4, 3), 0.7)
    points = torch.tensor([[[0.0, 0.0, z] for z in (0.5, 0.49, 0.4, 0.4)]])
    front = torch.zeros(1, 4, NUM_SURFACE_CHANNELS)
    front[..., MOUTH] = torch.tensor([0.5, 0.5, 0.5, -1.0])
    colour = dark_mouth(teeth, (front, front, front), points)
    assert torch.equal(colour[:, [0, 1, 3]], teeth[:, [0, 1, 3]])
    assert colour[0, 2].max() < 0.35
    assert colour[0, 2, 0] > colour[0, 2, 1]


def test_what_is_dark_already_stays():
    front = torch.full((1, 1, NUM_SURFACE_CHANNELS), 0.5)
    colour = torch.full((1, 1, 3), 0.02)
    assert torch.equal(dark_mouth(colour, (front, front, front), torch.zeros(1, 1, 3)), colour)
