"""Annotations of COCO as columns: made of decoded rows, and growing while a file is read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]

NO_ID = np.iinfo(np.int64).min
WIDE = 2**62  # ids beyond it are no ids

_DENSE = 1 << 21  # ids so close together are looked up in a table

_NEEDED = itemgetter("image_id", "category_id", "bbox")


@dataclass
class Columns:
    """T annotations."""

    images: NDArray[np.int64]  # [T]
    categories: NDArray[np.int64]  # [T]
    ids: NDArray[np.int64]  # [T]; NO_ID where there is none
    boxes: NDArray[np.float64]  # [T, 4] xywh as the file says
    area: NDArray[np.float64]  # [T]; nan where there is none
    crowd: NDArray[Any]  # [T]; what the file says, then whether it is
    ignore: NDArray[Any]  # [T]

    def take(self, name: str, rows: NDArray[np.int64]) -> Any:
        """Some rows of a column, which is used up: all columns twice would be most of the memory reading takes."""
        values: NDArray[Any] = getattr(self, name)
        setattr(self, name, values[:0])
        if values.ndim == 1:
            return values[rows]
        for part in range(values.shape[1]):
            values[: len(rows), part] = values[rows, part]
        return values[: len(rows)]


class Growing:
    """Columns that more is added to; their room doubles, and room that nobody has written to takes no memory."""

    def __init__(self) -> None:
        self.count = 0
        self._columns = columns_of([])

    def add(self, part: Columns) -> None:
        """Adds rows."""
        whole, first = self._columns, self.count
        self.count += len(part.images)
        for field in fields(Columns):
            values: NDArray[Any] = getattr(whole, field.name)
            more: NDArray[Any] = getattr(part, field.name)
            if len(values) < self.count:
                values = np.empty((2 * self.count, *more.shape[1:]), more.dtype)
                values[:first] = getattr(whole, field.name)[:first]
                setattr(whole, field.name, values)
            values[first : self.count] = more

    def whole(self) -> Columns:
        """All rows; what grew is let go."""
        columns, self._columns = self._columns, columns_of([])
        return Columns(*(getattr(columns, field.name)[: self.count] for field in fields(Columns)))


def columns_of(rows: list[Row]) -> Columns:
    """Decoded rows of the usual kind; raises where one is of another."""
    images, categories, boxes = zip(*map(_NEEDED, rows), strict=True) if rows else ((), (), ())
    flat = list(chain.from_iterable(boxes))
    if not set(map(type, images)) | set(map(type, categories)) <= {int} or not set(map(type, boxes)) <= {list}:
        raise TypeError
    if not set(map(len, boxes)) <= {4} or not set(map(type, flat)) <= {int, float}:
        raise TypeError
    ids = [row.get("id") for row in rows]
    return Columns(
        np.array(images, np.int64),
        np.array(categories, np.int64),
        np.array([one if type(one) is int and abs(one) < WIDE else NO_ID for one in ids], np.int64),
        np.array(flat, np.float64).reshape(-1, 4),
        _floats([row.get("area") for row in rows]),
        _floats([row.get("iscrowd") for row in rows]),
        _floats([row.get("ignore") for row in rows]),
    )


def found(
    known: NDArray[np.int64], values: NDArray[np.int64], ids: NDArray[np.int64], nothing: int
) -> NDArray[np.int64]:
    """The value of each id; ``known`` and ``values`` belong together, and what is not among them gets ``nothing``."""
    if not len(known):
        return np.full(len(ids), nothing, np.int64)
    low, high = int(known.min()), int(known.max())
    if high - low < _DENSE:  # a table is ten times as fast as a search
        table = np.full(high - low + 2, nothing, np.int64)
        table[known - low] = values
        return table[np.where((ids >= low) & (ids <= high), ids - low, high - low + 1)]
    order = np.argsort(known)
    known, values = known[order], values[order]
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, values[at], nothing)


def _floats(values: list[Any]) -> NDArray[np.float64]:
    """Numbers; nan for what is none."""
    if set(map(type, values)) <= {int, float, bool}:
        with contextlib.suppress(OverflowError):
            return np.array(values, np.float64)
    return np.array([one if isinstance(one, int | float) and abs(one) < WIDE else np.nan for one in values], np.float64)


def is_plain(row: Any) -> bool:
    """Whether `columns_of` takes this row."""
    if not isinstance(row, dict) or not row.keys() >= {"image_id", "category_id", "bbox"}:
        return False
    image, category, box = _NEEDED(row)
    if type(image) is not int or type(category) is not int or max(abs(image), abs(category)) >= WIDE:
        return False
    return type(box) is list and len(box) == 4 and all(type(one) is float or _is_small(one) for one in box)


def _is_small(value: Any) -> bool:
    return type(value) is int and abs(value) < WIDE
