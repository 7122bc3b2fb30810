"""Every picture decoded once: what cannot be read, what is odd about it, and what it looks like.

Threads are enough, because the decoders work without Python's lock. What is kept of a picture is less than a
kilobyte; pixels are gone when the next ones come.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torso.data.decode import DecodeError, Pixels, decode
from torso.data.doctor.duplicates import THUMB, Codes, Grey, Traits, traits
from torso.data.doctor.findings import Finding, found, kind_of_reason
from torso.data.headers import jpeg_header, opened, orientation_of, read
from torso.data.index import Index
from torso.data.stores import Picture

Progress = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""

LONG = 10.0  # long side over short side from which a letterbox leaves little
SHORT = 8  # pixels of the short side below which there is nothing to see
_CHUNK = 256  # pictures between two reports of progress
_SHRINK_FROM = 4_000_000  # pixels; from here the JPEG decoder may leave out detail (it still reads every byte)
_ALONE_FROM = 30_000_000  # pixels; such pictures are decoded one at a time, or threads would fill the memory

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
}
_one_large = threading.Lock()


class Place(NamedTuple):
    """A row of the index of a split."""

    split: str
    row: int


class Seen(NamedTuple):
    """What is kept of one picture."""

    reason: str = ""  # why it cannot be decoded
    facts: tuple[tuple[str, str], ...] = ()  # (kind of finding, message)
    content: bytes = b""  # SHA-256 of the file
    pixels: bytes = b""  # SHA-256 of size and pixels
    traits: Traits | None = None


@dataclass
class Scan:
    """All different pictures of all splits, in order of the splits."""

    names: list[str] = field(default_factory=list)  # as messages name them
    files: list[str] = field(default_factory=list)  # absolute; "" where a store holds them
    places: list[list[Place]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def splits(self, at: int) -> list[str]:
        """The splits a picture is in."""
        return list(dict.fromkeys(place.split for place in self.places[at]))

    def codes(self) -> Codes:
        """``[N]`` hashes."""
        return np.array([one.traits.code if one.traits else 0 for one in self.seen], np.uint64)

    def thumbs(self) -> Grey:
        """``[N, THUMB, THUMB]``."""
        blank = np.zeros((THUMB, THUMB), np.uint8)
        thumbs = [one.traits.thumb if one.traits else blank for one in self.seen]
        return np.array(thumbs, np.uint8).reshape(-1, THUMB, THUMB)

    def unreadable(self) -> dict[str, set[int]]:
        """The rows of each split whose pictures cannot be decoded."""
        rows: dict[str, set[int]] = {}
        for one, places in zip(self.seen, self.places, strict=True):
            for place in places if one.reason else []:
                rows.setdefault(place.split, set()).add(place.row)
        return rows

    def findings(self) -> list[Finding]:
        """What the pictures themselves say."""
        said = []
        for name, file, places, one in zip(self.names, self.files, self.places, self.seen, strict=True):
            facts = [(kind_of_reason(one.reason), one.reason)] if one.reason else one.facts
            said += [found(kind, name, text, split=places[0].split, picture=file) for kind, text in facts]
        return said


def scan(indexes: Mapping[str, Index], progress: Progress | None = None) -> Scan:
    """Decodes every different picture of some splits."""
    result = _listed(indexes)
    total = len(result)
    with warnings.catch_warnings():
        # Pillow's warnings are muted picture by picture, which threads would do to each other's filters: once, outside.
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
            for start in range(0, total, _CHUNK):
                numbers = range(start, min(start + _CHUNK, total))
                result.seen += threads.map(lambda at: _look(indexes, result, at), numbers)
                if progress is not None:
                    progress(len(result.seen), total)
    return result


def _listed(indexes: Mapping[str, Index]) -> Scan:
    result = Scan()
    known: dict[str, int] = {}
    for split, index in indexes.items():
        for row, name in enumerate(index.paths):
            file = os.path.normpath(index.file(row).absolute())  # not resolve(): a link has a name of its own
            key = file
            if index.places is not None:
                key, file = f"{type(index.store).__name__} {name} {index.places[row].tolist()}", ""
            if key not in known:
                known[key] = len(result)
                result.names.append(name)
                result.files.append(file)
                result.places.append([])
            result.places[known[key]].append(Place(split, row))
    return result


def _look(indexes: Mapping[str, Index], listed: Scan, at: int) -> Seen:
    """One picture; runs in a thread."""
    split, row = listed.places[at][0]
    index = indexes[split]
    width, height = index.sizes[row].tolist()
    with _one_large if width * height > _ALONE_FROM else nullcontext():
        try:
            return _seen(index.picture(row), listed.names[at], width * height)
        except DecodeError as error:
            return Seen(reason=error.reason)
        except OSError as error:  # an archive that went away
            return Seen(reason=f"cannot be read ({error.strerror or error})")


def _seen(source: Picture, name: str, area: int) -> Seen:
    if isinstance(source, np.ndarray):
        pixels = decode(source)
        return Seen("", tuple(_shape(pixels)), b"", _digest(pixels), traits(pixels))
    data = read(source)[1] if isinstance(source, Path) else source
    scale = 4 if area > _SHRINK_FROM and jpeg_header(data) is not None else 1
    pixels = decode(data, scale)
    facts = (*_shape(pixels, area), *_container(data, name, pixels))
    return Seen("", facts, hashlib.sha256(data).digest(), _digest(pixels), traits(pixels))


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()


def _shape(pixels: Pixels, area: int = 0) -> list[tuple[str, str]]:
    height, width = pixels.shape[:2]
    said = []
    if max(height, width) >= LONG * min(height, width) or (min(height, width) < SHORT and area <= _SHRINK_FROM):
        said.append(("extreme shape", f"is {width}x{height} pixels"))
    if width * height > 1 and (pixels == pixels[0, 0]).all():
        said.append(("one colour", f"all pixels are {tuple(pixels[0, 0].tolist())}"))
    return said


def _container(data: bytes, name: str, pixels: Pixels) -> list[tuple[str, str]]:
    """What the file says beside its pixels."""
    jpeg = jpeg_header(data)
    said: list[tuple[str, str]] = []
    if jpeg is not None and jpeg.components in (1, 3):
        kind, mode, orientation = "JPEG", "L" if jpeg.components == 1 else "RGB", jpeg.orientation
    else:
        image = opened("", data, data)
        kind, mode, orientation = image.format or "", image.mode, orientation_of(image)
        if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            said.append(("alpha", f"has transparency ({mode})"))
    said += _depth(data, mode, pixels)
    if orientation != 1:
        said.append(("rotated by EXIF", f"EXIF orientation {orientation}"))
    # Past its middle: a thumbnail in the header has an end of its own.
    if kind == "JPEG" and data.rfind(b"\xff\xd9") < len(data) // 2:
        said.append(("no end marker", "lacks the two bytes that end a JPEG"))
    suffix = Path(name).suffix.lower()
    if kind in _SUFFIXES and suffix not in _SUFFIXES[kind]:
        said.append(("wrong suffix", f"is {kind} by its content"))
    return said


def _depth(data: bytes, mode: str, pixels: NDArray[np.uint8]) -> list[tuple[str, str]]:
    deep = mode == "I" or mode.startswith("I;16") or (data.startswith(b"\x89PNG") and data[24:25] == b"\x10")
    if deep:
        top = int(pixels.max())
        if 0 < top < 32:  # 12 bits or fewer are used
            return [("16 bits, dark", f"no value is above {(top + 1) * 257} of 65535")]
        return [("16 bits", "has 16 bits a channel")]
    if mode == "F":
        return [("floating point", "holds numbers in 0..1")]
    if mode == "CMYK":
        return [("CMYK", "has four ink channels")]
    return [("grey", "is grey")] if mode in ("L", "1") else []
