"""Anchors from the boxes of a data set: k-means on 1 - IoU, and how well anchors could do at best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.index import Index

Sizes = NDArray[np.float64]
"""``[n, 2]`` width, height in pixels."""
FITS = 0.25  # an anchor can learn a box at most four times wider, narrower, higher or lower (YOLOv5's rule)
_MOST = 100_000  # boxes the clusters are made from; more make them no better
_ROWS = 1 << 16  # boxes compared at once, so that memory does not grow with the data


@dataclass(frozen=True)
class Anchors:
    """Anchor sizes, small to large, and how well they fit the boxes they came from."""

    sizes: Sizes  # [k, 2]
    mean_iou: float  # of each box with its best anchor, both at one centre
    recall: float  # best possible recall: share of boxes that some anchor can learn (``FITS``)

    def rounded(self) -> list[list[int]]:
        """Whole pixels, at least 1, as recipes and configuration files say them."""
        return [[max(round(float(value)), 1) for value in size] for size in self.sizes]


def letterboxed(index: Index, size: int | tuple[int, int] = 640) -> Sizes:
    """Width and height of every box, in pixels of a canvas its picture is fitted into; crowd regions are left out.

    Args:
        index: boxes in pixels of their pictures.
        size: side of the canvas, or its width and height.
    """
    canvas = np.array([size, size] if isinstance(size, int) else size, np.float64)
    scale = (canvas / index.sizes).min(axis=1)  # [N]
    sizes = (index.boxes[:, 2:] - index.boxes[:, :2]) * np.repeat(scale, np.diff(index.offsets))[:, None]
    kept: Sizes = sizes[~index.crowd]
    return kept


def kmeans_anchors(sizes: Sizes, count: int, *, seed: int = 0, rounds: int = 100, starts: int = 4) -> Anchors:
    """Clusters box sizes by k-means with the distance 1 - IoU; the centre of a cluster is its mean size.

    Where there are fewer different sizes than anchors asked for, each size is an anchor and there are fewer anchors.
    A mean does not minimise the sum of 1 - IoU, so a round may make it worse: the best centres met are returned.

    Args:
        sizes: ``[n, 2]`` width and height in pixels, above 0.
        count: anchors, 1 or more.
        seed: of the starting centres, drawn like k-means++ (far from those drawn before).
        rounds: at most, from each start.
        starts: tries from other centres; the best one counts.

    Raises:
        DataError: no boxes, or a size that is not above 0.

    Source: YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242.
    """
    if count < 1:
        raise DataError(f"anchors: expected 1 or more, came {count}")
    if not len(sizes) or not (sizes > 0).all():
        raise DataError("anchors: expected boxes with a width and a height above 0 to make them from")
    random = np.random.default_rng(seed)
    some = sizes if len(sizes) <= _MOST else sizes[random.choice(len(sizes), _MOST, replace=False)]
    different = np.unique(some, axis=0)
    if len(different) <= count:
        return measured(different, sizes)
    runs = [_from_start(some, _start(some, count, random), rounds) for _ in range(starts)]
    return measured(max(runs, key=lambda run: run[0])[1], sizes)


def measured(anchors: Sizes, sizes: Sizes) -> Anchors:
    """Any anchors, sorted by area, with how well they fit boxes of these sizes."""
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    best, fits = 0.0, 0
    for start in range(0, len(sizes), _ROWS):
        rows = sizes[start : start + _ROWS]
        best += float(overlap(rows, anchors).max(axis=1).sum())
        ratio = rows[:, None] / anchors[None]  # [n, k, 2]
        fits += int((np.minimum(ratio, 1 / ratio).min(axis=2).max(axis=1) > FITS).sum())
    return Anchors(anchors, best / len(sizes), fits / len(sizes))


def overlap(sizes: Sizes, anchors: Sizes) -> NDArray[np.float64]:
    """IoU of every size with every anchor, both at one centre: ``[n, k]``."""
    shared = np.minimum(sizes[:, None, 0], anchors[None, :, 0]) * np.minimum(sizes[:, None, 1], anchors[None, :, 1])
    whole = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - shared
    share: NDArray[np.float64] = shared / whole
    return share


def _start(sizes: Sizes, count: int, random: np.random.Generator) -> Sizes:
    """Centres that lie apart: each drawn with a chance that grows with the squared distance to those before."""
    centres: Sizes = sizes[random.integers(len(sizes))][None]
    while len(centres) < count:
        far = (1 - overlap(sizes, centres).max(axis=1)).clip(min=0) ** 2
        chances = far / far.sum() if far.sum() > 0 else None  # sizes that differ in the last bit only
        centres = np.concatenate([centres, sizes[random.choice(len(sizes), p=chances)][None]])
    return centres


def _from_start(sizes: Sizes, centres: Sizes, rounds: int) -> tuple[float, Sizes]:
    """The best centres that Lloyd's rounds meet, and their mean IoU."""
    best = (-1.0, centres)
    nearest: NDArray[np.intp] | None = None
    for _ in range(rounds):
        found = overlap(sizes, centres)
        mean = float(found.max(axis=1).mean())
        if mean > best[0]:
            best = mean, centres
        now = found.argmax(axis=1)
        if nearest is not None and np.array_equal(now, nearest):
            break
        nearest = now
        centres = centres.copy()
        for k in np.unique(now):  # a centre that lost all of its boxes stays where it is
            centres[k] = sizes[now == k].mean(axis=0)
    return best
