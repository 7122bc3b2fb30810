"""Small COCO data sets that tests write for themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.data.pictures import noise, save

SIZE = (40, 30)


def row(**changes: Any) -> dict[str, Any]:
    """An annotation as it should be."""
    whole = {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}
    return whole | changes


def content(**changes: Any) -> dict[str, Any]:
    """A json with one picture, two categories and one annotation."""
    whole = {
        "info": {},
        "images": [{"id": 5, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [row()],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    return whole | changes


def written(folder: Path, said: dict[str, Any] | str | bytes, name: str = "instances_train.json") -> Path:
    """A data set of this json and the picture ``train/a.png``."""
    if not (folder / "train" / "a.png").exists():
        save(noise(*SIZE), folder / "train" / "a.png")
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    raw = said if isinstance(said, bytes) else (said if isinstance(said, str) else json.dumps(said)).encode()
    (folder / "annotations" / name).write_bytes(raw)
    return folder
