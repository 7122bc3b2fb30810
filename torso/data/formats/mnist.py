"""MNIST and its kin: idx files, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.places import mapped, no_split
from torso.data.index import Index
from torso.data.stores import Arrays

MAX_BYTES = 2 << 30  # of the pictures of one file
MAX_RATIO = 200  # of what comes out of a gzip file to what went in, where that is much
MUCH = 64 << 20
_PLACES = (".", "MNIST/raw", "FashionMNIST/raw", "raw")
_SPLITS = {"train": ("train",), "test": ("t10k", "test")}
_BYTE = 0x08  # the code of unsigned bytes in the header


class Mnist:
    """``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same of ``t10k``, with or without ``.gz``.

    How many pictures there are and how large they are is told by the header. Classes are the lines of ``labels.txt``
    or ``classes.txt`` beside them, else "0" to "9" (or to the largest label). There is no "val": asked for, it is
    "test".

    Source: Gradient-based learning applied to document recognition, 1998.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether the files are there."""
        return bool(Mnist.splits(path))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return [split for split in _SPLITS if _pair(path, split) is not None]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split; its pictures are in memory."""
        pair = _pair(path, split)
        if pair is None:
            raise no_split(path, split, Mnist.splits(path))
        pixels, labels = read_idx(pair[0], 3), read_idx(pair[1], 1)
        if len(pixels) != len(labels):
            raise DataError(f"{pair[1]}: has {len(labels)} labels, {pair[0].name} has {len(pixels)} pictures")
        builder = Builder(pair[0].parent, (), task="classify")
        names = _names(builder, path, pair[1], labels)
        builder.classes, label_of = mapped(names, classes)
        size = (pixels.shape[2], pixels.shape[1])
        kept = []
        for row, label in enumerate(labels.tolist()):
            if label >= len(names):
                message = f"label {row}: expected a class in 0..{len(names) - 1}, came {label}"
                builder.report("class out of range", pair[1], message)
            elif names[label] not in label_of:
                message = f"label {row}: class {names[label]!r} is not one of {', '.join(builder.classes)}"
                builder.report("unknown class", pair[1], message)
            else:
                builder.image(pair[0].parent / split / f"{row:06d}.png", size, row, label_of[names[label]])
                kept.append(row)
        index = builder.finish()
        places = np.array(kept, np.int64)[:, None]
        return replace(index, store=Arrays(pixels), places=places, fingerprint="")

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Cannot be written."""
        raise DataError(f"{folder}: idx files hold pictures of one size and are only read; convert to folder instead")


def read_idx(file: Path, sides: int) -> NDArray[np.uint8]:
    """The array of an idx file.

    Args:
        file: plain or gzipped, told by its content.
        sides: how many the array has to have.

    Raises:
        DataError: another kind of file, cut off, longer than its header says, or too large.
    """
    head = 4 + 4 * sides
    try:
        stored = file.stat().st_size
        with file.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(file) if zipped else file.open("rb") as stream:
            start = stream.read(head)
            if len(start) < head or start[:4] != bytes([0, 0, _BYTE, sides]):
                expected = f"idx{sides} of unsigned bytes (it begins 0000{_BYTE:02x}{sides:02x})"
                raise DataError(f"{file}: expected {expected}, it begins {start[:4].hex() or 'nowhere'}")
            shape = struct.unpack(f">{sides}I", start[4:])
            count = math.prod(shape)
            said = f"its header says {'x'.join(map(str, shape))}"
            if count > MAX_BYTES or (zipped and count > MUCH and count > MAX_RATIO * stored):
                raise DataError(f"{file}: {said}, which is more than is read from {stored} bytes")
            data = stream.read(count + 1)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{file}: is cut off or damaged ({error})") from error
    if len(data) != count or (sides == 3 and 0 in shape[1:]):
        came = "more came" if len(data) > count else f"{len(data)} of {count} bytes came"
        raise DataError(f"{file}: {said}, but {came}; it is cut off or damaged")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _pair(path: Path, split: str) -> tuple[Path, Path] | None:
    """The files of pictures and labels."""
    split = "test" if split in ("val", "valid") else split
    for place in (path / name for name in _PLACES) if path.is_dir() else ():
        for name in _SPLITS.get(split, ()):
            found = [_file(place, f"{name}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
            if found[0] is not None and found[1] is not None:
                return found[0], found[1]
    return None


def _file(place: Path, name: str) -> Path | None:
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    return next((place / each for each in names if (place / each).is_file()), None)


def _names(builder: Builder, path: Path, file: Path, labels: NDArray[np.uint8]) -> list[str]:
    for place in (path, file.parent):
        for listing in (place / "labels.txt", place / "classes.txt"):
            if listing.is_file():
                lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                names = [line.strip() for line in lines if line.strip()]
                if len(set(names)) != len(names):
                    raise DataError(f"{listing}: lists a class twice; classes are told apart by their names")
                return names
    other = _pair(path, "train")  # says which classes there are, whatever the split
    most = int(max(labels.max(initial=0), 0 if other is None else read_idx(other[1], 1).max(initial=0)))
    if most > 9:
        message = f"labels reach {most}: the classes are taken to be 0..{most}; name them in classes.txt"
        builder.report("unnamed classes", file, message)
    return [str(number) for number in range(max(most, 9) + 1)]
