"""YOLO text labels: one line an object, ``class cx cy w h`` as fractions of the picture."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, images_under, is_file, is_folder, mapped, new_folder
from torso.data.formats.yolo_yaml import Description, described, description_file, pictures, text_tree
from torso.data.index import Index

_LABELS = {"images": ("labels",), "Images": ("Labels", "labels", "Annotations")}
_BACKGROUND = ("background", "__background__", "_background_", "bg")
_NEAR = 1.0  # pixels a polygon may miss its box by and still be written for it


class Yolo:
    """A ``data.yaml`` with ``images/`` and ``labels/`` beside it.

    Paths are relative to the yaml and nothing else, and may not leave its folder. ``download`` is never followed.
    Classes count from 0. A line of ``class x y x y x y ...`` is a polygon; its box is the one around it. With
    ``kpt_shape`` in the yaml, keypoints follow the box. A picture without a label file, or with an empty one, shows
    nothing. Darknet's ``obj.data`` and plain ``obj.names`` or ``classes.txt`` beside the folders are read too.

    Source: the label format of Darknet (YOLOv3), 2018, as extended with ``data.yaml`` by YOLOv5, 2020.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a ``data.yaml``, or what stands for one."""
        return description_file(path) is not None

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return described(path).split_names()

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None, *, allow_outside: bool = False) -> Index:
        """The index of one split; ``allow_outside`` lets the yaml point out of its own folder."""
        description = described(path)
        chosen, label_of = mapped(description.names, classes)
        builder = Builder(description.home, chosen, keypoint_names=description.keypoint_names)
        for key in description.ignored:
            message = f"key {key!r} is ignored; torso never downloads or runs anything on its own"
            builder.report("ignored", description.file, message)
        found = pictures(description, split, allow_outside=allow_outside)
        files = [_label_file(picture) for picture in found]
        reader = _Reader(builder, description)
        sizes = builder.sizes_of(found, np.zeros((len(found), 2), np.int64))
        for picture, file, size, image_id in zip(found, files, sizes, _ids(found, description.home), strict=True):
            if size is None:
                continue
            builder.image(picture, size, image_id)
            if file is not None:
                rows = reader.rows(file, size)
                builder.objects(_renamed(builder, file, rows, description.names, label_of), file)
        if found and not any(files):
            message = f"no picture of {split} has labels; looked for {_label_paths(found[0])[0]} and so on"
            builder.report("malformed file", description.file, message)
        for file, count in Counter(file for file in files if file is not None).items():
            if count > 1:
                builder.report("shared labels", file, f"{count} pictures have this name and get the same labels")
        _report_orphans(builder, found)
        message = _counted_from_one(reader.used, description.names)
        if message:
            builder.report("class ids from 1", description.file, message)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str, *, polygons: bool | None = None) -> None:
        """Writes pictures, labels and ``data.yaml``; crowd and difficult objects have no place in it and are left out.

        An object of one polygon is written as that polygon where its box is the one around it; where the two differ by
        up to a pixel, the outermost points are moved onto the box, so that the box comes back. ``polygons`` True writes
        every single polygon as it is, False writes boxes only.
        """
        import yaml

        folder = new_folder(index, folder)
        described = folder / "data.yaml"
        content = text_tree(described) if described.is_file() else {}
        names = {str(label): name for label, name in enumerate(index.classes)}
        if content.get("names", names) != names:
            raise DataError(f"{described}: lists other classes than the split {split!r} to be written beside it")
        files = copied(index, folder / "images" / split)
        labels = folder / "labels" / split
        labels.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(files):
            (labels / f"{Path(name).stem}.txt").write_text(_lines(index, row, polygons), encoding="utf-8")
        content |= {"path": ".", split: f"images/{split}", "names": dict(enumerate(index.classes))}
        if index.keypoint_names:
            content |= {"kpt_shape": [len(index.keypoint_names), 3], "kpt_names": list(index.keypoint_names)}
        described.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


# ---------------------------------------------------------------- where labels lie


def _label_paths(picture: Path) -> list[Path]:
    """The last folder called ``images`` becomes ``labels``; labels may lie beside the pictures too."""
    parts = list(picture.parent.parts)
    at = max((i for i, part in enumerate(parts) if part in _LABELS), default=None)
    named = f"{picture.stem}.txt"
    if at is None:
        return [picture.parent / named]
    return [
        *(Path(*parts[:at], other, *parts[at + 1 :], named) for other in _LABELS[parts[at]]),
        picture.parent / named,
    ]


def _label_file(picture: Path) -> Path | None:
    return next((path for path in _label_paths(picture) if is_file(path)), None)


def _ids(found: Sequence[Path], home: Path) -> list[str]:
    """Stems; where two pictures share one, their paths tell them apart."""
    count = Counter(picture.stem for picture in found)
    return [
        picture.stem
        if count[picture.stem] == 1
        else (picture.relative_to(home) if picture.is_relative_to(home) else picture).as_posix()
        for picture in found
    ]


def _report_orphans(builder: Builder, found: Sequence[Path]) -> None:
    """Names label files of these folders that belong to no picture."""
    for folder in dict.fromkeys(picture.parent for picture in found):
        labels = _label_paths(folder / "x")[0].parent
        if labels == folder or not is_folder(labels) or not is_folder(folder):
            continue
        stems = {picture.stem for picture in images_under(folder)}
        for file in sorted(labels.glob("*.txt")):
            if file.stem not in stems and file.name != "classes.txt":
                builder.report("label without picture", file, f"there is no picture {file.stem} in {folder.name}")


# ---------------------------------------------------------------- rows


@dataclass
class _Reader:
    """Reads label files; notes which class ids are used."""

    builder: Builder
    description: Description

    def __post_init__(self) -> None:
        self.used: set[int] = set()

    def rows(self, file: Path, size: tuple[int, int]) -> list[Object]:
        """The rows of one file; what is malformed is noted and left out."""
        rows = []
        count = len(self.description.names)
        try:
            text = file.read_bytes().decode("utf-8-sig", "replace")
        except OSError as error:
            self.builder.report("malformed file", file, f"cannot be read ({error.strerror})")
            return []
        for line, row in enumerate(re.split(r"\r\n|\r|\n", text), 1):
            if not row.strip():
                continue
            values = _numbers(row)
            wrong = f"expected numbers, came {row.strip()[:60]!r}" if values is None else self._wrong(values)
            if values is None or wrong:
                self.builder.report("malformed row", file, wrong, line)
                continue
            self.used.add(int(values[0]))
            if not 0 <= values[0] < count:
                hint = " (do these ids start at 1?)" if values[0] == count else ""
                message = f"expected a class in 0..{count - 1}, came {values[0]:g}{hint}"
                self.builder.report("class out of range", file, message, line)
            else:
                rows.append(self._object(values, size, line))
        return rows

    def _wrong(self, values: list[float]) -> str:
        """What is wrong with the shape of a row, if anything."""
        if not values[0].is_integer():
            return f"expected a whole class number, came {values[0]:g}"
        if len(values) == 5:
            return ""
        points = len(self.description.keypoint_names)
        if points:
            expected = 5 + points * self.description.keypoint_values
            shape = f"a box and {points} keypoints, {expected} columns in all"
            return "" if len(values) == expected else f"expected {shape}, came {len(values)}"
        if len(values) == 6:
            return "6 columns: the last looks like a confidence; labels have 5 (class cx cy w h)"
        if len(values) < 7 or len(values) % 2 == 0:
            return f"expected 5 columns (class cx cy w h) or a polygon (class x y x y x y ...), came {len(values)}"
        return ""

    def _object(self, values: list[float], size: tuple[int, int], line: int) -> Object:
        label, (width, height) = int(values[0]), size
        if not all(map(math.isfinite, values)):
            return Object((math.nan,) * 4, label, line)  # named and left out by the builder
        if len(values) == 5 or self.description.keypoint_names:
            cx, cy, w, h = values[1:5]
            box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            points = _points(values[5:], self.description.keypoint_values, size) if len(values) > 5 else None
            return Object(box, label, line, keypoints=points)
        xs, ys = [x * width for x in values[1::2]], [y * height for y in values[2::2]]
        polygon = [value for point in zip(xs, ys, strict=True) for value in point]
        return Object((min(xs), min(ys), max(xs), max(ys)), label, line, mask=[polygon])


def _numbers(row: str) -> list[float] | None:
    try:
        return None if "_" in row else [float(column) for column in row.split()]
    except ValueError:
        return None


def _points(values: list[float], each: int, size: tuple[int, int]) -> list[float]:
    """x, y in pixels and visibility; without one, a point at 0, 0 is not labelled."""
    points: list[float] = []
    for at in range(0, len(values), each):
        x, y = values[at : at + 2]
        seen = values[at + 2] if each == 3 else 2.0 if x or y else 0.0
        points += [x * size[0], y * size[1], seen]
    return points


def _renamed(
    builder: Builder, file: Path, rows: list[Object], names: list[str], label_of: dict[str, int]
) -> list[Object]:
    """The rows with the labels their names have in the training split; names it does not have are noted."""
    kept = []
    for row in rows:
        name = names[row.label]
        if name in label_of:
            kept.append(row if label_of[name] == row.label else replace(row, label=label_of[name]))
        else:
            builder.report("unknown class", file, f"class {name!r} is not one of {', '.join(label_of)}", row.line)
    return kept


def _counted_from_one(used: set[int], names: list[str]) -> str:
    """A sentence where the ids look as if they counted from 1; nothing is guessed."""
    if not used or 0 in used or min(used) < 0:
        return ""
    if max(used) == len(names):
        span = f"ids run from {min(used)} to {len(names)} and 0 is never used"
        return f"{span}: they seem to start at 1, YOLO's start at 0; subtract 1 from each (nothing was changed)"
    if names[0].casefold() in _BACKGROUND:
        return (
            f"class 0 is {names[0]!r} and never used: there is no class for the background here; take it out of names "
            "and count the others from 0 (nothing was changed)"
        )
    if used == set(range(1, len(names))):
        return "every class but 0 is used: do these ids start at 1? YOLO's start at 0; nothing was changed"
    return ""


# ---------------------------------------------------------------- writing


def _lines(index: Index, row: int, polygons: bool | None) -> str:
    width, height = index.sizes[row].tolist()
    objects = index.objects(row)
    lines = []
    for at in range(objects.start, objects.stop):
        if index.crowd[at] or index.difficult[at]:
            continue
        box = index.boxes[at].tolist()
        polygon = _polygon(index, at, box, polygons)
        if polygon is not None:
            values = [value / (width, height)[i % 2] for i, value in enumerate(polygon)]
        else:
            x0, y0, x1, y1 = box
            values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
            if index.keypoints is not None:
                values += [value for x, y, seen in index.keypoints[at] for value in (x / width, y / height, seen)]
        shown = (f"{value:.12f}".rstrip("0").rstrip(".") for value in values)
        lines.append(" ".join([str(index.labels[at]), *shown]) + "\n")
    return "".join(lines)


def _polygon(index: Index, at: int, box: list[float], polygons: bool | None) -> list[float] | None:
    """The polygon to be written for an object; None where it is written as its box."""
    mask: Any = None if index.masks is None else index.masks[at]
    if polygons is False or index.keypoints is not None or not isinstance(mask, list) or len(mask) != 1:
        return None
    polygon = [float(value) for value in mask[0]]
    if polygons:
        return polygon
    for side, (axis, outermost) in enumerate(((0, min), (1, min), (0, max), (1, max))):
        edge = outermost(polygon[axis::2])
        if abs(edge - box[side]) > _NEAR:
            return None
        polygon = [box[side] if i % 2 == axis and value == edge else value for i, value in enumerate(polygon)]
    return [min(max(value, box[i % 2]), box[2 + i % 2]) for i, value in enumerate(polygon)]
