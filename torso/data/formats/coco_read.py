"""From a COCO json of objects to an index: what instances, keypoints and stuff share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.builder import Builder
from torso.data.formats.coco_captions import read_captions
from torso.data.formats.coco_categories import Categories
from torso.data.formats.coco_columns import Columns, found
from torso.data.formats.coco_json import Kept, stream
from torso.data.formats.coco_masks import misfit
from torso.data.formats.coco_pictures import Listed, Options, Pictures
from torso.data.formats.coco_points import points_of
from torso.data.formats.coco_rows import Annotations
from torso.data.index import ImageId, Index, Mask
from torso.data.table import Table

_LOST, _ORPHAN, _DROPPED = -1, -2, -3  # rows of no picture: it is missing; nobody listed it; the row itself is wrong


def read_objects(
    file: Path,
    root: Path,
    places: Sequence[Path],
    classes: Sequence[str] | None,
    options: Options,
    captions: Path | None = None,
) -> Index:
    """Reads a json of images, annotations and categories.

    Args:
        file: the json.
        root: the folder of the data set.
        places: folders where pictures may lie, the likeliest first.
        classes: the classes of the training split; labels are mapped to them by name.
        options: of the reader.
        captions: a json of captions for the same pictures.

    Raises:
        DataError: nothing of it can be read.
    """
    builder = Builder(root, ())
    pictures, annotations, kinds = Pictures(builder, file), Annotations(builder, file), Kept()
    stream(file, {"images": pictures, "annotations": annotations, "categories": kinds}, options.largest)
    told = None if captions is None else read_captions(builder, captions, options.largest)
    categories = Categories.of(file, kinds.found, builder, classes)
    categories.read_keypoints(builder, file)
    listed = pictures.finish(places, options, None if told is None else told.found)
    if told is not None:
        told.report_orphans(listed.row_of)
    objects = _Objects(builder, file, annotations, categories, listed)
    builder.table(objects.table(annotations.finish()), file)
    return builder.finish()


@dataclass(frozen=True)
class _Objects:
    """Brings annotations, pictures and classes together."""

    builder: Builder
    file: Path
    annotations: Annotations
    categories: Categories
    listed: Listed

    def table(self, columns: Columns) -> Table:
        """The annotations that can be used, in the order of their pictures; ``columns`` is used up."""
        pictures = self.listed.find(columns.images, _ORPHAN)
        self._put_right(columns, pictures)
        self._report_orphans(columns, pictures)
        labels = self._labels(columns, pictures)
        used = set(np.unique(columns.categories).tolist())
        self.categories.report_unused_parent(self.builder, self.file, used)
        columns.images = columns.categories = columns.images[:0]
        numbers = np.flatnonzero(pictures >= 0)
        ordered = pictures[numbers]
        if (np.diff(ordered) < 0).any():  # one sort of both is faster than an argsort
            numbers = np.sort((ordered << 32) + numbers) & (2**32 - 1)
        with np.errstate(over="ignore", invalid="ignore"):
            columns.boxes[:, 2:] += columns.boxes[:, :2]
        pictures, labels = pictures[numbers], labels[numbers]
        return Table(
            pictures,
            numbers,
            columns.take("boxes", numbers),
            labels,
            columns.take("area", numbers),
            columns.take("crowd", numbers).astype(np.bool_, copy=False),  # numbers where there is no annotation at all
            columns.take("ignore", numbers).astype(np.bool_, copy=False),
            self._masks(numbers, pictures),
            points_of(self.builder, self.file, self.annotations.keypoints, numbers),
            "annotations[{}]".format,
        )

    def _put_right(self, columns: Columns, pictures: NDArray[np.int64]) -> None:
        """Looks at each odd row by itself and fills its place in the columns."""
        for number, row in self.annotations.odd.items():
            where = f"annotations[{number}]"
            image = _whole(row.get("image_id")) if isinstance(row, dict) else None
            if not isinstance(image, int | str):
                self.builder.report("malformed row", self.file, f"{where}: expected an object with an image_id")
                pictures[number] = _DROPPED
                continue
            pictures[number] = self.listed.row_of.get(image, _ORPHAN)
            category = _whole(row.get("category_id"))
            if pictures[number] < 0:
                continue
            if not isinstance(category, int) or category not in self.categories.names:
                self._report_category(number, category)
                pictures[number] = _DROPPED
                continue
            columns.categories[number] = category
            box = _box(row.get("bbox"), self._mask(number), self._size(pictures[number]))
            if box is None:
                came = json.dumps(row.get("bbox"))[:60]
                message = f"{where}.bbox: expected 4 numbers x y w h, came {came}"
                self.builder.report("malformed row", self.file, message)
                pictures[number] = _DROPPED
            else:
                columns.boxes[number] = box

    def _size(self, row: int) -> tuple[int, int]:
        width, height = self.listed.sizes[row].tolist()
        return width, height

    def _mask(self, number: int) -> Mask:
        return None if self.annotations.masks is None else self.annotations.masks[number]

    def _report_orphans(self, columns: Columns, pictures: NDArray[np.int64]) -> None:
        rows: dict[ImageId, list[int]] = {}
        for number in np.flatnonzero(pictures == _ORPHAN).tolist():
            odd = self.annotations.odd.get(number)
            image = int(columns.images[number]) if odd is None else _whole(odd["image_id"])
            rows.setdefault(image, []).append(number)
        for image, numbers in rows.items():
            where = f"annotations[{numbers[0]}].image_id"
            message = f"{where}: there is no image {image!r}; {len(numbers)} of its annotations left out"
            self.builder.report("annotation without image", self.file, message)

    def _labels(self, columns: Columns, pictures: NDArray[np.int64]) -> NDArray[np.int64]:
        """``[T]``; rows of classes that do not exist, or not here, are taken out of ``pictures``."""
        unknown = -2
        known = np.array([*self.categories.labels.items()], np.int64).reshape(-1, 2)
        labels = found(known[:, 0], known[:, 1], columns.categories, unknown)
        for number in np.flatnonzero((labels < 0) & (pictures >= 0)).tolist():
            category = int(columns.categories[number])
            if labels[number] == unknown:
                self._report_category(number, category)
            else:
                name = self.categories.names[category]
                message = f"annotations[{number}]: class {name!r} is not one of {', '.join(self.builder.classes)}"
                self.builder.report("unknown class", self.file, message)
            pictures[number] = _DROPPED
        return labels

    def _report_category(self, number: int, category: Any) -> None:
        known = ", ".join(map(str, self.categories.names))
        message = f"annotations[{number}].category_id: {ascii(category)[:60]} is not one of {known}"
        self.builder.report("class out of range", self.file, message)

    def _masks(self, numbers: NDArray[np.int64], pictures: NDArray[np.int64]) -> list[Mask] | None:
        """The masks of these rows, without run lengths that are of another size than their picture."""
        if self.annotations.masks is None:
            return None
        masks = [self.annotations.masks[number] for number in numbers.tolist()]
        for at, mask in enumerate(masks):
            wrong = misfit(mask, self._size(pictures[at])) if isinstance(mask, dict) else ""
            if wrong:
                message = f"annotations[{numbers[at]}].segmentation: {wrong}"
                self.builder.report("malformed mask", self.file, message)
                masks[at] = None
        return masks


def _whole(value: Any) -> Any:
    """5 for 5.0; anything else, but true and false, as it is."""
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _box(value: Any, mask: Mask, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """``x y w h``; around the mask where there is no box."""
    if value is None and mask is not None:
        return _around(mask, size)
    if not isinstance(value, list) or len(value) != 4:
        return None
    try:
        x, y, w, h = (float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return x, y, w, h


def _around(mask: Mask, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    if isinstance(mask, list):
        xs = [x for polygon in mask for x in polygon[0::2]]
        ys = [y for polygon in mask for y in polygon[1::2]]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    if misfit(mask, size):
        return None
    from torso.data.masks import box_of, rasterise

    x0, y0, x1, y1 = box_of(rasterise(mask, size))
    return x0, y0, x1 - x0, y1 - y0
