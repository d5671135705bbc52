"""Tracking and drivers on a film made of one photo that moves, vanishes and comes back."""

import numpy as np
import pytest
import torch

from galatea.animation.drivers import Reading, VideoSettings, from_photo, from_video, held_gaze
from galatea.animation.tracking import track_face
from galatea.animation.video import encode_mp4
from galatea.errors import DriverError
from galatea.faces.packs import open_pack
from galatea.images import encode_png
from galatea.morphable.actions import ACTION_INDEX, mirror_permutation
from galatea.morphable.fitting import HeadFitter
from galatea.morphable.head import HeadModel

GAP = range(9, 13)


@pytest.fixture(scope="module")
def reading(weights):
    return Reading(open_pack("open"), HeadFitter(HeadModel.load()))


@pytest.fixture(scope="module")
def film(astronaut):
    frames = []
    for index in range(18):
        left = 60 + 4 * index
        frames.append(astronaut[0:240, left : left + 288] if index not in GAP else np.full((240, 288, 3), 90, np.uint8))
    return frames


def test_face_is_followed_and_gaps_are_flagged(film, reading):
    track = track_face(iter(film), reading.pack)
    assert track.is_found.tolist() == [index not in GAP for index in range(18)]
    found = track.points[track.is_found]
    assert (found - found[0]).abs().median() < 0.01, "the same face has the same landmarks wherever it is in the frame"


def test_photo_in_motion_gives_a_still_face(film, reading):
    motion = from_video(encode_mp4(np.stack(film), fps=24, crf=10), reading, settings=VideoSettings(max_seconds=0.75))
    assert motion.num_frames == 18
    assert motion.fps == pytest.approx(24)
    assert motion.is_valid.tolist() == [index not in GAP for index in range(18)]
    assert (motion.expression - motion.neutral).abs().max() < 0.25
    assert (motion.yaw_deg - motion.yaw_deg.median()).abs().max() < 3


def test_mirrored_photo_is_nearly_the_mirrored_motion(astronaut, reading):
    straight = from_photo(encode_png(astronaut), reading)
    mirrored = from_photo(encode_png(np.ascontiguousarray(astronaut[:, ::-1])), reading)
    assert mirrored.yaw_deg[0] == pytest.approx(-straight.yaw_deg[0].item(), abs=3.0)
    assert mirrored.roll_deg[0] == pytest.approx(-straight.roll_deg[0].item(), abs=3.0)
    assert mirrored.pitch_deg[0] == pytest.approx(straight.pitch_deg[0].item(), abs=3.0)
    apex = straight.num_frames // 2
    difference = mirrored.expression[apex, list(mirror_permutation())] - straight.expression[apex]
    assert difference.abs().mean() < 0.08


def test_photo_comes_and_goes(astronaut, reading):
    motion = from_photo(encode_png(astronaut), reading)
    assert motion.expression[0].max() == 0
    assert motion.expression[motion.num_frames // 2].max() > 0.3
    assert motion.own_share[0] == 1
    assert motion.own_share[motion.num_frames // 2] == 0


def test_drivers_without_a_face_say_so(reading):
    with pytest.raises(DriverError, match="0 of 5 frames"):
        from_video(encode_mp4(np.full((5, 64, 64, 3), 128, np.uint8), fps=25), reading)
    with pytest.raises(DriverError, match="found none"):
        from_photo(encode_png(np.full((64, 64, 3), 128, np.uint8)), reading)
    with pytest.raises(DriverError, match="lunch"):
        from_photo(b"not a photo", reading, name="lunch")


def test_eyes_do_not_dart_about_while_they_blink():
    up, shut, smile = (ACTION_INDEX[name] for name in ("eyeLookUpLeft", "eyeBlinkLeft", "mouthSmileLeft"))
    read = torch.zeros(9, 52)
    read[:, smile] = torch.rand(9)
    read[:, up] = torch.tensor([0.1, 0.1, 0.1, 0.9, 0.0, 0.8, 0.5, 0.5, 0.5])
    read[4, shut] = 0.9
    held = held_gaze(read, torch.ones(9, dtype=torch.bool))
    assert held[:, up].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
    assert torch.equal(held[:, [shut, smile]], read[:, [shut, smile]])
    read[:, shut] = 1.0
    assert torch.equal(held_gaze(read, torch.ones(9, dtype=torch.bool)), read)
