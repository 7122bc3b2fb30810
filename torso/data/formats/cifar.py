"""CIFAR-10 and CIFAR-100 as their "python version" has them: pickles of arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.places import mapped, no_split
from torso.data.index import Index
from torso.data.stores import Arrays
from torso.data.unpickle import Array, read_pickle

MAX_BYTES = 1 << 30  # of one file; CIFAR-100's largest has 155 million
_FOLDERS = ("cifar-10-batches-py", "cifar-100-python", ".")
Pixels = NDArray[np.uint8]


class Cifar:
    """CIFAR-10: ``data_batch_*``, ``test_batch``, ``batches.meta``; CIFAR-100: ``train``, ``test``, ``meta``.

    How many pictures there are and how large they are is told by the data, the classes by the meta file (for
    CIFAR-100 the fine ones). The files are pickles; they are read without running them. There is no "val": asked for,
    it is "test".

    Source: Learning Multiple Layers of Features from Tiny Images, 2009; file layout as torchvision CIFAR10.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether the files are there."""
        return _place(path) is not None

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        place = _place(path)
        return [] if place is None else [split for split in ("train", "test") if _files(place, split)]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split; its pictures are in memory."""
        place = _place(path)
        if place is None:
            raise DataError(f"{path}: expected data_batch_1 and batches.meta, or train and meta, found neither")
        files = _files(place, split)
        if not files:
            raise no_split(path, split, Cifar.splits(path))
        names = _names(place)
        chosen, label_of = mapped(names, classes)
        builder = Builder(place, chosen, task="classify")
        kept: list[Pixels] = []
        for file in files:
            pixels, labels, stems = _content(builder, file)
            if kept and pixels.shape[1:] != kept[0].shape[1:]:
                raise DataError(f"{file}: holds pictures of another size than {files[0].name}")
            rows = []
            for row, (label, stem) in enumerate(zip(labels, stems, strict=True)):
                if label is None:
                    continue
                if not 0 <= label < len(names):
                    message = f"picture {row}: expected a class in 0..{len(names) - 1}, came {label}"
                    builder.report("class out of range", file, message)
                elif names[label] not in label_of:
                    message = f"picture {row}: class {names[label]!r} is not one of {', '.join(chosen)}"
                    builder.report("unknown class", file, message)
                else:
                    size = (pixels.shape[2], pixels.shape[1])
                    builder.image(file / stem, size, f"{file.name}/{row}", label_of[names[label]])
                    rows.append(row)
            kept.append(pixels[rows])
        index = builder.finish()
        places = np.arange(len(index), dtype=np.int64)[:, None]
        return replace(index, store=Arrays(np.concatenate(kept)), places=places, fingerprint="")

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Cannot be written: torso makes no pickles."""
        raise DataError(f"{folder}: CIFAR's files are pickles, which are never written; convert to folder instead")


def _place(path: Path) -> Path | None:
    """The folder with the files."""
    for place in (path / name for name in _FOLDERS):
        for meta, others in (("batches.meta", ("data_batch_1", "test_batch")), ("meta", ("train", "test"))):
            if (place / meta).is_file() and any((place / name).is_file() for name in others):
                return place
    return None


def _files(place: Path, split: str) -> list[Path]:
    split = "test" if split in ("val", "valid") else split
    if (place / "batches.meta").is_file():
        found = [file for file in place.iterdir() if re.fullmatch(r"data_batch_\d{1,4}", file.name)]
        train = sorted(found, key=lambda file: int(file.name.rpartition("_")[2]))
        return {"train": train, "test": [place / "test_batch"] * (place / "test_batch").is_file()}.get(split, [])
    return [place / split] if split in ("train", "test") and (place / split).is_file() else []


def _loaded(file: Path) -> dict[str, Any]:
    """The dict of a file; Python 2 wrote its keys as bytes."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file}: is larger than {MAX_BYTES} bytes")
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    content = read_pickle(data, str(file))
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a dict, came a {type(content).__name__}")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _names(place: Path) -> list[str]:
    file = next(place / name for name in ("batches.meta", "meta") if (place / name).is_file())
    content = _loaded(file)
    names = content.get("fine_label_names", content.get("label_names"))
    if not isinstance(names, list) or not names or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{file}: expected label_names, a list of text")
    if len(set(map(_text, names))) != len(names):
        raise DataError(f"{file}: label_names lists a name twice; classes are told apart by their names")
    return [_text(name) for name in names]


def _content(builder: Builder, file: Path) -> tuple[Pixels, list[int | None], list[str]]:
    """Pixels ``[n, H, W, 3]``, labels (None where a picture cannot be used, which is noted) and names."""
    content = _loaded(file)
    labels = content.get("fine_labels", content.get("labels"))
    labels = labels.values.tolist() if isinstance(labels, Array) and isinstance(labels.values, np.ndarray) else labels
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{file}: expected labels, a list of whole numbers")
    planes, whole = _planes(file, content.get("data"), len(labels))
    for row in np.flatnonzero(~whole):
        builder.report("damaged image", file, f"picture {row} has another size than the first; left out")
    side = math.isqrt(planes.shape[1] // 3)
    if not side or planes.shape[1] != 3 * side * side:
        message = f"{planes.shape[1]} values a picture; expected red, green and blue of a square"
        raise DataError(f"{file}: data: came {message}")
    pixels = np.ascontiguousarray(planes.reshape(-1, 3, side, side).transpose(0, 2, 3, 1))
    stems = content.get("filenames")
    stems = stems if isinstance(stems, list) and len(stems) == len(labels) else [None] * len(labels)
    named = [f"{row:05d}.png" if stem is None else _stem(stem, row) for row, stem in enumerate(stems)]
    return pixels, [label if ok else None for label, ok in zip(labels, whole, strict=True)], named


def _stem(value: Any, row: int) -> str:
    """The last part of a name, fit to be a file's."""
    text = _text(value) if isinstance(value, str | bytes) else ""
    name = re.split(r"[/\\]", text)[-1]
    return name if name.isprintable() and name.strip(". ") and len(name) < 200 else f"{row:05d}.png"


def _planes(file: Path, data: Any, count: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """Values ``[n, 3 * H * W]``, and which of the pictures are whole."""
    values = data.values if isinstance(data, Array) else None
    if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.ndim == 2 and len(values) == count:
        return values, np.ones(count, np.bool_)
    if not isinstance(values, list) or not count:
        raise DataError(f"{file}: expected data, an array of {count} rows of 8-bit values")
    if all(type(value) is int for value in values):  # an array of objects that are the numbers themselves
        if len(values) % count or not all(0 <= value <= 255 for value in values):
            raise DataError(f"{file}: data: expected values in 0..255, as many for each of the {count} pictures")
        return np.array(values, np.uint8).reshape(count, -1), np.ones(count, np.bool_)
    rows = [row.values if isinstance(row, Array) else None for row in values]
    first = rows[0]
    if not isinstance(first, np.ndarray) or len(rows) != count:
        raise DataError(f"{file}: expected data, an array of {count} rows of 8-bit values")
    whole = [isinstance(row, np.ndarray) and row.dtype == np.uint8 and row.size == first.size for row in rows]
    blank = np.zeros(first.size, np.uint8)
    planes = [row.reshape(-1) if ok else blank for row, ok in zip(rows, whole, strict=True)]  # type: ignore[union-attr]
    return np.stack(planes).astype(np.uint8), np.array(whole)
