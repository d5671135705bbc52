"""A small archive of photos for tests of ingest, and what its manifest says."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from pipeline.manifest import read_rows
from pipeline.storage import Store


class RefusingFileSystem(LocalFileSystem):
    """Refuses to read what it is told to, and lists it all the same."""

    protocol = "refusing"
    refusals: ClassVar[dict[str, OSError]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("refusing://"))

    @classmethod
    @contextmanager
    def refusing(cls, name: str, error: OSError) -> Iterator[None]:
        cls.refusals[name] = error
        try:
            yield
        finally:
            del cls.refusals[name]

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        error = self.refusals.get(Path(path).name)
        if error is not None:
            raise error
        return super().cat_file(path, *args, **kwargs)


fsspec.register_implementation("refusing", RefusingFileSystem, clobber=True)


def write_archive(folder: Path) -> Path:
    """Three photos, one of them in a sub-folder."""
    (folder / "more").mkdir(parents=True)
    save(folder / "b.png", 1)
    save(folder / "a.jpg", 2)
    save(folder / "more" / "c.webp", 3)
    return folder


def save(path: Path, shade: int, **options: object) -> None:
    Image.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(path, **options)


def png_of_size(width: int, height: int) -> bytes:
    """A header that promises many pixels, and hardly any bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )


def write_list(path: Path, *entries: object) -> str:
    path.write_text("\n".join(["uri", *map(str, entries)]))
    return str(path)


def errors(store: Store) -> dict[str, str]:
    return {row["file_name"]: row["error_code"] for row in read_rows(store, "ingest") if row["error_code"]}


def names(store: Store) -> list[str]:
    return [row["file_name"] for row in read_rows(store, "ingest")]
