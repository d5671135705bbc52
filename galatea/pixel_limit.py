"""Pillow's limit on pixels, which is one for the whole process, made no stricter than the limit that is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


class _PillowLimit:
    """Threads that open images side by side: the limit is the largest that one of them needs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[int] = []
        self._own: int | None = None

    def raise_to(self, max_pixels: int) -> None:
        with self._lock:
            if not self._wanted:
                self._own = Image.MAX_IMAGE_PIXELS
            self._wanted.append(max_pixels)
            self._apply()

    def release(self, max_pixels: int) -> None:
        with self._lock:
            self._wanted.remove(max_pixels)
            self._apply()

    def _apply(self) -> None:
        if self._own is not None:
            # Pillow warns beyond its limit, and refuses beyond twice that.
            Image.MAX_IMAGE_PIXELS = max([self._own, *((wanted + 1) // 2 for wanted in self._wanted)])


_limit = _PillowLimit()


@contextmanager
def pixels_allowed(max_pixels: int) -> Iterator[None]:
    """Inside the block Pillow opens images of up to `max_pixels`, also where its own limit is lower.

    The caller still compares the size in the header with its limit, since Pillow's own may be higher. It is not
    taken away: Pillow asks it before it makes room for parts of an image while opening.
    """
    _limit.raise_to(max_pixels)
    try:
        yield
    finally:
        _limit.release(max_pixels)
