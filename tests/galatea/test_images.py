"""Photos of every kind are decoded; what cannot be decoded says why."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from galatea.errors import InputError
from galatea.images import decode_grey, decode_image, encode_png, encode_webp, to_tensor, to_uint8


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def ramp() -> np.ndarray:
    """48 x 64, red to the right, green downwards."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[..., 0] = np.arange(64) * 4
    picture[..., 1] = np.arange(48)[:, None] * 5
    picture[..., 2] = 90
    return picture


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_lossless_formats_come_back_exactly(ramp: np.ndarray, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode_image(encode(Image.fromarray(ramp), kind, **options)), ramp)


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"), [("CMYK", "TIFF", 1), ("CMYK", "JPEG", 8), ("P", "PNG", 40), ("P", "GIF", 40)]
)
def test_other_colour_spaces_become_rgb(ramp: np.ndarray, mode: str, kind: str, tolerance: int) -> None:
    image = Image.fromarray(ramp).quantize(256) if mode == "P" else Image.fromarray(ramp).convert(mode)
    decoded = decode_image(encode(image, kind)).astype(int)
    assert decoded.shape == ramp.shape
    assert np.abs(decoded - ramp).max() <= tolerance


def test_deep_greyscale_is_scaled_not_clipped() -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for data in (
        encode(Image.fromarray(deep)),
        encode(Image.fromarray(deep.astype(np.int32), mode="I"), "TIFF"),
        encode(Image.fromarray((deep / 65535).astype(np.float32)), "TIFF"),
    ):
        decoded = decode_image(data)
        assert decoded.shape == (16, 16, 3)
        assert np.abs(decoded[..., 0].reshape(-1).astype(int) - np.arange(256)).max() <= 1


def test_transparency_is_laid_over_white() -> None:
    layered = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    layered.putpixel((0, 0), (10, 20, 30, 255))
    decoded = decode_image(encode(layered))
    assert decoded[0, 0].tolist() == [10, 20, 30]
    assert decoded[4, 4].tolist() == [255, 255, 255]
    palette = layered.convert("P")
    palette.info["transparency"] = palette.getpixel((4, 4))
    assert decode_image(encode(palette, transparency=palette.getpixel((4, 4))))[4, 4].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(ramp: np.ndarray, orientation: int) -> None:
    turned = {
        1: ramp,
        2: ramp[:, ::-1],
        3: ramp[::-1, ::-1],
        4: ramp[::-1],
        5: ramp.transpose(1, 0, 2),
        6: np.rot90(ramp, 1),
        7: ramp[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(ramp, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(encode(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)), ramp)


def test_damaged_exif_is_ignored(ramp: np.ndarray) -> None:
    data = encode(Image.fromarray(ramp), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")
    assert np.array_equal(decode_image(data), ramp)


def test_embedded_profile_is_applied(ramp: np.ndarray) -> None:
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert decode_image(encode(Image.fromarray(ramp), icc_profile=lab_like)).shape == ramp.shape
    assert np.array_equal(decode_image(encode(Image.fromarray(ramp), icc_profile=b"not a profile")), ramp)


def bomb(width: int, height: int) -> bytes:
    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty.*0 bytes"),
        (b"This is a text file, whatever its name says.", "Not a photo.*This is"),
        (bomb(30000, 30000), "too large"),
        (bomb(12000, 12000), "too large.*12000x12000"),
        (bomb(50, 50), "damaged"),
    ],
    ids=["empty", "text", "bomb", "large", "truncated-png"],
)
def test_unusable_bytes_are_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        decode_image(data)


def test_truncated_jpeg_is_refused(ramp: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG")
    with pytest.raises(InputError, match="damaged"):
        decode_image(data[: len(data) // 2])


def test_any_cut_or_flipped_file_is_decoded_or_refused(ramp: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        data = bytearray(encode(Image.fromarray(ramp), kind))
        for _ in range(40):
            broken = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
            for _ in range(4):
                broken[rng.integers(len(broken))] = rng.integers(256)
            try:
                decoded = decode_image(bytes(broken), max_pixels=10_000_000)
            except InputError:
                continue
            assert decoded.dtype == np.uint8
            assert decoded.shape[2] == 3


def test_encoders_and_tensors_round_trip(ramp: np.ndarray) -> None:
    assert np.array_equal(decode_image(encode_webp(ramp)), ramp)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert len(encode_webp(noise, is_lossless=False)) < 0.7 * len(encode_webp(noise))
    assert np.array_equal(decode_image(encode_png(ramp)), ramp)
    assert np.array_equal(decode_grey(encode_png(ramp[..., 0])), ramp[..., 0])
    batch = to_tensor([ramp, ramp[::-1]])
    assert batch.shape == (2, 3, 48, 64)
    assert batch.min() >= -1
    assert batch.max() <= 1
    assert np.array_equal(to_uint8(batch)[0], ramp)
