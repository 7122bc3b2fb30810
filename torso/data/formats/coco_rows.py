"""The ``annotations`` of a COCO json as columns, filled while the file is read.

Rows of the usual kind go into arrays a chunk at a time. Whatever is unusual about a row (a box of strings, no box, an
id that is text) puts it aside as it is; when all pictures and classes are known it is looked at by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.builder import Builder
from torso.data.formats.coco_columns import NO_ID, Columns, Growing, Row, columns_of, is_plain
from torso.data.formats.coco_masks import mask_of, plain
from torso.data.formats.coco_numbers import numbers
from torso.data.index import Mask

_EXACT = 2**53  # whole numbers up to here survive as floating point
_BLANK: Row = {"image_id": NO_ID, "category_id": NO_ID, "bbox": [0, 0, 0, 0]}
_SINGLE = ("image_id", "category_id", "id", "area", "iscrowd", "ignore")


@dataclass
class Annotations:
    """Takes the rows of ``annotations``."""

    builder: Builder
    file: Path
    odd: dict[int, Any] = field(default_factory=dict)  # number -> the row
    masks: list[Mask] | None = None  # T, once there is one
    keypoints: dict[int, Any] = field(default_factory=dict)  # number -> x y v x y v ..., and how many it says are seen
    missing: dict[str, list[int]] = field(default_factory=dict)  # key -> the first row without it, and how many
    _columns: Growing = field(default_factory=Growing)
    _names: dict[int, str] = field(default_factory=dict)  # number -> an id that is text

    def chunk(self, text: bytes, start: int) -> int:
        """Takes rows of numbers alone."""
        found = numbers(text)
        if found is None:
            return 0
        slots, values = found
        filled = {key for key, slot in slots.items() if slot.stop > slot.start}
        if not filled >= {"image_id", "category_id", "bbox"} or filled & {"segmentation", "keypoints"}:
            return 0
        box = slots.pop("bbox")
        columns = {key: values[:, slot.start] for key, slot in slots.items() if slot.stop == slot.start + 1}
        if box.stop != box.start + 4 or any(key in slots and key not in columns for key in _SINGLE):
            return 0
        whole = [columns[key] for key in ("image_id", "category_id", "id") if key in columns]
        if any((np.abs(one) >= _EXACT).any() or (one != np.floor(one)).any() for one in whole):
            return 0
        self._add(
            Columns(
                columns["image_id"].astype(np.int64),
                columns["category_id"].astype(np.int64),
                columns["id"].astype(np.int64) if "id" in columns else np.full(len(values), NO_ID),
                values[:, box].copy(),  # a view would keep all columns
                columns["area"].copy() if "area" in columns else np.full(len(values), np.nan),
                columns.get("iscrowd", np.full(len(values), np.nan)),
                columns.get("ignore", np.zeros(len(values))),
            )
        )
        return len(values)

    def rows(self, rows: list[Any], start: int) -> None:
        """Takes rows that are decoded."""
        try:
            columns = columns_of(rows)
        except (KeyError, TypeError, ValueError, OverflowError):  # at least one is odd
            odd = {start + at: row for at, row in enumerate(rows) if not is_plain(row)}
            self.odd |= odd
            rows = [row if isinstance(row, dict) else {"area": 0, "iscrowd": 0} for row in rows]
            columns = columns_of([_BLANK | _measures(row) if start + at in odd else row for at, row in enumerate(rows)])
        self._names |= {start + at: row["id"] for at, row in enumerate(rows) if type(row.get("id")) is str}
        self._keep_masks([row.get("segmentation") for row in rows], start)
        for at, row in enumerate(rows):
            if row.get("keypoints") is not None:
                self.keypoints[start + at] = (row["keypoints"], row.get("num_keypoints"))
        self._add(columns)

    def _keep_masks(self, values: list[Any], start: int) -> None:
        if not any(values):
            return
        if plain(values):
            found: list[Mask] = [value or None for value in values]
        else:
            pairs = [mask_of(value) for value in values]
            found = [mask for mask, _ in pairs]
            for at, (_, wrong) in enumerate(pairs):
                if wrong:
                    message = f"annotations[{start + at}].segmentation: {wrong}"
                    self.builder.report("malformed mask", self.file, message)
        self.masks = self.masks or []
        self.masks += [None] * (start - len(self.masks))
        self.masks += found

    def _add(self, columns: Columns) -> None:
        """Keeps columns; an area or a crowd flag that makes no sense is one that is missing."""
        with np.errstate(invalid="ignore"):
            wrong = {
                "area": ~(np.isfinite(columns.area) & (columns.area >= 0)),
                "iscrowd": ~np.isin(columns.crowd, (0, 1)),
            }
        for key, rows in wrong.items():
            if rows.any():
                first = self.missing.setdefault(key, [self._columns.count + int(rows.argmax()), 0])
                first[1] += int(rows.sum())
        columns.area[wrong["area"]] = np.nan
        columns.crowd = (columns.crowd == 1).astype(np.bool_)
        columns.ignore = (columns.ignore == 1).astype(np.bool_)
        self._columns.add(columns)

    def finish(self) -> Columns:
        """All rows; what was odd or said twice is noted."""
        whole, count = self._columns.whole(), self._columns.count
        if self.masks is not None:
            self.masks += [None] * (count - len(self.masks))
        for key, instead in (("area", "its box's"), ("iscrowd", "0")):
            if key in self.missing:
                first, rows = self.missing[key]
                message = f"annotations[{first}].{key}: missing in {rows} of {count} annotations; {instead} is taken"
                self.builder.report("missing field", self.file, message)
        self._report_repeated(whole.ids)
        whole.ids = whole.ids[:0]  # nobody else asks for them
        # Columns that nothing was added to are still numbers.
        whole.crowd, whole.ignore = (one.astype(np.bool_, copy=False) for one in (whole.crowd, whole.ignore))
        return whole

    def _report_repeated(self, ids: NDArray[np.int64]) -> None:
        if not self._names and (len(ids) < 2 or (np.diff(ids) > 0).all()):
            return
        said: list[Any] = [self._names.get(at, one) for at, one in enumerate(ids.tolist())]
        seen: set[Any] = {NO_ID}
        for at, one in enumerate(said):
            if one in seen and one != NO_ID:
                message = f"annotations[{at}].id: {one} is used twice; both rows are kept"
                self.builder.report("duplicate annotation id", self.file, message)
            seen.add(one)


def _measures(row: Row) -> Row:
    """What an odd row says about itself that cannot be odd."""
    return {key: row.get(key) for key in ("id", "area", "iscrowd", "ignore")}
