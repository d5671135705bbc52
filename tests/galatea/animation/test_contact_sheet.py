"""Contact sheets: frames in order, rows filled up."""

import numpy as np

from galatea.animation.contact_sheet import contact_sheet, pick_frames
from galatea.images import decode_image


def test_frames_are_spread_over_the_clip():
    assert pick_frames(11, 3) == [0, 5, 10]
    assert pick_frames(2, 6) == [0, 1]
    assert pick_frames(1, 6) == [0]


def test_frames_stand_side_by_side_and_are_scaled_down():
    frames = np.stack([np.full((80, 80, 3), level, np.uint8) for level in (0, 120, 240)])
    sheet = decode_image(contact_sheet(frames, columns=2, max_side=40))
    assert sheet.shape == (80, 80, 3)
    assert np.abs(sheet[20, [20, 60], 0].astype(int) - [0, 120]).max() < 6
    assert sheet[60, 60].min() > 249
