"""COCO's panoptic form: every pixel belongs to one segment, things and stuff alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.decode import DecodeError, decode
from torso.data.formats.coco_categories import Categories
from torso.data.formats.coco_columns import Row
from torso.data.formats.coco_files import file_of, files, places
from torso.data.formats.coco_json import LARGEST, Kept, stream
from torso.data.formats.coco_pictures import Listed, Options, Pictures
from torso.data.formats.listing import Listing
from torso.data.index import Index, Mask
from torso.data.masks import box_of, encoded
from torso.data.table import Table

_START = "panoptic_"


class CocoPanoptic:
    """``annotations/panoptic_{split}.json`` with a folder of PNG of the same name.

    A pixel's segment is R + 256 G + 65536 B, 0 is none. Segments are objects, each with its pixels as run lengths;
    which classes are things and which are stuff is not kept.

    Source: Panoptic Segmentation, 2018, arXiv:1801.00868.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a json of segments."""
        return bool(files(path, _START))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return sorted(files(path, _START))

    @staticmethod
    def read(
        path: Path,
        split: str,
        classes: Sequence[str] | None = None,
        *,
        trust_sizes: bool = False,
        allow_outside: bool = False,
        largest: int = LARGEST,
    ) -> Index:
        """The index of one split; every PNG is read. Options as in ``Coco.read``."""
        file = file_of(path, split, files(path, _START))
        root = path if path.is_dir() else path.parent
        builder = Builder(root, ())
        pictures, annotations, kinds = Pictures(builder, file), Kept(), Kept()
        stream(file, {"images": pictures, "annotations": annotations, "categories": kinds}, largest)
        categories = Categories.of(file, kinds.found, builder, classes)
        listed = pictures.finish(places(root, file, split, _START), Options(trust_sizes, allow_outside, largest))
        segments = _Segments(builder, file, listed, categories)
        for number, row in enumerate(annotations.found):
            segments.add(number, row)
        builder.table(segments.table(), file)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Is not written: objects may overlap, segments may not.

        Raises:
            DataError: always.
        """
        raise DataError(f"{index.root}: the panoptic form is only read; convert to coco, which keeps the masks")


class _Segments:
    """Collects the segments of all pictures."""

    def __init__(self, builder: Builder, file: Path, listed: Listed, categories: Categories) -> None:
        self.builder, self.file, self.listed, self.categories = builder, file, listed, categories
        self.pngs = Listing([file.with_suffix(""), builder.root / file.stem, file.parent])
        self.rows: list[tuple[int, int, list[float], float, bool]] = []  # picture, label, xyxy, area, crowd
        self.masks: list[Mask] = []
        self.names: list[str] = []

    def add(self, number: int, row: Any) -> None:
        """The segments of one picture."""
        where = f"annotations[{number}]"
        if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in _KEYS.items()):
            message = f"{where}: expected an object with image_id, file_name and segments_info"
            self.builder.report("malformed row", self.file, message)
            return
        picture = self.listed.row_of.get(row["image_id"])
        if picture is None:
            message = f"{where}.image_id: there is no image {row['image_id']!r}; its segments are left out"
            self.builder.report("annotation without image", self.file, message)
        elif picture >= 0:
            ids = self._pixels(row["file_name"], picture)
            if ids is not None:
                self._take(where, picture, row["segments_info"], ids)

    def _pixels(self, name: str, picture: int) -> NDArray[np.int64] | None:
        """``[H, W]`` ids of segments; None (noted) where the PNG cannot be used."""
        path = self.pngs.find(name) if "\0" not in name else None
        if path is None:
            self.builder.report("missing label file", self.file.with_suffix("") / ascii(name)[1:-1], "no such file")
            return None
        try:
            pixels = decode(Path(path)).astype(np.int64)  # [H, W, 3]
        except DecodeError as error:
            self.builder.report("malformed file", path, error.reason)
            return None
        width, height = self.listed.sizes[picture].tolist()
        if pixels.shape[:2] != (height, width):
            message = f"is {pixels.shape[1]}x{pixels.shape[0]}, its picture is {width}x{height}"
            self.builder.report("malformed file", path, message)
            return None
        return np.asarray(pixels @ np.array([1, 256, 65536]))

    def _take(self, where: str, picture: int, infos: list[Any], ids: NDArray[np.int64]) -> None:
        unknown = set(np.unique(ids).tolist()) - {0}
        for at, info in enumerate(infos):
            here = f"{where}.segments_info[{at}]"
            identity, category = (info.get("id"), info.get("category_id")) if isinstance(info, dict) else (None, None)
            if type(identity) is not int:
                self.builder.report("malformed row", self.file, f"{here}: expected an object with an id")
            elif type(category) is not int or category not in self.categories.names:
                known = ", ".join(map(str, self.categories.names))
                message = f"{here}.category_id: {ascii(category)[:60]} is not one of {known}"
                self.builder.report("class out of range", self.file, message)
            elif self.categories.labels[category] < 0:
                name, known = self.categories.names[category], ", ".join(self.builder.classes)
                self.builder.report("unknown class", self.file, f"{here}: class {name!r} is not one of {known}")
            elif identity not in unknown:
                self.builder.report("degenerate box", self.file, f"{here}: no pixel has the id {identity}; dropped")
            else:
                self._keep(here, picture, self.categories.labels[category], info, ids == identity)
            unknown.discard(identity)
        if unknown:
            message = f"{where}.segments_info: {len(unknown)} ids of pixels are not listed, the first is {min(unknown)}"
            self.builder.report("unlisted segment", self.file, message)

    def _keep(self, here: str, picture: int, label: int, info: Row, pixels: NDArray[np.bool_]) -> None:
        """Boxes and areas are those of the pixels: they cannot be wrong."""
        area = float(pixels.sum())
        said = info.get("area")
        if isinstance(said, int | float) and said != area:
            self.builder.report("wrong area", self.file, f"{here}.area: says {said:g}, {area:g} pixels have the id")
        self.rows.append((picture, label, list(box_of(pixels)), area, info.get("iscrowd") == 1))
        self.masks.append(encoded(pixels))
        self.names.append(here)

    def table(self) -> Table:
        """All of them in the order of their pictures."""
        order = sorted(range(len(self.rows)), key=lambda at: self.rows[at][0])
        columns = list(zip(*(self.rows[at] for at in order), strict=True)) or [()] * 5
        return Table(
            np.array(columns[0], np.int64),
            np.array(order, np.int64),
            np.array(columns[2], np.float64).reshape(-1, 4),
            np.array(columns[1], np.int64),
            np.array(columns[3], np.float64),
            np.array(columns[4], np.bool_),
            np.zeros(len(order), np.bool_),
            [self.masks[at] for at in order],
            None,
            self.names.__getitem__,
        )


_KEYS: dict[str, Any] = {"image_id": int | str, "file_name": str, "segments_info": list}
