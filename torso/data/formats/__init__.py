"""Annotation formats: one file a format, reader and writer side by side.

The contract of a format (all static, no instances):

- ``recognise(path) -> bool``: cheap, looks at names of files and folders only;
- ``splits(path) -> list[str]``: the splits that exist;
- ``read(path, split, classes=None) -> Index``: ``classes`` maps by name; problems are collected, not raised,
  unless nothing can be read at all; more keyword-only arguments are the format's own options (``data.options``);
- ``write(index, folder, split)``: labels and copies of the pictures, into a folder that is not the index's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torso.data.formats.cifar import Cifar
from torso.data.formats.coco import Coco
from torso.data.formats.coco_captions import CocoCaptions
from torso.data.formats.coco_keypoints import CocoKeypoints
from torso.data.formats.coco_panoptic import CocoPanoptic
from torso.data.formats.coco_stuff import CocoStuff
from torso.data.formats.csv_table import Csv
from torso.data.formats.folder import Folder
from torso.data.formats.imagenet import Imagenet
from torso.data.formats.mask_folders import MaskFolder
from torso.data.formats.mnist import Mnist
from torso.data.formats.shards import Shards
from torso.data.formats.unlabeled import Unlabeled
from torso.data.formats.voc import Voc
from torso.data.formats.voc_segments import VocSegmentation
from torso.data.formats.yolo import Yolo
from torso.data.index import Index


class Format(Protocol):
    """What every entry of ``FORMATS`` offers."""

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether a folder (or file) looks like this format."""
        ...

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        ...

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        ...

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes one split."""
        ...


# In the order they are tried: a folder may hold several (the most specific layout wins), a class folder is recognised
# by little, and pictures without labels come after everything that has some.
FORMATS: dict[str, type[Format]] = {
    "voc": Voc,
    "voc_segmentation": VocSegmentation,
    "mask_folder": MaskFolder,
    "yolo": Yolo,
    "coco": Coco,
    "coco_keypoints": CocoKeypoints,
    "coco_panoptic": CocoPanoptic,
    "coco_stuff": CocoStuff,
    "coco_captions": CocoCaptions,
    "cifar": Cifar,
    "mnist": Mnist,
    "imagenet": Imagenet,
    "csv": Csv,
    "folder": Folder,
    "shards": Shards,
    "unlabeled": Unlabeled,
}
