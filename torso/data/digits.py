"""The built-in data set: handwritten digits on photographs.

Scikit-learn ships 1797 scanned digits of 8x8 pixels and two photographs; no download is needed. The digits are
enlarged smoothly and varied in size, rotation, ink and contrast. Boxes are tight, masks exact.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.decode import Pixels
from torso.data.index import Index
from torso.data.lay import resized
from torso.data.masks import encoded

CLASSES = tuple("0123456789")
Ink = NDArray[np.float32]
"""``[h, w]`` in 0..1."""
Place = tuple[slice, slice]
"""Rows and columns of a picture."""
_OVERLAP = 0.05  # largest part of a digit's box that another may cover


@dataclass(frozen=True)
class _Source:
    """What pictures are made of: the digits of one split, and the photographs."""

    digits: NDArray[np.float32]  # [n, 8, 8] ink in 0..1
    labels: NDArray[np.int64]  # [n]
    photos: list[Pixels]


def make(
    folder: Path | str,
    *,
    format: Literal["voc", "coco", "yolo", "folder"] = "voc",  # noqa: A002 - the word of the command line
    count: int = 400,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Writes the digits as a data set; the same files for the same arguments.

    Args:
        folder: where to; made when it is missing.
        format: voc, coco (with masks) and yolo hold several digits a picture, folder one digit a picture.
        count: pictures in all; a fifth of them are the validation split, made of other scans than the training split.
        size: side of the pictures in pixels; for format "folder" a quarter of it.
        seed: of everything random.

    Returns:
        The folder.

    Raises:
        DataError: the folder holds something already.
    """
    from torso.data.formats import FORMATS

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected a new or empty folder; nothing was written")
    held = max(count // 5, 1)
    for split, number in (("train", count - held), ("val", held)):
        source = _source(split)
        rng = np.random.default_rng([seed, len(split), size])
        with tempfile.TemporaryDirectory() as scratch:
            if format == "folder":
                index = _classified(source, Path(scratch), number, size // 4, rng, split)
            else:
                index = _detected(source, Path(scratch), number, size, rng, split)
            FORMATS[format].write(index, folder, split)
    return folder


def _source(split: str) -> _Source:
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    # Neighbouring rows are mostly by one hand: the last fifth is other handwriting.
    rows = slice(0, 1437) if split == "train" else slice(1437, None)
    ink = digits.images[rows].astype(np.float32) / 16
    return _Source(ink, digits.target[rows].astype(np.int64), list(load_sample_images().images))


def _detected(source: _Source, folder: Path, count: int, size: int, rng: np.random.Generator, split: str) -> Index:
    """Pictures with one to six digits."""
    builder = Builder(folder, CLASSES)
    for number in range(count):
        picture = _background(source, size, rng)
        labels: list[int] = []
        masks: list[NDArray[np.bool_]] = []
        for label, ink, place in _scattered(source, size, rng):
            _paint(picture[place], ink, rng)
            covers = np.zeros((size, size), np.bool_)
            covers[place] = ink > 0.5
            masks = [mask & ~covers for mask in masks]  # what is painted over is no longer seen
            masks.append(covers)
            labels.append(label)
        rows = [_object(label, mask) for label, mask in zip(labels, masks, strict=True)]
        path = _save(picture, folder / f"{split}_{number:05d}.jpg")
        builder.image(path, (size, size), number + 1)
        builder.objects(rows, path)
    return builder.finish()


def _classified(source: _Source, folder: Path, count: int, size: int, rng: np.random.Generator, split: str) -> Index:
    """One large digit a picture."""
    builder = Builder(folder, CLASSES, task="classify")
    for number in range(count):
        picture = _background(source, size, rng)
        label, stamp = _stamp(source, rng.uniform(0.6, 0.95) * size, rng)
        stamp = stamp[:size, :size]
        _paint(picture[_somewhere(stamp, size, rng)], stamp, rng)
        path = _save(picture, folder / f"{split}_{number:05d}.jpg")
        builder.image(path, (size, size), number + 1, label)
    return builder.finish()


def _scattered(source: _Source, size: int, rng: np.random.Generator) -> Iterator[tuple[int, Ink, Place]]:
    """Labels, ink and places of digits that hardly overlap."""
    taken: list[Place] = []
    for _ in range(int(rng.integers(1, 7))):
        for _ in range(20):
            # Many small ones and a few large ones, as in photographs of the world.
            label, stamp = _stamp(source, size * float(np.exp(rng.uniform(np.log(0.11), np.log(0.45)))), rng)
            place = _somewhere(stamp, size, rng)
            if all(_covered(place, other) <= _OVERLAP for other in taken):
                taken.append(place)
                yield label, stamp, place
                break


def _somewhere(stamp: Ink, size: int, rng: np.random.Generator) -> Place:
    """A place for a stamp inside the picture."""
    top, left = (int(rng.integers(0, size - side + 1)) for side in stamp.shape)
    return slice(top, top + stamp.shape[0]), slice(left, left + stamp.shape[1])


def _covered(a: Place, b: Place) -> float:
    """Intersection over the smaller of the two areas."""
    shared = [max(min(p.stop, q.stop) - max(p.start, q.start), 0) for p, q in zip(a, b, strict=True)]
    smaller = min((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in (a, b))
    return float(shared[0] * shared[1] / smaller)


def _stamp(source: _Source, height: float, rng: np.random.Generator) -> tuple[int, Ink]:
    """One digit of about ``height`` pixels, turned a little, cut to its ink ``[h, w]`` in 0..1."""
    import cv2

    row = int(rng.integers(len(source.labels)))
    fine = cv2.resize(np.pad(source.digits[row], 1), None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC)
    scale = height / (8 * 16)
    angle, slant = rng.uniform(-20, 20), rng.uniform(-0.2, 0.2)
    side = int(np.ceil(height * 2))
    matrix = cv2.getRotationMatrix2D((80, 80), angle, scale)
    matrix = matrix @ np.array([[1, slant, -80 * slant], [0, 1, 0], [0, 0, 1]])
    matrix[:, 2] += side / 2 - 80
    turned = cv2.warpAffine(fine, matrix, (side, side), flags=cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR)
    # Grey scans of 8x8 become strokes with an edge about a pixel wide; the threshold varies their thickness.
    sharp = max(height / 16, 1.5)
    ink = np.clip((turned - rng.uniform(0.35, 0.5)) * sharp + 0.5, 0, 1).astype(np.float32)
    ys, xs = np.nonzero(ink > 0.5)
    return int(source.labels[row]), ink[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _background(source: _Source, size: int, rng: np.random.Generator) -> Pixels:
    """A crop of a photograph, mirrored half of the time, of changed brightness."""
    photo = source.photos[int(rng.integers(len(source.photos)))]
    side = int(rng.uniform(0.3, 1.0) * min(photo.shape[:2]))
    top, left = int(rng.integers(0, photo.shape[0] - side + 1)), int(rng.integers(0, photo.shape[1] - side + 1))
    crop = resized(photo[top : top + side, left : left + side], (size, size))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return _rounded(crop * rng.uniform(0.6, 1.1))


def _rounded(values: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _paint(part: Pixels, ink: Ink, rng: np.random.Generator) -> None:
    """Paints a digit onto a part of a picture, in a colour that stands out from what lies under it."""
    under = part[ink > 0.5].mean(0)
    bright = under.mean() < 128 if rng.random() < 0.9 else under.mean() >= 128
    color = rng.uniform(190, 255, 3) if bright else rng.uniform(0, 60, 3)
    for _ in range(20):  # the rare colour on its own kind of ground must still differ
        if np.abs(color - under).mean() > 60:
            break
        color = rng.uniform(0, 255, 3)
    alpha = (ink * rng.uniform(0.75, 1.0))[..., None]
    part[:] = _rounded(part * (1 - alpha) + color * alpha)


def _object(label: int, mask: NDArray[np.bool_]) -> Object:
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    return Object(box, label, area=float(mask.sum()), mask=encoded(mask))


def _save(picture: Pixels, path: Path) -> Path:
    from PIL import Image

    Image.fromarray(picture).save(path, quality=92)
    return path
