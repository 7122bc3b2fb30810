"""What a data set is made of, in numbers: pictures, classes, boxes, and the mean and spread of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.anchors import kmeans_anchors, letterboxed, measured
from torso.data.decode import DecodeError, Pixels, decode
from torso.data.index import Index

SMALL, LARGE = 32.0**2, 96.0**2  # pixels: COCO calls objects below small, those from here on large
_AT_ONCE = 1 << 16  # pixels added up at once, so that a large photo costs no more memory than a small one
_BINS = 12


@dataclass
class ChannelSums:
    """Sums of all pixels met so far, as whole numbers: exact for any number of them, in any order, on any machine.

    Welford's and Chan's updates keep a mean in floating point stable; pixels are bytes, so nothing need be rounded
    until the very end.
    """

    pixels: int = 0
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, picture: Pixels) -> None:
        """Adds the pixels ``[H, W, 3]`` of a picture, 8 bits each."""
        flat = picture.reshape(-1, 3)
        for start in range(0, len(flat), _AT_ONCE):
            part = flat[start : start + _AT_ONCE].astype(np.float64)  # whole numbers below 2 ** 53
            self._plus(len(part), part.sum(axis=0), np.einsum("pc,pc->c", part, part))

    def merge(self, other: ChannelSums) -> None:
        """Adds what another one has met, for instance in another process."""
        self._plus(other.pixels, other.sums, other.squares)

    def _plus(self, pixels: int, sums: Any, squares: Any) -> None:
        self.pixels += pixels
        self.sums = [own + int(more) for own, more in zip(self.sums, sums, strict=True)]
        self.squares = [own + int(more) for own, more in zip(self.squares, squares, strict=True)]

    @property
    def mean(self) -> list[float]:
        """Of each channel, in 0..1."""
        return [total / (255 * self.pixels) for total in self.sums]

    @property
    def std(self) -> list[float]:
        """Of each channel, in 0..1: the root of the mean squared distance from the mean."""
        spread = [self.pixels * square - total**2 for total, square in zip(self.sums, self.squares, strict=True)]
        return [math.sqrt(value / (255 * self.pixels) ** 2) for value in spread]


def estimate_mean_std(index: Index, sample: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Mean and standard deviation of each channel over all pixels of all pictures, for `normalize`.

    Not the mean of each picture's own deviation, which leaves out how pictures differ: every pixel counts once, so
    large pictures count more. The deviation divides by the number of pixels. Sums are whole numbers, and exact.

    Args:
        index: the pictures.
        sample: how many pictures, drawn without replacement; all of them when None.
        seed: of the sample.

    Returns:
        ``mean`` and ``std`` (three numbers in 0..1: red, green, blue), ``pixels``, ``pictures``, and ``skipped``, the
        path and reason of each picture that could not be read.

    Raises:
        DataError: no picture can be read.

    Source: Algorithms for Computing the Sample Variance (Chan, Golub and LeVeque), 1983.
    """
    rows = np.arange(len(index))
    if sample is not None and sample < len(index):
        if sample < 1:
            raise DataError(f"sample: expected 1 picture or more, came {sample}")
        rows = np.sort(np.random.default_rng(seed).choice(len(index), sample, replace=False))
    sums, skipped = ChannelSums(), []
    for row in rows.tolist():
        try:
            sums.add(decode(index.picture(row)))
        except DecodeError as error:
            skipped.append({"path": index.paths[row], "reason": error.reason})
    if not sums.pixels:
        raise DataError(f"{index.root}: none of {len(rows)} pictures can be read, so their pixels have no mean")
    return {
        "mean": sums.mean,
        "std": sums.std,
        "pixels": sums.pixels,
        "pictures": len(rows) - len(skipped),
        "skipped": skipped,
    }


def stats(
    index: Index,
    *,
    pixels: bool = True,
    sample: int | None = None,
    anchors: int = 0,
    size: int | tuple[int, int] = 640,
    seed: int = 0,
) -> dict[str, Any]:
    """Counts, sizes and shapes of pictures and boxes, JSON-able.

    Args:
        index: the data.
        pixels: also decode pictures, for the mean and deviation of their pixels.
        sample: decode only this many pictures.
        anchors: make this many anchors from the boxes.
        size: side of the canvas that anchors are for, or its width and height.
        seed: of the sample and of the anchors.

    Raises:
        DataError: no picture can be read, or there are no boxes to make anchors from.
    """
    found: dict[str, Any] = {"task": index.task, "fingerprint": index.fingerprint} | _pictures(index)
    found["classes"] = _classes(index)
    if index.task == "detect" or len(index.boxes):
        found |= _objects(index)
    if pixels:
        found["pixels"] = estimate_mean_std(index, sample, seed)
    if anchors:
        found["anchors"] = _anchors(index, anchors, size, seed)
    return found


def _pictures(index: Index) -> dict[str, Any]:
    width, height = index.sizes[:, 0].astype(np.float64), index.sizes[:, 1].astype(np.float64)
    sizes, counts = np.unique(index.sizes, axis=0, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:5]
    return {
        "pictures": len(index),
        "sizes": {
            "different": len(sizes),
            "most_common": [
                {"width": int(sizes[i, 0]), "height": int(sizes[i, 1]), "pictures": int(counts[i])} for i in common
            ],
            "width": _summary(width),
            "height": _summary(height),
            "side": _summary(np.sqrt(width * height), histogram=True),
            "aspect_ratio": _summary(width / height, histogram=True),
        },
    }


def _classes(index: Index) -> list[dict[str, Any]]:
    """Each class with its number in the files, its objects, and the pictures that show it."""
    count = len(index.classes)
    if index.image_labels is not None:
        pictures = np.bincount(index.image_labels, minlength=count)
        objects = pictures
    else:
        objects = np.bincount(index.labels, minlength=count)
        shown = np.repeat(np.arange(len(index)), np.diff(index.offsets))
        pairs = np.unique(np.stack([shown, index.labels], axis=1), axis=0)
        pictures = np.bincount(pairs[:, 1], minlength=count)
    total = max(int(objects.sum()), 1)
    return [
        {
            "class": name,
            "id": index.class_ids[label],
            "objects": int(objects[label]),
            "pictures": int(pictures[label]),
            "share": int(objects[label]) / total,
        }
        for label, name in enumerate(index.classes)
    ]


def _objects(index: Index) -> dict[str, Any]:
    """Objects a picture, and how large and how wide they are; crowd regions are many objects and have no size."""
    counts = np.diff(index.offsets)
    one = ~index.crowd
    width, height = (index.boxes[one, 2:] - index.boxes[one, :2]).T
    area = index.area[one]
    picture = np.repeat(index.sizes.astype(np.float64).prod(axis=1), counts)[one]
    total = len(index.labels)
    flags = {"crowd": index.crowd, "difficult": index.difficult, "truncated": index.truncated}
    if index.occluded is not None:
        flags["occluded"] = index.occluded
    return {
        "objects": total,
        "pictures_without_objects": int((counts == 0).sum()),
        "objects_a_picture": _summary(counts.astype(np.float64), histogram=True),
        "shares": {name: float(flag.mean()) if total else None for name, flag in flags.items()},
        "boxes": {
            "small": int((area < SMALL).sum()),
            "medium": int(((area >= SMALL) & (area < LARGE)).sum()),
            "large": int((area >= LARGE).sum()),
            "width": _summary(width),
            "height": _summary(height),
            "side": _summary(np.sqrt(width * height), histogram=True),
            "side_of_picture": _summary(np.sqrt(width * height / picture), histogram=True),
            "aspect_ratio": _summary(width / height, histogram=True),
        },
    }


def _anchors(index: Index, count: int, size: int | tuple[int, int], seed: int) -> dict[str, Any]:
    sizes = letterboxed(index, size)
    made = kmeans_anchors(sizes, count, seed=seed)
    whole = measured(np.array(made.rounded(), np.float64), sizes)  # what a recipe would get
    return {
        "size": size,
        "anchors": made.rounded(),
        "mean_iou": whole.mean_iou,
        "best_possible_recall": whole.recall,
        "boxes": len(sizes),
    }


def _summary(values: NDArray[np.float64], *, histogram: bool = False) -> dict[str, Any]:
    """Least, median, mean and most; None where there is nothing."""
    if not len(values):
        return {"min": None, "median": None, "mean": None, "max": None}
    found: dict[str, Any] = {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": float(values.max()),
    }
    if histogram:
        counts, edges = np.histogram(values, bins=_edges(values))
        found["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return found


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The borders of a histogram's bars; whole numbers where the values are counts."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low, math.nextafter(high, math.inf)])
    if (values == np.rint(values)).all():
        step = max(math.ceil((high - low + 1) / _BINS), 1)
        return np.arange(low, high + step + 1, step)
    return np.linspace(low, high, _BINS + 1)
