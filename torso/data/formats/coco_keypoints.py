"""MS COCO's keypoints: persons with up to 17 named points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torso.config import DataError
from torso.data.formats.coco_files import file_of, files, places
from torso.data.formats.coco_json import LARGEST
from torso.data.formats.coco_pictures import Options
from torso.data.formats.coco_read import read_objects
from torso.data.formats.coco_write import categories, objects, write
from torso.data.index import Index

_START = "person_keypoints_"


class CocoKeypoints:
    """``annotations/person_keypoints_{split}.json``: objects whose points are labelled, and how these are joined.

    Each object has ``x y v`` for every name its category lists; v is 0 unlabelled (x and y are then 0), 1 hidden,
    2 visible. Coordinates are kept as the file has them: COCO's are whole numbers, of pixels. The skeleton counts
    from 1 in the file and from 0 in the index. Objects without points have zeros.

    Source: Microsoft COCO: Common Objects in Context, 2014, arXiv:1405.0312.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a json of keypoints."""
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
        """Writes ``annotations/person_keypoints_{split}.json`` and the pictures into ``{split}/``.

        Raises:
            DataError: the index has no keypoints.
        """
        if index.keypoints is None:
            raise DataError(f"{index.root}: these objects have no keypoints; convert to coco")
        write(index, folder, split, {_START: (categories(index), objects(index))})
