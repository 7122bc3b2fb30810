"""COCO-Stuff: grass, sky and walls beside things."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torso.data.formats.coco_files import file_of, files, places
from torso.data.formats.coco_json import LARGEST
from torso.data.formats.coco_pictures import Options
from torso.data.formats.coco_read import read_objects
from torso.data.formats.coco_write import categories, objects, write
from torso.data.index import Index

_START = "stuff_"


class CocoStuff:
    """``annotations/stuff_{split}.json``: one region of run lengths for each class of stuff in a picture.

    The 91 classes have the ids 92 to 182; 183, "other", covers everything that is a thing. Regions are objects: a
    mask with the box around it. Things are in the instances of the same split.

    Source: COCO-Stuff: Thing and Stuff Classes in Context, 2016, arXiv:1612.03716.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a json of stuff."""
        return bool(files(path, _START))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return sorted(files(path, _START))

    @staticmethod
    def read(
        path: Path,
        split: str,
        classes: Sequence[str] | None = None,
        *,
        trust_sizes: bool = False,
        allow_outside: bool = False,
        largest: int = LARGEST,
    ) -> Index:
        """The index of one split; options as in ``Coco.read``."""
        file = file_of(path, split, files(path, _START))
        root = path if path.is_dir() else path.parent
        options = Options(trust_sizes, allow_outside, largest)
        return read_objects(file, root, places(root, file, split, _START), classes, options)

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes ``annotations/stuff_{split}.json`` and the pictures into ``{split}/``."""
        write(index, folder, split, {_START: (categories(index), objects(index))})
