"""Pictures for the page: thumbnails and clips as data URIs, inside a budget of bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, ImageSequence, UnidentifiedImageError

STILL_SIDE, STRIP_HEIGHT, CLIP_SIDE = 320, 200, 256
_QUALITY, _SMALL_QUALITY = 80, 60


@dataclass(frozen=True)
class Picture:
    """A picture on the page."""

    src: str
    """Data URI."""
    alt: str
    width: int
    height: int
    motion: str = ""
    """Data URI of the moving picture, of which `src` is the first frame."""


class Budget:
    """Bytes that may still go into the page."""

    def __init__(self, num_bytes: int) -> None:
        self.left = num_bytes

    def take(self, num_bytes: int) -> bool:
        """Use so many bytes; False, and nothing is used, where they are not left."""
        if num_bytes > self.left:
            return False
        self.left -= num_bytes
        return True


def still(
    data: bytes | None, alt: str, budget: Budget, max_side: int = STILL_SIDE, max_height: int = STILL_SIDE
) -> Picture | None:
    """A thumbnail; None where there is no readable picture or no budget."""
    image = _open(data)
    if image is None:
        return None
    return _picture(_first_frame(image, max_side, max_height), alt, budget)


def strip(data: bytes | None, alt: str, budget: Budget) -> Picture | None:
    """A thumbnail of a contact strip: wide, and as high as a row of the page."""
    return still(data, alt, budget, max_side=STRIP_HEIGHT * 9, max_height=STRIP_HEIGHT)


def moving(data: bytes | None, alt: str, budget: Budget, max_bytes: int) -> Picture | None:
    """A moving picture with its first frame as the still; only the still where the budget does not hold the motion.

    Args:
        data: an animated WebP.
        alt: what it shows.
        budget: of the page.
        max_bytes: a larger animation is made smaller: fewer pixels, every second frame.
    """
    image = _open(data)
    if image is None or data is None:
        return None
    picture = _picture(_first_frame(image, CLIP_SIDE, CLIP_SIDE), alt, budget)
    if picture is None or getattr(image, "n_frames", 1) < 2:
        return picture
    motion = data if len(data) <= max_bytes else _smaller(image)
    if len(motion) > max_bytes or not budget.take(_encoded_size(motion)):
        return picture
    return Picture(picture.src, picture.alt, picture.width, picture.height, _uri(motion))


def _open(data: bytes | None) -> Image.Image | None:
    if not data:
        return None
    try:
        return Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError):
        return None


def _first_frame(image: Image.Image, max_width: int, max_height: int) -> Image.Image:
    image.seek(0)
    frame = image.convert("RGBA" if image.has_transparency_data else "RGB")
    frame.thumbnail((max_width, max_height), Image.Resampling.LANCZOS)
    return frame


def _picture(frame: Image.Image, alt: str, budget: Budget) -> Picture | None:
    stream = io.BytesIO()
    frame.save(stream, "WEBP", quality=_QUALITY)
    data = stream.getvalue()
    if not budget.take(_encoded_size(data)):
        return None
    return Picture(_uri(data), alt, frame.width, frame.height)


def _smaller(image: Image.Image) -> bytes:
    side = CLIP_SIDE * 3 // 4
    frames: list[Image.Image] = []
    durations: list[int] = []
    for index, frame in enumerate(ImageSequence.Iterator(image)):
        milliseconds = int(frame.info.get("duration", 40))
        if index % 2:
            durations[-1] += milliseconds
            continue
        small = frame.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.BILINEAR)
        frames.append(small)
        durations.append(milliseconds)
    stream = io.BytesIO()
    frames[0].save(
        stream,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=_SMALL_QUALITY,
        method=2,
    )
    return stream.getvalue()


def _encoded_size(data: bytes) -> int:
    return (len(data) + 2) // 3 * 4


def _uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
