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

from torso.data.builder import Builder, Object
from torso.data.decode import Pixels
from torso.data.index import Index

CLASSES = tuple("0123456789")
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
    format: Literal["voc", "coco", "yolo", "folder"] = "voc",
    count: int = 400,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Writes the digits as a data set; the same files for the same arguments.

    Args:
        folder: where to; made when it is missing.
        format: voc, coco (with masks) and yolo hold several digits a picture, folder one digit a picture.
        count: pictures in all; a fifth of them are the validation split, with digits of other writers' samples.
        size: side of the pictures in pixels; for format "folder" a quarter of it.
        seed: of everything random.

    Returns:
        The folder.
    """
    from torso.data.formats import FORMATS

    folder = Path(folder)
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
    # Neighbouring rows are by the same writers: the last fifth is other handwriting.
    rows = slice(0, 1437) if split == "train" else slice(1437, None)
    ink = digits.images[rows].astype(np.float32) / 16
    return _Source(ink, digits.target[rows].astype(np.int64), list(load_sample_images().images))


def _detected(source: _Source, folder: Path, count: int, size: int, rng: np.random.Generator, split: str) -> Index:
    """Pictures with one to six digits."""
    builder = Builder(folder, CLASSES)
    for number in range(count):
        picture = _background(source, size, rng)
        rows = []
        taken: list[tuple[int, int, int, int]] = []
        for label, mask in _scattered(source, size, rng, taken):
            picture = _inked(picture, mask, rng)
            rows.append(_object(label, mask > 0.5))
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
        left, top = (int(rng.integers(0, max(size - side, 0) + 1)) for side in stamp.shape[::-1])
        mask = np.zeros((size, size), np.float32)
        stamp = stamp[:size, :size]
        mask[top : top + stamp.shape[0], left : left + stamp.shape[1]] = stamp
        path = _save(_inked(picture, mask, rng), folder / f"{split}_{number:05d}.jpg")
        builder.image(path, (size, size), number + 1, label)
    return builder.finish()


def _scattered(
    source: _Source, size: int, rng: np.random.Generator, taken: list[tuple[int, int, int, int]]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Digits at places that hardly overlap: label and ink ``[size, size]`` in 0..1."""
    for _ in range(int(rng.integers(1, 7))):
        for _ in range(20):
            # Many small ones and a few large ones, as in photographs of the world.
            label, stamp = _stamp(source, size * float(np.exp(rng.uniform(np.log(0.11), np.log(0.45)))), rng)
            h, w = stamp.shape
            left, top = int(rng.integers(0, size - w + 1)), int(rng.integers(0, size - h + 1))
            box = (left, top, left + w, top + h)
            if all(_covered(box, other) <= _OVERLAP for other in taken):
                taken.append(box)
                ink = np.zeros((size, size), np.float32)
                ink[top : top + h, left : left + w] = stamp
                yield label, ink
                break


def _covered(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller of the two areas."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(w, 0) * max(h, 0) / smaller


def _stamp(source: _Source, height: float, rng: np.random.Generator) -> tuple[int, NDArray[np.float32]]:
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
    import cv2

    photo = source.photos[int(rng.integers(len(source.photos)))]
    side = int(rng.uniform(0.3, 1.0) * min(photo.shape[:2]))
    top, left = int(rng.integers(0, photo.shape[0] - side + 1)), int(rng.integers(0, photo.shape[1] - side + 1))
    crop = photo[top : top + side, left : left + side]
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * rng.uniform(0.6, 1.1), 0, 255).astype(np.uint8)


def _inked(picture: Pixels, ink: NDArray[np.float32], rng: np.random.Generator) -> Pixels:
    """The picture with a digit painted on, in a colour that stands out from what lies under it."""
    under = picture[ink > 0.5].mean(0)
    bright = under.mean() < 128 if rng.random() < 0.9 else under.mean() >= 128
    color = rng.uniform(190, 255, 3) if bright else rng.uniform(0, 60, 3)
    for _ in range(20):  # the rare colour on its own kind of ground must still differ
        if np.abs(color - under).mean() > 60:
            break
        color = rng.uniform(0, 255, 3)
    alpha = (ink * rng.uniform(0.75, 1.0))[..., None]
    return np.rint(picture * (1 - alpha) + color * alpha).astype(np.uint8)


def _object(label: int, mask: NDArray[np.bool_]) -> Object:
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    return Object(box, label, area=float(mask.sum()), mask=run_lengths(mask))


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask ``[H, W]`` as COCO's uncompressed run lengths: counted down the columns, the first run is outside."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate([[0] if not flat[0] else [0, 0], edges, [flat.size]])
    return {"size": list(mask.shape), "counts": np.diff(ends).tolist()}


def _save(picture: Pixels, path: Path) -> Path:
    from PIL import Image

    Image.fromarray(picture).save(path, quality=92)
    return path
