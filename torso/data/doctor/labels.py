"""What the labels of a split say once they are read: background, sizes after resizing, counts, anchors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from torso.boxes.priors import Anchors
from torso.data.doctor.findings import Finding, found
from torso.data.index import Index

GONE = 2.0  # pixels: a smaller side leaves nothing in a network's input
SMALL = 8.0  # pixels: below a cell of the finest level most detectors have
CROWDED = 300
MOSTLY = 0.5  # share of pictures without objects that is worth a warning
MISFIT = 0.05  # share of boxes without a fitting anchor that is worth a warning
FITS = 0.5  # overlap from which an anchor learns an object
_STRIDES = (8, 16, 32, 64, 128)
_BLOCK = 65536


def labels(index: Index, split: str, size: int) -> Iterator[Finding]:
    """Findings on the objects of one split, for pictures letterboxed to ``size``."""
    if index.task == "detect":
        yield from _background(index, split)
        yield from _ignored(index, split)
        yield from _sizes(index, split, size)
        yield from _crowded(index, split)
    yield from _ids(index, split)


def sides(index: Index, size: int) -> NDArray[np.float64]:
    """``[T, 2]`` width and height of the boxes in pixels, after the letterbox."""
    scale = size / np.maximum(index.sizes.max(1), 1)
    resized: NDArray[np.float64] = (index.boxes[:, 2:] - index.boxes[:, :2]) * np.repeat(scale, np.diff(index.offsets))[
        :, None
    ]
    return resized


def anchor_overlap(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[T]``: the best overlap that any anchor of the default set could reach, were it centred on the box."""
    anchors = Anchors(_STRIDES)
    cells = np.concatenate([getattr(anchors, f"cell{level}").numpy() for level in range(len(_STRIDES))])
    shapes = (cells[:, 2:] - cells[:, :2]).astype(np.float64)  # [A, 2]
    best = np.zeros(len(boxes))
    for start in range(0, len(boxes), _BLOCK):
        some = boxes[start : start + _BLOCK]
        shared = np.minimum(some[:, None], shapes[None]).prod(-1)
        union = some.prod(-1)[:, None] + shapes.prod(-1)[None] - shared
        best[start : start + _BLOCK] = (shared / union).max(1)
    return best


def _background(index: Index, split: str) -> Iterator[Finding]:
    counted = ~(index.crowd | index.difficult)
    if not counted.any():
        if len(index):
            yield found("nothing to learn", "", f"{split} has no object that counts", split=split)
        return
    empty = int((np.diff(index.offsets) == 0).sum())
    if empty:
        share = empty / len(index)
        kind = "mostly background" if share > MOSTLY else "pictures without objects"
        yield found(kind, "", f"{empty} of {len(index)} pictures ({share:.0%}) show no object", split=split)


def _ignored(index: Index, split: str) -> Iterator[Finding]:
    for word, flags in (("crowd", index.crowd), ("difficult", index.difficult)):
        if flags.any():
            text = f"{int(flags.sum())} of {len(flags)} objects are marked {word}"
            yield found("crowd or difficult", "", text, split=split)


def _sizes(index: Index, split: str, size: int) -> Iterator[Finding]:
    wide = sides(index, size)
    if not len(wide):
        return
    short = wide.min(1)
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    for row, count in zip(*np.unique(owner[short < GONE], return_counts=True), strict=True):
        what = "1 box has" if count == 1 else f"{count} boxes have"
        text = f"{what} a side below {GONE:g} pixels at size {size}"
        yield found("tiny box", index.paths[row], text, split=split, picture=str(index.file(int(row))))
    small = float((short < SMALL).mean())
    if small > 0:
        text = f"{small:.1%} of the boxes have a side below {SMALL:g} pixels at size {size}"
        yield found("small boxes", "", text, split=split)
    poor = float((anchor_overlap(wide) < FITS).mean())
    if poor > MISFIT:
        text = f"{poor:.0%} of the boxes overlap no default anchor by {FITS:g} at size {size}"
        yield found("anchor misfit", "", text, split=split)


def _crowded(index: Index, split: str) -> Iterator[Finding]:
    counts = np.diff(index.offsets)
    for row in np.flatnonzero(counts > CROWDED).tolist():
        text = f"has {counts[row]} objects"
        yield found("many objects", index.paths[row], text, split=split, picture=str(index.file(row)))


def _ids(index: Index, split: str) -> Iterator[Finding]:
    ids = index.class_ids
    if ids and ids != tuple(range(len(ids))) and ids != tuple(range(1, len(ids) + 1)):
        shown = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
        yield found("class ids with gaps", "", f"class ids are {shown}", split=split)
