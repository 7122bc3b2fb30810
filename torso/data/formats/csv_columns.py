"""What the columns of a table are: told by its header, in any of the usual words."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torso.config import DataError

_COLUMNS = {
    "image": ("filename", "file_name", "file", "image", "image_path", "image_name", "img", "img_path", "path",
              "filepath", "file_path", "image_id"),
    "label": ("class", "label", "class_name", "label_name", "category", "name", "target"),
    "difficult": ("difficult",), "truncated": ("truncated",), "occluded": ("occluded",), "crowd": ("crowd", "iscrowd"),
}  # fmt: skip
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)  # fmt: skip
_EDGES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("bbox_x", "bbox_y", "bbox_width", "bbox_height"))
_SIZES = (("image_width", "image_height"), ("img_width", "img_height"), ("width", "height"))
FLAGS = ("difficult", "truncated", "occluded", "crowd")


@dataclass(frozen=True)
class Head:
    """Which column is what."""

    image: int
    label: int
    box: tuple[int, ...] = ()
    edges: bool = False  # x y width height instead of two corners
    voc: bool = False  # counted from 1, the last pixel included
    size: tuple[int, ...] = ()
    flags: dict[str, int] = field(default_factory=dict)


class Table:
    """The cells of a file, with line numbers."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: is not UTF-8 text ({error.reason})") from error
        first = text.lstrip().partition("\n")[0]
        delimiter = max(",;\t", key=first.count)  # the first of them where none is there
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            self.rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: is not CSV ({error})") from error
        if not self.rows:
            raise DataError(f"{file}: is empty; expected a header and rows")
        self.head = self._head(*self.rows.pop(0))

    def _head(self, line: int, cells: list[str]) -> Head:
        at = {name.casefold().replace(" ", "_"): column for column, name in reversed(list(enumerate(cells)))}
        found = {what: next((at[name] for name in names if name in at), -1) for what, names in _COLUMNS.items()}
        if found["image"] < 0 or found["label"] < 0:
            expected = "expected a header such as path,label or filename,class,xmin,ymin,xmax,ymax"
            raise DataError(f"{self.file}:{line}: {expected}, came {','.join(cells)[:80]}")
        corners = next((names for names in _CORNERS if all(name in at for name in names)), None)
        edges = next((names for names in _EDGES if all(name in at for name in names)), None)
        names = corners or edges or ()
        size = next((pair for pair in _SIZES if all(n in at for n in pair) and not {*pair} & {*names}), ())
        return Head(
            image=found["image"],
            label=found["label"],
            box=tuple(at[name] for name in names),
            edges=corners is None,
            voc=corners == _CORNERS[0],
            size=tuple(at[name] for name in size),
            flags={flag: found[flag] for flag in FLAGS if found[flag] >= 0},
        )


def listed_classes(root: Path, file: Path) -> list[str]:
    """Names of classes that a file beside lists."""
    for place in (file.parent, root):
        for listing in (place / "classes.txt", place / "labels.txt"):
            if listing.is_file():
                lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return []


def named(cell: str, listed: Sequence[str]) -> str:
    """The class a cell means: a name, or the number of one that is listed."""
    plain = cell.isascii() and cell.isdigit() and len(cell) < 10
    return listed[int(cell)] if plain and cell not in listed and int(cell) < len(listed) else cell


def class_names(table: Table, listed: list[str]) -> list[str]:
    """The classes: those listed, else all that occur, numbers in their own order."""
    if listed:
        return listed
    at = table.head.label
    found = {row[at] for _, row in table.rows if len(row) > at and row[at]}
    numbers = all(name.isascii() and name.isdigit() for name in found)
    return sorted(found, key=lambda name: (len(name.lstrip("0")), name) if numbers else (0, name))


def numbers(cells: Sequence[str]) -> list[float] | None:
    """Cells as numbers; None where one is none."""
    try:
        return None if any("_" in cell for cell in cells) else [float(cell) for cell in cells]
    except ValueError:
        return None
