"""Tables of boxes or classes: one CSV file a split, a line an object or a picture."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.csv_columns import FLAGS, Table, class_names, listed_classes, named, numbers
from torso.data.formats.places import (
    copied,
    held_out,
    hidden,
    images_under,
    inside,
    is_file,
    mapped,
    new_folder,
    no_split,
)
from torso.data.index import Index

_FOLDERS = (".", "data", "annotations", "labels")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_WHOLE = ("train", "val", "all")


class Csv:
    """``train.csv``, ``val_labels.csv``, ...: ``filename,width,height,class,xmin,ymin,xmax,ymax`` or ``path,label``.

    The header says what the columns are, by these or their usual other names; the delimiter is a comma, a semicolon
    or a tab. Columns ``xmin ymin xmax ymax`` are taken for VOC's numbers, from 1 and with the last pixel included, as
    the scripts that make such tables copy them; boxes under any other names are continuous from 0. The option
    ``count_from`` (0 or 1) decides it for both. A row without class and box is a picture that shows nothing. Class
    numbers are lines of ``classes.txt`` or ``labels.txt`` where there is one. A split is the beginning of a file's
    name; a single table of another name is split by the names of its pictures, a fifth of them "val".

    Source: TensorFlow Object Detection API's labels in CSV, 2017.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a table of boxes, or of classes where no class folders lie beside it."""
        for file in _files(path).values():
            try:
                head = Table(file).head
            except DataError:
                continue
            if head.box or not _class_folders(path):
                return True
        return False

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        found = _files(path)
        return list(_WHOLE) if set(found) == {"all"} else sorted(found)

    @staticmethod
    def read(
        path: Path,
        split: str,
        classes: Sequence[str] | None = None,
        *,
        count_from: int | None = None,
        allow_outside: bool = False,
    ) -> Index:
        """The index of one split."""
        files = _files(path)
        split = _SPLITS.get(split, split)
        file = files.get(split) or (files.get("all") if split in _WHOLE and set(files) == {"all"} else None)
        if file is None:
            raise no_split(path, split, Csv.splits(path))
        if count_from not in (None, 0, 1):
            raise DataError(f"data.options.count_from: expected 0 or 1, came {count_from!r}")
        root = path if path.is_dir() else path.parent.parent if path.parent.name in _FOLDERS else path.parent
        table = Table(file)
        listed = listed_classes(root, file)
        own = class_names(table if split not in files or split == "train" else Table(files.get("train", file)), listed)
        chosen, label_of = mapped(own, classes)
        builder = Builder(root, chosen, task="detect" if table.head.box else "classify")
        reader = _Reader(builder, table, label_of, listed, count_from)
        grouped = reader.grouped()
        kept = set(grouped) if split in files else held_out(grouped, split)
        places = _Places(root, file, split, allow_outside)
        for name, rows in grouped.items():
            if name in kept:
                reader.add(places.find(name), name, rows)
        reader.report_doubts()
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes ``{split}.csv`` and the pictures into ``{split}/``; masks and keypoints have no place in it."""
        folder = new_folder(index, folder)
        names = [f"{split}/{name}" for name in copied(index, folder / split)]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if index.image_labels is not None:
                writer.writerow(["path", "label"])
                writer.writerows([n, index.classes[k]] for n, k in zip(names, index.image_labels, strict=True))
            else:
                columns = {name: getattr(index, name) for name in FLAGS}
                flags = [name for name, column in columns.items() if column is not None and column.any()]
                writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", *flags])
                for row, name in enumerate(names):
                    writer.writerows(_rows(index, row, name, flags))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in index.classes), encoding="utf-8")


def _rows(index: Index, row: int, name: str, flags: Sequence[str]) -> Iterator[list[object]]:
    size = index.sizes[row].tolist()
    objects = index.objects(row)
    if objects.start == objects.stop:
        yield [name, *size, *[""] * (5 + len(flags))]
    for at in range(objects.start, objects.stop):
        x0, y0, x1, y1 = index.boxes[at].tolist()
        marks = [int(getattr(index, flag)[at]) for flag in flags]
        yield [name, *size, index.classes[index.labels[at]], x0 + 1, y0 + 1, x1, y1, *marks]


# ---------------------------------------------------------------- files


def _files(path: Path) -> dict[str, Path]:
    """The tables by split; "all" where the only one is called something else."""
    if path.is_file():
        return {_split_of(path): path} if path.suffix.lower() in (".csv", ".tsv") else {}
    for folder in (path / name for name in _FOLDERS):
        files = [file for file in sorted(folder.glob("*.[ct]sv")) if not hidden(file)] if folder.is_dir() else []
        named = {_split_of(file): file for file in files}
        known = {split: file for split, file in named.items() if split != "all"}
        if files:
            return known or ({"all": files[0]} if len(files) == 1 else {file.stem: file for file in files})
    return {}


def _split_of(file: Path) -> str:
    """``train_labels.csv`` is "train"; what begins with no split's name is "all"."""
    word = file.stem.replace("-", "_").split("_")[0].casefold()
    return _SPLITS.get(word, "all")


def _class_folders(path: Path) -> bool:
    """Whether ``train/`` holds folders of pictures, which say more than a table of numbers."""
    train = path / "train"
    return train.is_dir() and any(entry.is_dir() and images_under(entry) for entry in train.iterdir())


class _Places:
    """Where pictures are looked for: as the table says it, beside it, and in the folders usual for them."""

    def __init__(self, root: Path, file: Path, split: str, allow_outside: bool) -> None:
        names = ("", "images", split, f"images/{split}", "JPEGImages")
        places = (base / name for base in (root, file.parent) for name in names)
        self.places = [place for place in dict.fromkeys(places) if place.is_dir()]
        self.home = None if allow_outside else root

    def find(self, name: str) -> Path | None:
        """The picture, or None where it lies outside of the data set."""
        found = next((place / name for place in self.places if is_file(place / name)), self.places[0] / name)
        return found if self.home is None or inside(found, self.home) else None


# ---------------------------------------------------------------- rows


Row = tuple[int, list[str]]


@dataclass
class _Reader:
    """Turns rows into pictures and objects; what is wrong with one is noted with its line."""

    builder: Builder
    table: Table
    label_of: dict[str, int]
    listed: list[str]
    count_from: int | None

    def __post_init__(self) -> None:
        self.zeros = 0
        self.largest = 0.0

    def grouped(self) -> dict[str, list[Row]]:
        """The rows of each picture, in the order of the file."""
        found: dict[str, list[Row]] = {}
        at = self.table.head.image
        for line, cells in self.table.rows:
            name = cells[at].replace("\\", "/") if len(cells) > at else ""
            if name:
                found.setdefault(name, []).append((line, cells))
            else:
                self._report("malformed row", f"expected the name of a picture in column {at + 1}", line)
        return found

    def add(self, picture: Path | None, name: str, rows: list[Row]) -> None:
        """One picture and what its rows say."""
        if picture is None:
            self._report("malformed row", f"{name[:60]!r} leaves the data set's folder", rows[0][0])
            return
        size = self.builder.size_of(picture, self._said(rows[0][1]), self.table.file)
        if size is None:
            return
        if self.table.head.box:
            self.builder.image(picture, size, name)
            parsed = (self._object(line, cells) for line, cells in rows)
            self.builder.objects([row for row in parsed if row is not None], self.table.file)
            return
        labels = {self._label(line, cells): line for line, cells in rows}
        if len(rows) > 1:
            same = "counted once" if len(labels) == 1 else "with another class; the first one counts"
            kind = "duplicate image" if len(labels) == 1 else "unknown class"
            self._report(kind, f"{name} is listed {len(rows)} times, {same}", rows[1][0])
        label = next(iter(labels))
        if label is not None:
            self.builder.image(picture, size, name, label)

    def _label(self, line: int, cells: list[str]) -> int | None:
        at = self.table.head.label
        name = named(cells[at], self.listed) if len(cells) > at else ""
        if name not in self.label_of:
            known = ", ".join(self.label_of)
            self._report("unknown class", f"class {name[:60]!r} is not one of {known[:200]}", line)
        return self.label_of.get(name)

    def _object(self, line: int, cells: list[str]) -> Object | None:
        head = self.table.head
        last = max(*head.box, head.label)
        if len(cells) > last and not any(cells[at] for at in (*head.box, head.label)):
            return None  # a picture that shows nothing
        values = numbers([cells[at] for at in head.box]) if len(cells) > last else None
        if values is None:
            came = ", ".join(cells)[:80]
            self._report("malformed row", f"expected a class and 4 numbers of a box, came {came}", line)
            return None
        label = self._label(line, cells)
        if label is None:
            return None
        x0, y0, x1, y1 = values
        if head.edges:
            x1, y1 = x0 + x1, y0 + y1
        if self.count_from == 1 or (self.count_from is None and head.voc):
            x0, y0 = x0 - 1, y0 - 1
        self.zeros += head.voc and self.count_from is None and 0 in values[:2]
        self.largest = max(self.largest, *values)
        marks = {flag for flag, at in head.flags.items() if len(cells) > at and cells[at] in ("1", "true", "True")}
        difficult, truncated, occluded, crowd = (flag in marks for flag in FLAGS)
        return Object(
            (x0, y0, x1, y1), label, line,
            difficult=difficult, truncated=truncated, occluded=occluded, crowd=crowd,
        )  # fmt: skip

    def report_doubts(self) -> None:
        """Says where all boxes together look as if they meant something else; nothing is guessed."""
        if 0 < self.largest <= 1:
            message = "no coordinate is above 1: these look like fractions of the picture, expected pixels"
            self.builder.report("malformed file", self.table.file, message)
        elif self.zeros:
            message = f"there are boxes that begin at 0 ({self.zeros} of them), which VOC's numbers never do"
            hint = "if this table counts from 0, say so with data.options.count_from=0"
            self.builder.report("counted from 0", self.table.file, f"{message}; {hint}")

    def _said(self, cells: list[str]) -> tuple[int, int] | None:
        """The size of the picture a row states."""
        at = self.table.head.size
        values = numbers([cells[i] for i in at]) if at and len(cells) > max(at) else None
        if values is None or not all(0 < value < 1e9 for value in values):
            return None
        return int(values[0]), int(values[1])

    def _report(self, kind: str, message: str, line: int) -> None:
        self.builder.report(kind, self.table.file, message, line)
