"""Index -> COCO json, row by row, so that a large one need not be in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from torso.data.formats.places import copied, new_folder
from torso.data.index import Index

Row = dict[str, Any]


def write_objects(index: Index, folder: Path, split: str, start: str) -> None:
    """Writes ``annotations/{start}{split}.json`` with objects, and the pictures into ``{split}/``."""
    write(index, folder, split, start, categories(index), lambda row, image: _objects(index, row, image))


def write(
    index: Index, folder: Path, split: str, start: str, kinds: list[Row], rows: Callable[[int, int], Iterable[Row]]
) -> None:
    """Writes a json whose annotations are what ``rows(picture, image_id)`` gives, and the pictures.

    Raises:
        DataError: the folder is where the data come from.
    """
    folder = new_folder(index, folder)
    names = copied(index, folder / split)
    place = folder / "annotations"
    place.mkdir(exist_ok=True)
    ids = unique_ids(index)
    sizes = index.sizes.tolist()
    images = (
        {"id": ids[row], "file_name": name, "width": sizes[row][0], "height": sizes[row][1]}
        for row, name in enumerate(names)
    )
    annotations = (row for picture in range(len(index)) for row in rows(picture, ids[picture]))
    with (place / f"{start}{split}.json").open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "written by torso"}, "licenses": []')
        _list(file, "categories", kinds)
        _list(file, "images", images)
        _list(file, "annotations", annotations)
        file.write("}\n")


def _list(file: TextIO, key: str, rows: Iterable[Row]) -> None:
    file.write(f', "{key}": [')
    separator = "\n"
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ",\n"
    file.write("]")


def categories(index: Index) -> list[Row]:
    """Ids and names; all of them have the index's keypoints."""
    points: Row = {}
    if index.keypoint_names:
        points = {
            "keypoints": list(index.keypoint_names),
            "skeleton": [[one + 1, two + 1] for one, two in index.skeleton],
        }
    return [{"id": number, "name": name, **points} for number, name in zip(index.class_ids, index.classes, strict=True)]


def unique_ids(index: Index) -> list[int]:
    """The images' own ids where they are numbers and differ, else 1, 2, 3."""
    ids = [image_id for image_id in index.image_ids if isinstance(image_id, int)]
    return ids if len(set(ids)) == len(index) else list(range(1, len(index) + 1))


def _objects(index: Index, picture: int, image_id: int) -> Iterator[Row]:
    objects = index.objects(picture)
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
        if index.keypoints is not None:
            points = index.keypoints[at]
            row["keypoints"] = [_short(value) for value in points.ravel().tolist()]
            row["num_keypoints"] = int((points[:, 2] > 0).sum())
        yield row


def _short(value: float) -> float:
    """Whole numbers without a point, as COCO has them."""
    return int(value) if value.is_integer() else value
