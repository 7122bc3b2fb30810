"""What a file of a picture says about itself before it is decoded: its size, upright, and whether it is one at all."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from torso.config import DataError

MAX_PIXELS = 178_956_970
"""Pictures larger than this are refused (Pillow's own limit against decompression bombs)."""

_HEAD = 1 << 18  # bytes: EXIF thumbnails and colour profiles come before the size
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # the tag of EXIF


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


class Jpeg(NamedTuple):
    """The frame header of a JPEG, not upright, and the EXIF orientation before it."""

    width: int
    height: int
    components: int
    orientation: int


def probe(source: Path | str | bytes) -> Header:
    """The upright size of a picture, from its header alone.

    Raises:
        DecodeError: missing, not a picture, or too large.
    """
    path, data = read(source, _HEAD)
    jpeg = jpeg_header(data)
    if jpeg is not None:
        return _upright_header(path, jpeg.width, jpeg.height, jpeg.orientation, 1)
    if data.startswith(_PNG):
        with io.BytesIO(data) if isinstance(source, bytes) else Path(source).open("rb") as file:
            try:
                return _upright_header(path, *_png_header(file))
            except struct.error as error:
                raise DecodeError(path, "is cut off or damaged: it has no readable header") from error
    # Not from the first bytes alone: some formats keep their size at the end, and Pillow reads no more than it needs.
    with opened(path, Path(path) if path else data, data) as image:
        try:
            orientation, frames = orientation_of(image), int(getattr(image, "n_frames", 1))
        except Exception as error:  # Pillow's plugins raise whatever their parsers raise
            raise DecodeError(path, f"damaged picture ({type(error).__name__}: {error})") from error
        return _upright_header(path, *image.size, orientation, frames)


def _upright_header(path: str, width: int, height: int, orientation: int, frames: int) -> Header:
    check_size(path, width, height)
    return Header((height, width) if orientation >= 5 else (width, height), orientation, frames)


def _png_header(file: BinaryIO) -> tuple[int, int, int, int]:
    """Width, height, orientation and frames; chunks are stepped over (Pillow would decode the picture for its EXIF)."""
    width = height = 0
    orientation = frames = 1
    file.seek(len(_PNG))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"IHDR" and length == 13:
            width, height = struct.unpack(">II", file.read(8))
            length -= 8
        elif kind == b"eXIf" and length <= _HEAD:
            orientation = exif_orientation(file.read(length))
            length = 0
        elif kind == b"acTL" and length == 8:
            frames = struct.unpack(">I", file.read(4))[0]
            length -= 4
        file.seek(length + 4, 1)
    return width, height, orientation, frames


def read(source: Path | str | bytes, limit: int = -1) -> tuple[str, bytes]:
    """The path for messages and the first ``limit`` bytes."""
    if isinstance(source, bytes):
        return "", source
    try:
        with Path(source).open("rb") as file:
            data = file.read(limit)
    except FileNotFoundError as error:
        raise DecodeError(str(source), "no such file") from error
    except OSError as error:
        raise DecodeError(str(source), f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # a zero byte in the name
        raise DecodeError(str(source), f"cannot be read ({error})") from error
    if not data:
        raise DecodeError(str(source), "is empty (0 bytes)")
    return str(source), data


def check_size(path: str, width: int, height: int) -> None:
    """Refuses what is too large to be decoded."""
    if width * height > MAX_PIXELS:
        raise DecodeError(path, f"{width}x{height} is more than {MAX_PIXELS} pixels; tile it or make it smaller")
    if width * height == 0:
        raise DecodeError(path, f"its header says {width}x{height} pixels")


def jpeg_header(data: bytes) -> Jpeg | None:
    """What an ordinary 8-bit JPEG says; None for anything else."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    orientation, at = 1, 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 10 : at + 2 + length])
        elif marker in (0xC0, 0xC1, 0xC2):
            precision, height, width, components = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return Jpeg(width, height, components, orientation) if precision == 8 and height else None
        elif marker == 0xFF:  # a fill byte
            at += 1
            continue
        elif length < 2 or marker == 0xDA or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return None  # broken, the scan without a frame, or lossless and arithmetic coding
        at += 2 + length
    return None


def exif_orientation(tiff: bytes) -> int:
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


def opened(path: str, source: Path | bytes, start: bytes) -> Image.Image:
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


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation 1..8 of a loaded picture that is still to be undone (Pillow itself turns TIFF)."""
    block = image.info.get("exif") or b""
    return 1 if image.format == "TIFF" else exif_orientation(block.removeprefix(b"Exif\0\0"))
