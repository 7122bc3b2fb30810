"""MS COCO: one json a split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, mapped, new_folder, no_split
from torso.data.index import Index, Mask

Row = dict[str, Any]


class Coco:
    """``annotations/instances_{split}.json`` (also ``instances_{split}2017.json``, ``{split}/_annotations.coco.json``).

    Boxes are ``x y w h`` from 0, continuous. Category ids may have gaps; labels follow their order, and the ids
    stay in ``class_ids``. ``iscrowd`` objects count neither way. Polygons and run lengths are kept as masks.
    Pictures are looked for beside the json and in the folders usual for them.

    Source: Microsoft COCO: Common Objects in Context, 2014, arXiv:1405.0312.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a json of instances."""
        return bool(_files(path))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return sorted(_files(path))

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        files = _files(path)
        file = files.get(split) or files.get("val" if split == "valid" else split)
        if file is None:
            raise no_split(path, split, sorted(files))
        root = path if path.is_dir() else path.parent
        content = _parse(file)
        categories = _categories(file, content.get("categories"))
        chosen, label_of = mapped([name for _, name in categories], classes)
        ids = {name: number for number, name in categories}
        free = iter(range(max(ids.values(), default=0) + 1, 1 << 62))
        builder = Builder(root, chosen, tuple(ids[name] if name in ids else next(free) for name in chosen))
        labels = {number: label_of.get(name) for number, name in categories}
        names = dict(categories)
        grouped = _grouped(builder, file, content)
        places = _places(root, file, split)
        for number, picture in enumerate(_list(file, content, "images")):
            entry = _image(builder, file, picture, f"images[{number}]", grouped.done)
            if entry is None:
                continue
            said = tuple(int(picture.get(key) or 0) for key in ("width", "height"))
            found = _found(places, str(picture["file_name"]))
            size = builder.size_of(found, (said[0], said[1]), file)
            grouped.done[entry] = picture["file_name"]
            if size is None:
                continue
            builder.image(found, size, entry)
            parsed = (_object(builder, file, where, row, labels, names) for where, row in grouped.rows[entry])
            builder.objects([row for row in parsed if row is not None], file)
        grouped.report_orphans(builder, file)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes ``annotations/instances_{split}.json`` and the pictures into ``{split}/``."""
        folder = new_folder(index, folder)
        names = copied(index, folder / split)
        place = folder / "annotations"
        place.mkdir(exist_ok=True)
        ids = _unique_ids(index)
        content = {
            "info": {"description": "written by torso"},
            "licenses": [],
            "categories": [{"id": i, "name": name} for i, name in zip(index.class_ids, index.classes, strict=True)],
            "images": [
                {
                    "id": ids[row],
                    "file_name": name,
                    "width": int(index.sizes[row, 0]),
                    "height": int(index.sizes[row, 1]),
                }
                for row, name in enumerate(names)
            ],
            "annotations": [row for image in range(len(index)) for row in _annotations(index, image, ids[image])],
        }
        (place / f"instances_{split}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _files(path: Path) -> dict[str, Path]:
    """The json files by split."""
    if path.is_file():
        return dict.fromkeys(("train", "val", "test", "all", _split_of(path)), path) if path.suffix == ".json" else {}
    found: dict[str, Path] = {}
    if not path.is_dir():
        return found
    for folder in (path / "annotations", path / "coco", path):
        for file in sorted(folder.glob("instances_*.json")) if folder.is_dir() else []:
            found.setdefault(_split_of(file), file)
    for file in sorted(path.glob("*/_annotations.coco.json")):
        found.setdefault("val" if file.parent.name == "valid" else file.parent.name, file)
    return found


def _split_of(file: Path) -> str:
    """``instances_val2017.json`` is "val"."""
    name = file.stem.removeprefix("instances_")
    return name[:-4] if name[-4:].isdigit() and len(name) > 4 else name


def _parse(file: Path) -> Row:
    try:
        content = json.loads(file.read_bytes())
    except RecursionError as error:
        raise DataError(f"{file}: is nested too deeply to be COCO") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: is not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error.reason})") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: expected an object with images, annotations and categories, came a {type(content).__name__}"
        )
    return content


def _list(file: Path, content: Row, key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        came = "nothing" if value is None else type(value).__name__
        raise DataError(f"{file}: {key}: expected a list, came {came}")
    return value


def _categories(file: Path, value: Any) -> list[tuple[int, str]]:
    """(id, name) in the order of the ids."""
    rows = _list(file, {"categories": value}, "categories")
    pairs: dict[int, str] = {}
    for number, row in enumerate(rows):
        where = f"{file}: categories[{number}]"
        if not isinstance(row, dict) or not isinstance(row.get("id"), int) or not str(row.get("name", "")).strip():
            raise DataError(f"{where}: expected a whole number id and a name")
        name = str(row["name"]).strip()
        if row["id"] in pairs or name in pairs.values():
            raise DataError(f"{where}: id {row['id']} or name {name!r} is used twice")
        pairs[row["id"]] = name
    return sorted(pairs.items())


class _Grouped:
    """The annotations by image id, and the image ids met so far."""

    def __init__(self) -> None:
        self.rows: dict[int | str, list[tuple[str, Row]]] = defaultdict(list)
        self.done: dict[int | str, str] = {}  # and their files

    def report_orphans(self, builder: Builder, file: Path) -> None:
        for image_id, rows in self.rows.items():
            if image_id not in self.done:
                where = rows[0][0]
                message = f"{where}.image_id: there is no image {image_id!r}; {len(rows)} of its annotations left out"
                builder.report("annotation without image", file, message)


def _grouped(builder: Builder, file: Path, content: Row) -> _Grouped:
    grouped = _Grouped()
    seen: set[Any] = set()
    for number, row in enumerate(_list(file, content, "annotations")):
        where = f"annotations[{number}]"
        if not isinstance(row, dict) or not isinstance(row.get("image_id"), int | str):
            builder.report("malformed row", file, f"{where}: expected an object with an image_id")
            continue
        own = row.get("id")
        if isinstance(own, int | str):
            if own in seen:
                builder.report("duplicate annotation id", file, f"{where}.id: {own} is used twice; both rows are kept")
            seen.add(own)
        grouped.rows[row["image_id"]].append((where, row))
    return grouped


def _image(builder: Builder, file: Path, row: Any, where: str, done: dict[int | str, str]) -> int | str | None:
    """The id of an image entry; None (noted) where it cannot be used or was met before."""
    if (
        not isinstance(row, dict)
        or not isinstance(row.get("id"), int | str)
        or not isinstance(row.get("file_name"), str)
    ):
        builder.report("malformed row", file, f"{where}: expected an object with id and file_name")
        return None
    for key in ("width", "height"):
        if not isinstance(row.get(key, 0), int | float | None):
            builder.report("malformed row", file, f"{where}.{key}: expected a number, came {row[key]!r}")
            return None
    image_id: int | str = row["id"]
    if image_id not in done:
        return image_id
    if done[image_id] == row["file_name"]:
        builder.report("duplicate image", file, f"{where}.id: {image_id} is listed again; counted once")
    else:
        message = f"{where}.id: {image_id} is the id of another picture, {done[image_id]}"
        builder.report("duplicate image id", file, message)
    return None


def _places(root: Path, file: Path, split: str) -> list[Path]:
    """Folders where the pictures may lie, the likeliest first."""
    stem = file.stem.removeprefix("instances_")
    names = (split, stem, "images", f"images/{split}", f"images/{stem}", "JPEGImages", "")
    places = (base / name for base in (root, file.parent, file.parent.parent) for name in names)
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _found(places: list[Path], name: str) -> Path:
    name = name.replace("\\", "/")
    for place in places:
        if (place / name).is_file():
            return place / name
    return places[0] / name


def _object(
    builder: Builder, file: Path, where: str, row: Row, labels: dict[int, int | None], names: dict[int, str]
) -> Object | None:
    """One annotation; None (noted) where it cannot be used."""
    category = row.get("category_id")
    if category not in labels:
        builder.report(
            "class out of range", file, f"{where}.category_id: {category!r} is not one of {', '.join(map(str, labels))}"
        )
        return None
    label = labels[category]
    if label is None:
        builder.report(
            "unknown class", file, f"{where}: class {names[category]!r} is not one of {', '.join(builder.classes)}"
        )
        return None
    mask = _mask(builder, file, where, row.get("segmentation"))
    box = _box(row.get("bbox"), mask)
    if box is None:
        builder.report(
            "malformed row", file, f"{where}.bbox: expected 4 numbers x y w h, came {json.dumps(row.get('bbox'))[:60]}"
        )
        return None
    area = row.get("area")
    return Object(
        box,
        label,
        where=f"{where}: ",
        crowd=bool(row.get("iscrowd")),
        difficult=bool(row.get("ignore")),
        area=float(area) if isinstance(area, int | float) else None,
        mask=mask,
    )


def _box(value: Any, mask: Mask) -> tuple[float, float, float, float] | None:
    if value is None and isinstance(mask, list):
        xs = [x for polygon in mask for x in polygon[0::2]]
        ys = [y for polygon in mask for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    if not isinstance(value, list) or len(value) != 4:
        return None
    try:
        x, y, w, h = (float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return x, y, x + w, y + h


def _mask(builder: Builder, file: Path, where: str, value: Any) -> Mask:
    """Polygons of three points or more, or run lengths; anything else is noted and left out, the box stays."""
    if not value:
        return None
    if isinstance(value, dict):
        if isinstance(value.get("counts"), list | str) and isinstance(value.get("size"), list):
            return value
    elif isinstance(value, list):
        good = [
            polygon for polygon in value if isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        ]
        good = [polygon for polygon in good if all(isinstance(number, int | float) for number in polygon)]
        if len(good) == len(value):
            return good
        message = (
            f"{where}.segmentation: {len(value) - len(good)} polygons have fewer than 3 points; left out, the box stays"
        )
        builder.report("malformed mask", file, message)
        return good or None
    builder.report(
        "malformed mask", file, f"{where}.segmentation: expected polygons or run lengths; left out, the box stays"
    )
    return None


def _unique_ids(index: Index) -> list[int]:
    """The images' own ids where they are numbers and differ, else 1, 2, 3."""
    ids = [image_id for image_id in index.image_ids if isinstance(image_id, int)]
    return ids if len(set(ids)) == len(index) else list(range(1, len(index) + 1))


def _annotations(index: Index, image: int, image_id: int) -> list[Row]:
    objects = index.objects(image)
    rows = []
    for at in range(objects.start, objects.stop):
        x0, y0, x1, y1 = index.boxes[at].tolist()
        row: Row = {
            "id": at + 1,
            "image_id": image_id,
            "category_id": index.class_ids[index.labels[at]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": float(index.area[at]),
            "iscrowd": int(index.crowd[at]),
        }
        if index.difficult[at]:
            row["ignore"] = 1
        if index.masks is not None and index.masks[at] is not None:
            row["segmentation"] = index.masks[at]
        rows.append(row)
    return rows
