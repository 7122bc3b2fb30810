"""An index in the form that a format has a place for: one class a picture, and names that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.compare import FLAGS, Difference
from torso.data.decode import Pixels, decode
from torso.data.index import PER_OBJECT, Index
from torso.data.stores import Picture

BOXES = frozenset({"voc", "coco", "coco_stuff", "yolo"})  # formats that cannot say one class a picture
ONE_CLASS = frozenset({"folder", "imagenet"})  # formats that can say nothing else


def suited(index: Index, to: str, crop: bool, total: Difference) -> Index:
    """The index in a form the format has a place for.

    Raises:
        DataError: there is none without guessing.
    """
    if index.task == "classify" and to in BOXES:
        raise DataError(f"{index.root}: has one class a picture and no boxes, and {to} holds boxes; nobody drew them")
    if crop and (index.task != "detect" or to in BOXES):
        raise DataError(f"crop: is for boxes that become pictures with one class, not {index.task} to {to}")
    if index.task == "classify" or not (crop or to in ONE_CLASS):
        return index
    if index.task != "detect":
        raise DataError(f"{index.root}: {to} holds one class a picture; these pictures have none (task {index.task})")
    one = ~index.crowd
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    counts = np.bincount(owner[one], minlength=len(index))
    if not crop and (counts != 1).any():
        raise DataError(
            f"{index.root}: {int((counts != 1).sum())} of {len(index)} pictures have no object or several, and {to} "
            "holds one class a picture; with --crop every object becomes a picture"
        )
    _count(index, one, total, crop)
    return _crops(index, np.flatnonzero(one)) if crop else _classified(index, index.labels[one])


def _count(index: Index, one: NDArray[np.bool_], total: Difference, crop: bool) -> None:
    """Notes what objects have that a class alone has not."""
    total.count("crowds to classes", int((~one).sum()), len(one))
    total.count("boxes to pictures" if crop else "boxes to classes", int(one.sum()), len(one))
    for flag in FLAGS:
        column = getattr(index, flag)
        if flag != "crowd" and column is not None:
            total.count(flag, int(column[one].sum()), int(column[one].sum()))
    columns: dict[str, Sequence[Any] | NDArray[Any] | None] = {"masks": index.masks, "pose": index.poses}
    for name, column in (columns | {"keypoints": index.keypoints}).items():
        if column is not None:
            some = sum(column[row] is not None and len(column[row]) > 0 for row in np.flatnonzero(one).tolist())
            total.count(name, some, some)


def _classified(index: Index, labels: NDArray[np.int64], **changes: Any) -> Index:
    """The same pictures, each with a class instead of objects."""
    bare = index.select([])
    empty: dict[str, Any] = {name: getattr(bare, name) for name in PER_OBJECT}
    empty |= {"offsets": np.zeros(len(labels) + 1, np.int64), "keypoint_names": (), "skeleton": ()}
    return replace(index, task="classify", image_labels=labels, **empty | changes, fingerprint="")


class Crops:
    """Objects cut out of their pictures. A place is [picture, left, top, right, bottom]."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._last: tuple[int, Pixels] | None = None

    def read(self, place: NDArray[np.int64]) -> Picture:
        """The pixels of one object."""
        row, x0, y0, x1, y1 = place.tolist()
        if self._last is None or self._last[0] != row:
            self._last = row, decode(self.index.picture(row))
        return np.ascontiguousarray(self._last[1][y0:y1, x0:x1])


def _crops(index: Index, rows: NDArray[np.int64]) -> Index:
    """Every object as a picture of its own, cut at whole pixels around its box."""
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))[rows]
    low = np.floor(index.boxes[rows, :2]).astype(np.int64)
    high = np.ceil(index.boxes[rows, 2:]).astype(np.int64)
    number = rows - index.offsets[owner]
    paths = [PurePath(index.paths[row]) for row in owner.tolist()]
    names = [str(path.with_name(f"{path.stem}_{n}.png")) for path, n in zip(paths, number.tolist(), strict=True)]
    return _classified(
        index,
        index.labels[rows],
        paths=names,
        image_ids=list(names),
        sizes=(high - low).astype(np.int32),
        segments=None,
        captions=None,
        store=Crops(index),
        places=np.concatenate([owner[:, None], low, high], axis=1),
    )


class Renamed:
    """The pictures of another index under other names. A place is [row]."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def read(self, place: NDArray[np.int64]) -> Picture:
        """What the other index says."""
        return self.index.picture(int(place[0]))


def told_apart(index: Index, taken: dict[str, str], total: Difference) -> Index:
    """The index with names that differ without their folders and suffixes, which is how labels find pictures.

    ``taken`` says which file has a name already, and grows.
    """
    names, changed = [], 0
    for row, path in enumerate(index.paths):
        pure, file = PurePath(path), str(index.file(row))
        place = "" if index.image_labels is None else f"{index.image_labels[row]}/"
        name, number = pure.name, 1
        while taken.setdefault(place + PurePath(name).stem.casefold(), file) != file:
            name, number = f"{pure.stem}_{number}{pure.suffix}", number + 1
        names.append(name)
        changed += name != pure.name
    total.count("names", changed, len(names))
    if not changed:
        return index
    rows = np.arange(len(index), dtype=np.int64)[:, None]
    return replace(index, paths=names, store=Renamed(index), places=rows, fingerprint="")
