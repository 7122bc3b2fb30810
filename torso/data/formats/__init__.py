"""Annotation formats: one file a format, reader and writer side by side.

The contract of a format (all static, no instances):

- ``recognise(path) -> bool``: cheap, looks at names of files and folders only;
- ``splits(path) -> list[str]``: the splits that exist;
- ``read(path, split, classes=None) -> Index``: ``classes`` maps by name; problems are collected, not raised,
  unless nothing can be read at all;
- ``write(index, folder, split)``: labels and copies of the pictures, into a folder that is not the index's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torso.config import DataError
from torso.data.formats.coco import Coco
from torso.data.formats.folder import Folder
from torso.data.formats.voc import Voc
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


# In the order they are tried: a folder may hold several (the most specific layout wins), and a class folder
# is recognised by little.
FORMATS: dict[str, type[Format]] = {"voc": Voc, "yolo": Yolo, "coco": Coco, "folder": Folder}


def recognise(path: Path) -> str:
    """The name of the format a path holds.

    Raises:
        DataError: nothing there, or nothing known.
    """
    if not path.exists():
        parent = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
        raise DataError(f"{path}: no such file or folder; the nearest folder that exists is {parent}")
    for name, one in FORMATS.items():
        if one.recognise(path):
            return name
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) if path.is_dir() else path.name
    raise DataError(
        f"{path}: expected VOC (Annotations/*.xml), YOLO (data.yaml), COCO (annotations/instances_*.json) or class "
        f"folders; found {inside or 'an empty folder'}. Name the format with data.format"
    )


def open_index(
    path: str | Path,
    split: str = "train",
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    classes: Sequence[str] | None = None,
) -> Index:
    """Reads one split of a data set.

    Args:
        path: the data set's folder, or its ``data.yaml`` or json file.
        split: train, val, test, or any other the data set has; "all" where it has no lists.
        format: a name in ``FORMATS``; recognised from the folder when None.
        classes: the classes of the training split; labels are mapped to them by name.

    Returns:
        The index. What was wrong is in ``index.problems``; ``index.raise_if_fatal()`` stops on wrong labels.

    Raises:
        DataError: no such path, format or split, or nothing readable.
    """
    path = Path(path)
    name = format or recognise(path)
    if name not in FORMATS:
        raise DataError(f"data.format: expected one of {', '.join(FORMATS)}, came {name!r}")
    return FORMATS[name].read(path, split, classes)
