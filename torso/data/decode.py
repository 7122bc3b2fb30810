"""From a file to upright RGB pixels: the only place that opens pictures.

The kind of a file is told by its content, never by its name. Files are read as bytes first, so a path may hold
any character. torchvision.io is never used: 93 of 150 damaged PNG files made it crash the process.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torso.data.headers import DecodeError, check_size, jpeg_header, opened, orientation_of, probe, read

__all__ = ["DecodeError", "Pixels", "decode", "probe"]

Pixels = NDArray[np.uint8]
"""``[H, W, 3]`` RGB."""


def decode(
    source: Path | str | bytes | Pixels, max_scale_down: float = 1, *, pillow: bool = False, bits: int = 8
) -> Pixels:
    """Reads a picture as upright RGB of 8 bits, or of 16.

    Grey and palette become RGB, CMYK is converted, alpha is dropped (not composited), 16 bits are divided by 257,
    floating point in 0..1 is multiplied by 255, of an animation the first frame counts.

    Args:
        source: a path, the bytes of a file, or pixels ``[H, W]`` or ``[H, W, 3]`` that are RGB already.
        max_scale_down: the picture may be returned up to this many times smaller (a power of two up to 8 inside
            the JPEG decoder, where that is nearly free); other formats are returned in full size.
        pillow: decode JPEG with Pillow too, for comparison with other libraries.
        bits: 8, or 16 to keep what scans have: 8-bit pictures are multiplied by 257. Of 16-bit colour Pillow gives
            the upper 8 bits only.

    Returns:
        ``[H, W, 3]`` uint8, or uint16.

    Raises:
        DecodeError: with the path and the reason.
    """
    if bits == 16:
        return _deep(source, max_scale_down, pillow)
    if isinstance(source, np.ndarray):
        return source if source.ndim == 3 else np.repeat(source[..., None], 3, axis=2)
    path, data = read(source)
    jpeg = jpeg_header(data)
    if jpeg is not None:
        check_size(path, jpeg.width, jpeg.height)
        if jpeg.components in (1, 3) and not pillow:
            pixels = _fast_jpeg(data, jpeg.width, jpeg.height, max_scale_down)
            if pixels is not None:
                return _upright(pixels, jpeg.orientation)
    with opened(path, data, data) as image:
        try:
            image.load()
        except Exception as error:  # Pillow's plugins raise whatever their parsers raise
            raise DecodeError(path, f"damaged picture ({type(error).__name__}: {error})") from error
        return _upright(_to_rgb(image, path, 8), orientation_of(image))


def _deep(source: Path | str | bytes | Pixels, max_scale_down: float, pillow: bool) -> Pixels:
    """The picture in 16 bits."""
    if not isinstance(source, np.ndarray):
        path, data = read(source)
        if jpeg_header(data) is None:
            with opened(path, data, data) as image:
                if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                    try:
                        image.load()
                    except Exception as error:  # Pillow's plugins raise whatever their parsers raise
                        raise DecodeError(path, f"damaged picture ({type(error).__name__}: {error})") from error
                    return _upright(_to_rgb(image, path, 16), orientation_of(image))
    return decode(source, max_scale_down, pillow=pillow).astype(np.uint16) * np.uint16(257)


def _fast_jpeg(data: bytes, width: int, height: int, max_scale_down: float) -> Pixels | None:
    """libjpeg-turbo's answer when it has no complaint, else None.

    A file that only lacks its two closing bytes decodes completely, so that one damage is forgiven; a file cut
    earlier makes the decoder warn, which ``strict`` turns into a refusal.
    """
    import simplejpeg

    factor = next((factor for factor in (8, 4, 2) if factor <= max_scale_down), 1)
    small = (-(-height // factor), -(-width // factor)) if factor > 1 else (0, 0)
    for candidate in (data, data + b"\xff\xd9"):
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                candidate, "RGB", min_height=small[0], min_width=small[1], min_factor=factor, strict=True
            )
        except ValueError:
            continue
        return pixels
    return None


def _to_rgb(image: Image.Image, path: str, bits: int) -> Pixels:
    """RGB by the rules of ``decode``; Pillow's own conversion would clip 16 bits to white."""
    most, kind = (255.0, np.uint8) if bits == 8 else (65535.0, np.uint16)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if image.mode == "F":
            if not (low >= 0 and high <= 1):
                raise DecodeError(
                    path, f"floating point in {low:g}..{high:g} has no fixed meaning; scale it to 0..1 or to 8 bits"
                )
            grey = np.rint(values * most)
        elif low < 0 or high > 65535:
            raise DecodeError(
                path, f"32-bit values in {low:g}..{high:g} have no fixed meaning; save it with 8 or 16 bits"
            )
        else:
            grey = np.rint(values * (most / 65535.0))
        return np.repeat(grey.astype(kind)[..., None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes an EXIF orientation. The one place in torso where that happens."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
