"""Video files at both ends: driving videos in, H.264 MP4 and animated WebP out."""

from __future__ import annotations

import io
import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from galatea.errors import DriverError, InputError

Frame = UInt8[np.ndarray, "height width 3"]
BT709 = 1
"""ITU-T H.273 code of BT.709 primaries, transfer and matrix: without the tag players guess, and colours shift."""
SLOT_TOLERANCE = 1e-3
"""Share of a frame by which a time stamp may come early; containers round them."""
TV_RANGE = 1
"""ffmpeg's code of limited (16..235) range."""


@dataclass(frozen=True)
class Video:
    """Decoded frames, upright, RGB.

    Attributes:
        frames: uint8 (frames, height, width, 3).
        fps: frames per second of `frames`.
    """

    frames: UInt8[np.ndarray, "frames height width 3"]
    fps: float


@dataclass(frozen=True)
class VideoStream:
    """A video that is decoded while its frames are taken: long ones need no memory.

    Attributes:
        frames: uint8 (height, width, 3) each, once. Taking them raises what `open_video` raises.
        fps: frames per second of `frames`.
    """

    frames: Iterator[UInt8[np.ndarray, "height width 3"]]
    fps: float


def read_video(data: bytes, max_seconds: float = 60.0, fps: float | None = None, max_side: int = 1280) -> Video:
    """Decode the first video stream as a whole; arguments and errors are those of `open_video`."""
    stream = open_video(data, max_seconds, fps, max_side)
    return Video(np.stack(list(stream.frames)), stream.fps)


def open_video(data: bytes, max_seconds: float = 60.0, fps: float | None = None, max_side: int = 1280) -> VideoStream:
    """Open the first video stream.

    Args:
        data: the bytes of a file in any container that ffmpeg reads.
        max_seconds: what comes later is not read.
        fps: sample at this rate by time; None keeps the frames of the file.
        max_side: larger frames are scaled down to it, which bounds memory.

    Returns:
        The frames, turned upright by the file's display matrix.

    Raises:
        DriverError: if the bytes hold no readable video, or no frame.
        ValueError: if an argument is impossible.
    """
    if max_seconds <= 0 or max_side < 16 or (fps is not None and fps <= 0):
        raise ValueError(f"open_video: got max_seconds={max_seconds}, fps={fps}, max_side={max_side}")
    with _readable(data), av.open(io.BytesIO(data), mode="r") as container:
        if not container.streams.video:
            raise DriverError("driving video: expected a video stream, the file has none")
        stream = container.streams.video[0]
        native = float(stream.average_rate or stream.guessed_rate or 25)
    max_frames = max(1, round(max_seconds * (fps or native)))
    return VideoStream(_frames(data, native, fps, max_frames, max_side), min(max(fps or native, 0.5), 240.0))


def read_frames(data: bytes, numbers: Iterable[int]) -> Iterator[Frame]:
    """Decode some frames of a clip, one by one: the others are passed by and need no memory.

    Args:
        data: the bytes of the clip.
        numbers: of the wanted frames, from 0.

    Returns:
        The frames in the order of the clip, at full size, uint8 (height, width, 3) RGB.

    Raises:
        InputError: the bytes hold no readable video, or fewer frames than are asked for.
    """
    wanted = set(numbers)
    count = 0
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            for number, frame in enumerate(container.decode(video=0)):
                count = number + 1
                if number in wanted:
                    yield frame.to_ndarray(format="rgb24")
                if number >= max(wanted):
                    return
    except (av.error.FFmpegError, IndexError, EOFError) as error:
        raise InputError(f"clip: expected a readable video, got {len(data)} bytes ({error}); make it again") from error
    raise InputError(f"clip: expected at least {max(wanted) + 1} frames, got {count}; make it again")


@contextmanager
def _readable(data: bytes) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise DriverError(f"driving video: expected a readable video, got {len(data)} bytes ({error})") from error


def _frames(
    data: bytes, native: float, fps: float | None, max_frames: int, max_side: int
) -> Iterator[NDArray[np.uint8]]:
    """Decode while frames are taken."""
    is_empty = True
    with _readable(data), av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in _sampled(container.decode(stream), native, fps, max_frames, max_side):
            is_empty = False
            yield frame
    if is_empty:
        raise DriverError("driving video: expected at least one frame, the stream is empty")


def _sampled(
    decoded: Iterator[VideoFrame], native: float, fps: float | None, max_frames: int, max_side: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield frames at `fps` by presentation time (a slower source repeats, a faster one drops), or all of them."""
    start: float | None = None
    emitted, shape = 0, None
    for index, frame in enumerate(decoded):
        time = frame.time if frame.time is not None else index / native
        start = time if start is None else start
        due = 1 if fps is None else math.floor((time - start) * fps + SLOT_TOLERANCE) + 1 - emitted
        if due <= 0:
            continue
        array = _upright(frame, max_side)
        shape = shape or array.shape
        if array.shape != shape:
            raise DriverError(f"driving video: expected one frame size, {shape[:2]} changes to {array.shape[:2]}")
        for _ in range(due):
            yield array
            emitted += 1
            if emitted >= max_frames:
                return


def _upright(frame: VideoFrame, max_side: int) -> NDArray[np.uint8]:
    scale = min(1.0, max_side / max(frame.width, frame.height))
    width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    array = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90) % 4))


def encode_mp4(frames: Iterable[Frame], fps: float, crf: int = 18) -> bytes:
    """Encode RGB frames as H.264 that every browser and phone plays (yuv420p, BT.709, index at the front).

    Args:
        frames: uint8 (height, width, 3) each, taken one by one; odd sizes are extended by one repeated row or column:
            4:2:0 needs even ones.
        fps: frames per second.
        crf: x264's quality, 0 (lossless) to 51; 18 is visually transparent.

    Raises:
        InputError: if the frames are not uint8 RGB of one size, or there are none.
    """
    checked = (_even(frame) for frame in _checked(frames))
    first = next(checked)
    with tempfile.TemporaryDirectory() as folder:
        # Moving the index to the front is a second pass over the file, which ffmpeg does on real files only.
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), mode="w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
            # Without the macroblock tree: with it, the same frames were now and then cut into other bytes.
            stream.options = {"crf": str(crf), "preset": "medium", "x264-params": "mbtree=0"}
            context = stream.codec_context
            context.thread_count = 1  # with more, the same frames may be cut into other bytes; workers have one core
            context.color_primaries = context.color_trc = context.colorspace = BT709
            context.color_range = TV_RANGE
            for array in itertools.chain([first], checked):
                rgb = VideoFrame.from_ndarray(array, format="rgb24")
                frame = rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def shrunk(frame: Frame, max_side: int) -> Frame:
    """Return a frame scaled down to a longest side, if it is larger."""
    image = Image.fromarray(frame)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def encode_webp_animation(frames: Iterable[Frame], fps: float, quality: int = 80) -> bytes:
    """Encode RGB frames as an animated WebP that loops for ever.

    Args:
        frames: uint8 (height, width, 3) each.
        fps: frames per second; WebP keeps whole milliseconds, whose rounding is spread so that the length is right.
        quality: 0 to 100.

    Raises:
        InputError: if the frames are not uint8 RGB of one size, or there are none.
    """
    images = [Image.fromarray(array) for array in _checked(frames)]
    times = [round(index * 1000 / fps) for index in range(len(images) + 1)]
    durations = [after - before for before, after in itertools.pairwise(times)]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "WEBP", save_all=True, append_images=images[1:], duration=durations, loop=0, quality=quality, method=3
    )
    return buffer.getvalue()


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
            raise InputError(f"video frames: expected uint8 (height, width, 3), got {frame.dtype} {frame.shape}")
        if frame.shape != shape:
            raise InputError(f"video frames: expected one size, {shape[:2]} changes to {frame.shape[:2]}")
        yield frame
    if shape is None:
        raise InputError("video frames: expected uint8 (height, width, 3), at least one, got none")


def _even(frame: Frame) -> Frame:
    odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
    return np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
