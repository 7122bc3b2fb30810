"""Every format gives back a whole index of what it wrote, and the check sees one that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from torso import testing
from torso.config import DataError
from torso.data import digits, open_index
from torso.data.formats import FORMATS

WRITTEN = ("voc", "coco", "yolo", "csv", "folder", "shards", "unlabeled")  # what the digits can be written as


@pytest.mark.part(
    "format/voc", "format/coco", "format/yolo", "format/folder", "format/csv", "format/unlabeled", "format/shards"
)
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("split", ["train", "val"])
def test_formats(name: str, split: str, tmp_path: Path) -> None:
    testing.check_dataset(open_index(digits.make(tmp_path / name, format=name, count=10, size=96), split))


@pytest.mark.parametrize("name", ["cifar", "mnist", "imagenet", "folder"])
def test_what_cannot_hold_boxes_says_what_can(name: str, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"voc|coco|folder|csv"):
        FORMATS[name].write(open_index(digits), tmp_path / "out", "train")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda i: {"labels": i.labels + 10}, "labels are rows of classes"),
        (lambda i: {"boxes": i.boxes[:, [2, 1, 0, 3]]}, "boxes have an area"),
        (lambda i: {"boxes": i.boxes + 90}, "boxes end inside"),
        (lambda i: {"offsets": np.concatenate([i.offsets[:-1], [99]])}, "offsets end"),
        (lambda i: {"image_ids": [0] * len(i)}, "an id of its own"),
        (lambda i: {"paths": ["gone.jpg", *i.paths[1:]]}, "gone.jpg"),
    ],
)
def test_the_check_goes_red(change, says: str, digits: Path) -> None:
    index = open_index(digits)
    with pytest.raises(AssertionError, match=says):
        testing.check_dataset(replace(index, **change(index)))
