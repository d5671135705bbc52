"""Photos in and pictures out: decode anything that people call a photo, encode crops and mattes.

Outside the library pictures are uint8 HWC RGB, inside they are float BCHW RGB in [-1, 1]; this file is the border.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from galatea.errors import InputError
from galatea.pixel_limit import pixels_allowed

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""What is decoded. Formats that can run programs or read other files (EPS, PDF) are not even tried."""

MAX_PIXELS = 120_000_000
"""Largest photo that is decoded (a 100 megapixel camera passes); three bytes each in memory."""

_WHITE = (255, 255, 255, 255)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a photo to upright 8-bit sRGB.

    EXIF orientation and embedded colour profiles are applied, transparency is laid over white, 16-bit and floating
    point are scaled to 8 bits, of an animation the first frame is taken. The size is checked in the header, before
    memory is spent.

    Raises:
        InputError: empty, not a photo, damaged, or larger than `max_pixels`.
    """
    if not data:
        raise InputError("The photo is empty: expected image bytes, got 0 bytes. Replace the file or leave it out.")
    try:
        with warnings.catch_warnings(), pixels_allowed(max_pixels):
            # The size is checked below; damaged EXIF and the like do not keep a photo from being used.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, max_pixels)
                image.load()
                return _upright_rgb(image)
    except UnidentifiedImageError as error:
        raise InputError(
            f"Not a photo: expected one of {', '.join(FORMATS)}, got {len(data)} bytes that begin with {data[:12]!r}. "
            "Convert the file or leave it out."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"The photo is too large: expected at most {max_pixels} pixels ({error}). Downscale it first."
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, ZeroDivisionError) as error:
        # Pillow's decoders report damage with all of these.
        raise InputError(
            f"The photo is damaged: expected a complete image, but decoding its {len(data)} bytes failed ({error}). "
            "Copy it again from the source or leave it out."
        ) from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"The photo is too large: expected at most {max_pixels / 1e6:.0f} megapixels, got {width}x{height} "
            f"({width * height / 1e6:.0f}). Downscale it or raise the limit on pixels."
        )


def _upright_rgb(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    profile = image.info.get("icc_profile")
    orientation = _orientation(image)
    flat = _to_srgb(_over_white(_to_eight_bits(image)), profile)
    # A copy: Pillow's own memory is read-only.
    return np.array(flat if orientation is None else flat.transpose(orientation))


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns the stored picture upright; damaged EXIF counts as none."""
    try:
        tag = image.getexif().get(0x0112, 1)
    except (ValueError, SyntaxError, struct.error, OSError, KeyError, TypeError, IndexError):
        return None
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return turns.get(tag)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale deep greyscale (16-bit, 32-bit, float) to 8 bits; Pillow itself reads deep colour as 8 bits."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        top = 1.0 if values.max(initial=0) <= 1 else 255.0 if values.max() <= 255 else 65535.0
    else:
        top = 65535.0 if values.max(initial=0) <= 65535 else 2.0**32 - 1
    return Image.fromarray(np.clip(np.nan_to_num(values) / top * 255 + 0.5, 0, 255).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), layered).convert("RGB")
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Apply an embedded profile (wide-gamut phone photos, CMYK scans); an unusable one is ignored as viewers do."""
    if profile and image.mode in {"RGB", "CMYK", "L"}:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                return converted if converted is not None else image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image.convert("RGB")
    return image.convert("RGB")


def encode_webp(image: UInt8[np.ndarray, "height width 3"], quality: int = 90, is_lossless: bool = True) -> bytes:
    """Encode RGB as WebP; lossless for crops, `is_lossless=False` with a quality for previews."""
    buffer = io.BytesIO()
    # For lossless, quality and method only trade time for size.
    Image.fromarray(image).save(buffer, "WEBP", lossless=is_lossless, quality=30 if is_lossless else quality, method=2)
    return buffer.getvalue()


def encode_png(image: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    """Encode RGB (H, W, 3) or grey (H, W) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def decode_grey(data: bytes) -> UInt8[np.ndarray, "height width"]:
    """Decode a one-channel picture (a matte) written by `encode_png`.

    Raises:
        InputError: as `decode_image`.
    """
    return np.ascontiguousarray(decode_image(data)[..., 0])


def to_tensor(
    images: np.ndarray | Sequence[np.ndarray], device: torch.device | str = "cpu"
) -> Float[Tensor, "batch 3 height width"]:
    """Turn uint8 HWC RGB picture(s) of one size into a float batch in [-1, 1]."""
    stacked = np.stack(images) if not isinstance(images, np.ndarray) else images
    batch = stacked if stacked.ndim == 4 else stacked[None]
    return torch.from_numpy(np.ascontiguousarray(batch)).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_uint8(images: Float[Tensor, "batch channels height width"]) -> UInt8[np.ndarray, "batch height width channels"]:
    """Turn a float batch in [-1, 1] into uint8 HWC pictures, rounded and clamped."""
    scaled = images.detach().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
