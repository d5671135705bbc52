import contextlib
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from galatea.animation.video import encode_mp4, encode_webp_animation, open_video, read_frames, read_video, shrunk
from galatea.errors import DriverError, InputError


def moving_square(frames: int = 12, height: int = 64, width: int = 80) -> np.ndarray:
    clip = np.full((frames, height, width, 3), (40, 90, 160), np.uint8)
    for index in range(frames):
        clip[index, 20:40, index * 4 : index * 4 + 16] = (220, 60, 50)
    return clip


def test_mp4_round_trip_keeps_count_rate_and_colours():
    clip = moving_square()
    video = read_video(encode_mp4(clip, fps=25, crf=10))
    assert video.frames.shape == clip.shape
    assert video.fps == pytest.approx(25)
    assert np.abs(video.frames[:, 2:10].astype(int) - clip[:, 2:10]).max() <= 4


def test_mp4_is_browser_ready_h264_with_index_first():
    import av

    data = encode_mp4(moving_square(), fps=24)
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"


def test_same_frames_give_same_bytes():
    assert encode_mp4(moving_square(), fps=25) == encode_mp4(moving_square(), fps=25)


def test_frames_are_taken_one_by_one_and_must_keep_their_size():
    clip = moving_square()
    assert encode_mp4(iter(clip), fps=25) == encode_mp4(clip, fps=25)
    with pytest.raises(InputError, match="one size"):
        encode_mp4([clip[0], clip[0, :-2]], fps=25)


def test_odd_sizes_are_extended_to_even():
    video = read_video(encode_mp4(moving_square(4, 63, 79), fps=25))
    assert video.frames.shape[1:3] == (64, 80)


def test_sampling_by_time_halves_and_doubles_frames():
    data = encode_mp4(moving_square(12), fps=24)
    assert read_video(data, fps=12).frames.shape[0] == 6
    assert read_video(data, fps=48).frames.shape[0] == 23


def test_some_frames_are_those_of_the_whole_clip():
    data = encode_mp4(moving_square(12), fps=24)
    assert np.array_equal(np.stack(list(read_frames(data, [11, 0, 4]))), read_video(data).frames[[0, 4, 11]])


def test_frames_that_are_not_asked_for_take_no_memory():
    clip = moving_square(40)
    data = encode_mp4(clip, fps=24)
    tracemalloc.start()
    taken = list(read_frames(data, [39]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(taken) == 1
    assert peak < 8 * clip[0].nbytes


@pytest.mark.parametrize("data", [b"", b"not a video", moving_square(1).tobytes()])
def test_frames_of_no_clip_are_an_input_error(data):
    with pytest.raises(InputError, match="readable video"):
        list(read_frames(data, [0]))


def test_a_clip_that_is_shorter_than_it_should_be_is_an_input_error():
    with pytest.raises(InputError, match="at least 13 frames, got 12"):
        list(read_frames(encode_mp4(moving_square(12), fps=24), [0, 12]))


def test_max_seconds_and_max_side_bound_the_work():
    video = read_video(encode_mp4(moving_square(12), fps=24), max_seconds=5 / 24, max_side=40)
    assert video.frames.shape == (5, 32, 40, 3)


@pytest.mark.parametrize("data", [b"", b"not a video", moving_square(1).tobytes()])
def test_unreadable_video_is_a_driver_error(data):
    with pytest.raises(DriverError):
        read_video(data)


def test_truncated_video_is_a_driver_error_or_fewer_frames():
    data = encode_mp4(moving_square(12), fps=24)
    with contextlib.suppress(DriverError):
        assert 1 <= read_video(data[: len(data) * 2 // 3]).frames.shape[0] <= 12


def test_frames_are_decoded_as_they_are_taken():
    data = encode_mp4(moving_square(12), fps=24)
    broken = data[:-200] + bytes(200)
    frames = open_video(broken).frames
    assert next(frames).shape == (64, 80, 3)


def test_still_image_is_a_one_frame_video():
    buffer = io.BytesIO()
    Image.fromarray(moving_square(1)[0]).save(buffer, "PNG")
    assert read_video(buffer.getvalue()).frames.shape[0] == 1


def test_webp_animation_plays_at_the_rate():
    data = encode_webp_animation([shrunk(frame, 40) for frame in moving_square()], fps=30)
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 12
    assert max(image.size) == 40
    total = 0
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        total += image.info["duration"]
    assert total == 400


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8)]
)
def test_wrong_frames_are_refused(frames):
    with pytest.raises(InputError, match="uint8"):
        encode_mp4(frames, fps=25)
    with pytest.raises(InputError, match="uint8"):
        encode_webp_animation(frames, fps=25)
