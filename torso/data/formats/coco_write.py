"""Index -> COCO json, row by row, so that a large one need not be in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from torso.data.formats.coco_columns import Row
from torso.data.formats.places import copied, new_folder
from torso.data.index import Index

Json = tuple[list[Row], Iterable[tuple[int, Row]]]
"""Categories, and annotations without their image's id, each with the row of its picture."""


def write(index: Index, folder: Path, split: str, jsons: Mapping[str, Json]) -> None:
    """Writes the pictures into ``{split}/`` and ``annotations/{start}{split}.json`` for each start.

    Raises:
        DataError: the folder is where the data come from.
    """
    folder = new_folder(index, folder)
    names = copied(index, folder / split)
    place = folder / "annotations"
    place.mkdir(exist_ok=True)
    ids = unique_ids(index)
    sizes = index.sizes.tolist()
    images: list[Row] = [
        {"id": ids[row], "file_name": name, "width": sizes[row][0], "height": sizes[row][1]}
        for row, name in enumerate(names)
    ]
    for start, (kinds, rows) in jsons.items():
        with (place / f"{start}{split}.json").open("w", encoding="utf-8") as file:
            file.write('{"info": {"description": "written by torso"}, "licenses": []')
            _write_list(file, "categories", kinds)
            _write_list(file, "images", images)
            _write_list(file, "annotations", (row | {"image_id": ids[picture]} for picture, row in rows))
            file.write("}\n")


def _write_list(file: TextIO, key: str, rows: Iterable[Row]) -> None:
    file.write(f', "{key}": [')
    separator = "\n"
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ",\n"
    file.write("]")


def categories(index: Index) -> list[Row]:
    """Ids and names; all of them have the index's keypoints, whose skeleton counts from 1."""
    points: Row = {}
    if index.keypoint_names:
        skeleton = [[one + 1, two + 1] for one, two in index.skeleton]
        points = {"keypoints": list(index.keypoint_names), "skeleton": skeleton}
    return [{"id": number, "name": name, **points} for number, name in zip(index.class_ids, index.classes, strict=True)]


def objects(index: Index) -> Iterator[tuple[int, Row]]:
    """One row an object."""
    for picture in range(len(index)):
        rows = index.objects(picture)
        for at in range(rows.start, rows.stop):
            yield picture, _object(index, at)


def _object(index: Index, at: int) -> Row:
    x0, y0, x1, y1 = index.boxes[at].tolist()
    row: Row = {
        "id": at + 1,
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
        row["keypoints"] = [int(value) if value.is_integer() else value for value in points.ravel().tolist()]
        row["num_keypoints"] = int((points[:, 2] > 0).sum())
    return row


def unique_ids(index: Index) -> list[int]:
    """The images' own ids where they are numbers and differ, else 1, 2, 3."""
    ids = [image_id for image_id in index.image_ids if isinstance(image_id, int)]
    return ids if len(set(ids)) == len(index) else list(range(1, len(index) + 1))
