"""A synthetic set of pictures and labels, first as a plan that faults may change, then as files of a format.

The files are written here, not by torso's own writers: what those would get wrong, readers might get wrong alike.
"""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (96, 72)
CLASSES = ["cat", "dog", "owl"]
TRAIN, VAL = 30, 10


@dataclass(frozen=True)
class Expected:
    """A finding a check has to make."""

    kind: str
    path: str
    line: int | None = None
    text: str = ""
    skipped: bool = False  # the loader meets the picture and names it

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.kind, self.path, self.line


Later = Callable[[], Expected]
"""Lines are known when the files are written."""


@dataclass
class Row:
    """An object. ``raw`` stands for the four numbers where it is given."""

    label: str
    box: tuple[float, float, float, float]
    raw: list[Any] | None = None
    crowd: bool = False
    difficult: bool = False
    mask: Any = None
    image_id: int | None = None
    path: str = ""  # of the label file, known when written
    line: int | None = None
    where: str = ""


@dataclass
class Item:
    """A picture and its objects."""

    stem: str
    split: str
    data: bytes
    rows: list[Row]
    suffix: str = ".jpg"
    folder: str = ""
    size: tuple[int, int] | None = SIZE  # that the labels state
    present: bool = True
    image_id: int = 0
    mask: bytes | None = None  # instead of the one that fits
    label_path: str = ""
    path: str = ""

    @property
    def file(self) -> str:
        return f"{self.folder}{self.stem}{self.suffix}"


@functools.cache
def pixels(seed: int, size: tuple[int, int] = SIZE) -> Any:
    """A smooth coloured pattern, like no other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def encoded(array: Any, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    if form == "JPEG":
        options = {"quality": 92, **options}
    image.save(buffer, form, **options)
    return buffer.getvalue()


@functools.cache
def picture(seed: int) -> bytes:
    return encoded(pixels(seed))


def mask(seed: int, size: tuple[int, int]) -> bytes:
    """A palette PNG of classes 0, 1, 2 with a border of 255."""
    numbers = pixels(seed, size)[..., 0] // 86
    numbers[:2] = 255
    image = Image.fromarray(numbers, "P")
    image.putpalette([value for number in range(256) for value in (number, 255 - number, 128)])
    return encoded(image, "PNG")


@dataclass
class Plan:
    """All of a set; faults change it before it is written."""

    root: Path
    form: str
    items: list[Item]
    classes: list[str] = field(default_factory=lambda: list(CLASSES))
    class_ids: list[int] = field(default_factory=lambda: [1, 2, 3])  # COCO
    first_id: int = 0  # YOLO
    extra: dict[str, bytes] = field(default_factory=dict)
    after: list[Callable[[], None]] = field(default_factory=list)  # done to the files in the end
    yaml: dict[str, Any] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=dict)  # more names in a VOC list

    @classmethod
    def clean(cls, folder: Path, form: str) -> Plan:
        items = []
        for number in range(TRAIN + VAL):
            split = "train" if number < TRAIN else "val"
            rng = np.random.default_rng(1000 + number)
            rows = []
            for k in range(1 if form == "folder" else 2):
                x, y = rng.integers(2, 20, 2).tolist()
                w, h = rng.integers(24, 48, 2).tolist()
                rows.append(Row(CLASSES[(number + k) % 3], (x + 20.0 * k, float(y), x + 20.0 * k + w, float(y + h))))
            items.append(Item(f"{number:03d}", split, picture(number), rows, image_id=number + 1))
        return cls(folder / "set", form, items)

    def of(self, split: str = "train") -> list[Item]:
        return [item for item in self.items if item.split == split]

    def train(self, at: int) -> Item:
        return self.of()[at]

    def val(self, at: int) -> Item:
        return self.of("val")[at]

    def write(self) -> None:
        {
            "voc": self._voc,
            "coco": self._coco,
            "yolo": self._yolo,
            "folder": self._folder,
            "csv": self._csv,
            "mask_folder": self._masks,
        }[self.form]()
        for name, data in self.extra.items():
            self._put(name, data)
        for change in self.after:
            change()

    def _put(self, name: str, data: bytes | str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def _picture(self, item: Item, name: str) -> None:
        item.path = name
        if item.present:
            self._put(name, item.data)

    def _voc(self) -> None:
        for item in self.items:
            self._picture(item, f"JPEGImages/{item.file}")
            item.label_path = f"Annotations/{item.stem}.xml"
            self._put(item.label_path, self._xml(item))
        for split in ("train", "val"):
            names = [item.stem for item in self.of(split)] + self.listed.get(split, [])
            self._put(f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in names))
        self._put("labels.txt", "".join(f"{name}\n" for name in self.classes))

    def _xml(self, item: Item) -> str:
        lines = ["<annotation>", f"<filename>{item.stem}{item.suffix}</filename>"]
        if item.size is not None:
            lines.append(f"<size><width>{item.size[0]}</width><height>{item.size[1]}</height><depth>3</depth></size>")
        for row in item.rows:
            row.path, row.line = item.label_path, len(lines) + 1
            x0, y0, x1, y1 = row.box
            values = row.raw or [x0 + 1, y0 + 1, x1, y1]
            sides = "".join(
                f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), values, strict=False)
            )
            flag = f"<difficult>{int(row.difficult)}</difficult>"
            lines += ["<object>", f"<name>{row.label}</name>{flag}", f"<bndbox>{sides}</bndbox>", "</object>"]
        return "\n".join([*lines, "</annotation>"]) + "\n"

    def _coco(self) -> None:
        for split in ("train", "val"):
            path = f"annotations/instances_{split}.json"
            images, annotations = [], []
            for item in self.of(split):
                self._picture(item, f"{split}/{item.file}")
                item.label_path = path
                said = {"id": item.image_id, "file_name": item.file}
                if item.size is not None:
                    said |= {"width": item.size[0], "height": item.size[1]}
                images.append(said)
                for row in item.rows:
                    row.path, row.where = path, f"annotations[{len(annotations)}]"
                    annotations.append(self._annotation(item, row, len(annotations) + 1))
            names = zip(self.class_ids, self.classes, strict=True)
            categories = [{"id": number, "name": name} for number, name in names]
            self._put(path, json.dumps({"images": images, "annotations": annotations, "categories": categories}))

    def _annotation(self, item: Item, row: Row, number: int) -> dict[str, Any]:
        x0, y0, x1, y1 = row.box
        ids = dict(zip(self.classes, self.class_ids, strict=True))
        said = {
            "id": number,
            "image_id": item.image_id if row.image_id is None else row.image_id,
            "category_id": ids.get(row.label, 99),
            "bbox": row.raw or [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": int(row.crowd),
            "area": max(x1 - x0, 1) * max(y1 - y0, 1) if math.isfinite(x0 + x1) else 1,
        }
        return said | ({} if row.mask is None else {"segmentation": row.mask})

    def _yolo(self) -> None:
        for item in self.items:
            self._picture(item, f"images/{item.split}/{item.file}")
            item.label_path = f"labels/{item.split}/{item.folder}{item.stem}.txt"
            self._put(item.label_path, self._lines(item))
        names = "".join(f"  {number}: {name}\n" for number, name in enumerate(self.classes))
        keys = {"train": "images/train", "val": "images/val"} | self.yaml
        self._put("data.yaml", "".join(f"{key}: {value}\n" for key, value in keys.items()) + f"names:\n{names}")

    def _lines(self, item: Item) -> str:
        width, height = item.size or SIZE
        lines = []
        for row in item.rows:
            row.path, row.line = item.label_path, len(lines) + 1
            x0, y0, x1, y1 = row.box
            place = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
            number = self.classes.index(row.label) + self.first_id if row.label in self.classes else 99
            lines.append(" ".join(map(str, [number, *(row.raw or place)])))
        return "".join(f"{line}\n" for line in lines)

    def _csv(self) -> None:
        """Boxes under names that say nothing of VOC: continuous, from 0."""
        for split in ("train", "val"):
            lines = ["path,width,height,class,x1,y1,x2,y2,difficult"]
            for item in self.of(split):
                self._picture(item, f"{split}/{item.file}")
                item.label_path = f"{split}.csv"
                size = item.size or ("", "")
                for row in item.rows:
                    row.path, row.line = item.label_path, len(lines) + 1
                    cells = [f"{split}/{item.file}", *size, row.label, *(row.raw or row.box), int(row.difficult)]
                    lines.append(",".join(map(str, cells)))
                if not item.rows:
                    lines.append(f"{split}/{item.file},{size[0]},{size[1]},,,,,,")
            self._put(f"{split}.csv", "".join(f"{line}\n" for line in lines))

    def _masks(self) -> None:
        for item in self.items:
            self._picture(item, f"images/{item.split}/{item.file}")
            item.label_path = f"masks/{item.split}/{item.folder}{item.stem}.png"
            self._put(item.label_path, item.mask or mask(int(item.image_id), item.size or SIZE))
        self._put("classes.txt", "".join(f"{name}\n" for name in self.classes))

    def _folder(self) -> None:
        for item in self.items:
            self._picture(item, f"{item.split}/{item.rows[0].label}/{item.file}")
