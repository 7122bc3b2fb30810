"""From a file to upright RGB pixels: the only place that opens pictures.

The kind of a file is told by its content, never by its name. Files are read as bytes first, so a path may hold
any character. torchvision.io is never used: 93 of 150 damaged PNG files made it crash the process.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torso.config import DataError

Pixels = NDArray[np.uint8]
"""``[H, W, 3]`` RGB."""

MAX_PIXELS = 178_956_970
"""Pictures larger than this are refused (Pillow's own limit against decompression bombs)."""

_ORIENTATION = 0x0112


class DecodeError(DataError):
    """A file that is not a picture, or is damaged, or cannot be mapped to 8-bit RGB without guessing."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str]]:
        return DecodeError, (self.path, self.reason)


@dataclass(frozen=True)
class Header:
    """What a file says about itself: upright size (width, height), EXIF orientation 1..8, number of frames."""

    size: tuple[int, int]
    orientation: int = 1
    frames: int = 1


def probe(source: Path | str | bytes) -> Header:
    """The upright size of a picture, from its header alone.

    Raises:
        DecodeError: missing, not a picture, or too large.
    """
    path, data = _read(source, 1 << 18)
    jpeg = _jpeg_header(data)
    if jpeg is not None:
        width, height, _, orientation = jpeg
        _check_size(path, width, height)
        return Header((height, width) if orientation >= 5 else (width, height), orientation)
    # Not from the first bytes alone: some formats keep their size at the end, and Pillow reads no more than it needs.
    with _opened(path, Path(path) if path else data, data) as image:
        try:
            orientation = _orientation(image)
            frames = int(getattr(image, "n_frames", 1))
        except Exception as error:  # Pillow's plugins raise whatever their parsers raise
            raise DecodeError(path, f"damaged picture ({type(error).__name__}: {error})") from error
        width, height = image.size
    return Header((height, width) if orientation >= 5 else (width, height), orientation, frames)


def decode(source: Path | str | bytes, max_scale_down: float = 1, *, pillow: bool = False) -> Pixels:
    """Reads a picture as upright 8-bit RGB.

    Grey and palette become RGB, CMYK is converted, alpha is dropped (not composited), 16 bits are divided by 257,
    floating point in 0..1 is multiplied by 255, of an animation the first frame counts.

    Args:
        source: a path, or the bytes of a file.
        max_scale_down: the picture may be returned up to this many times smaller (a power of two up to 8 inside
            the JPEG decoder, where that is nearly free); other formats are returned in full size.
        pillow: decode JPEG with Pillow too, for comparison with other libraries.

    Returns:
        ``[H, W, 3]`` uint8.

    Raises:
        DecodeError: with the path and the reason.
    """
    path, data = _read(source)
    jpeg = _jpeg_header(data)
    if jpeg is not None:
        width, height, components, orientation = jpeg
        _check_size(path, width, height)
        if components in (1, 3) and not pillow:
            pixels = _fast_jpeg(data, width, height, max_scale_down)
            if pixels is not None:
                return _upright(pixels, orientation)
    with _opened(path, data, data) as image:
        try:
            orientation = _orientation(image)
            image.load()
        except Exception as error:  # Pillow's plugins raise whatever their parsers raise
            raise DecodeError(path, f"damaged picture ({type(error).__name__}: {error})") from error
        return _upright(_to_rgb8(image, path), orientation)


def _read(source: Path | str | bytes, limit: int = -1) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "", source
    try:
        with Path(source).open("rb") as file:
            data = file.read(limit)
    except FileNotFoundError as error:
        raise DecodeError(str(source), "no such file") from error
    except OSError as error:
        raise DecodeError(str(source), f"cannot be read ({error.strerror})") from error
    if not data:
        raise DecodeError(str(source), "is empty (0 bytes)")
    return str(source), data


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DecodeError(path, f"{width}x{height} is more than {MAX_PIXELS} pixels; tile it or make it smaller")
    if width * height == 0:
        raise DecodeError(path, f"its header says {width}x{height} pixels")


def _jpeg_header(data: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, components and EXIF orientation; None for anything but an ordinary 8-bit JPEG."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    orientation, at = 1, 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 10 : at + 2 + length])
        elif marker in (0xC0, 0xC1, 0xC2):
            precision, height, width, components = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return (width, height, components, orientation) if precision == 8 and height else None
        elif marker == 0xFF:  # a fill byte
            at += 1
            continue
        elif length < 2 or marker == 0xDA or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return None  # broken, the scan without a frame, or lossless and arithmetic coding
        at += 2 + length
    return None


def _exif_orientation(tiff: bytes) -> int:
    """The orientation of a TIFF-like EXIF block, 1 where absent or senseless."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 14:
        return 1
    start = struct.unpack(f"{order}I", tiff[4:8])[0]
    if start + 2 > len(tiff):
        return 1
    count = struct.unpack(f"{order}H", tiff[start : start + 2])[0]
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack(f"{order}HH", tiff[at : at + 4])
        if tag == _ORIENTATION and kind == 3:
            value: int = struct.unpack(f"{order}H", tiff[at + 8 : at + 10])[0]
            return value if 1 <= value <= 8 else 1
    return 1


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


def _opened(path: str, source: Path | bytes, start: bytes) -> Image.Image:
    """The picture with its header read; ``start`` is how the file begins, for the message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures and odd metadata; the limit itself raises
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.DecompressionBombError as error:
        raise DecodeError(path, f"too large ({error}); tile it or make it smaller") from error
    except Exception as error:  # Pillow's plugins raise whatever their parsers raise
        raise DecodeError(path, _not_a_picture(start)) from error


def _not_a_picture(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "is a git-LFS pointer, not the picture; run git lfs pull"
    if start.startswith(b"\xff\xd8") or start.startswith(b"\x89PNG"):
        return "is cut off or damaged: it has no readable header"
    return f"is not a picture (starts with {start[:16].decode('latin-1')!r})"


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb8(image: Image.Image, path: str) -> Pixels:
    """8-bit RGB by the rules of ``decode``; Pillow's own conversion would clip 16 bits to white."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if image.mode == "F":
            if not (low >= 0 and high <= 1):
                raise DecodeError(
                    path, f"floating point in {low:g}..{high:g} has no fixed meaning; scale it to 0..1 or to 8 bits"
                )
            grey = np.rint(values * 255)
        elif low < 0 or high > 65535:
            raise DecodeError(
                path, f"32-bit values in {low:g}..{high:g} have no fixed meaning; save it with 8 or 16 bits"
            )
        else:
            grey = np.rint(values / 257.0)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
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
