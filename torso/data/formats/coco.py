"""MS COCO's instances: one json a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torso.data.formats import coco_captions
from torso.data.formats.coco_files import file_of, files, places
from torso.data.formats.coco_json import LARGEST
from torso.data.formats.coco_pictures import Options
from torso.data.formats.coco_read import read_objects
from torso.data.formats.coco_write import Json, categories, objects, write
from torso.data.index import Index

_START = "instances_"


class Coco:
    """``annotations/instances_{split}.json`` (also ``instances_{split}2017.json``, ``{split}/_annotations.coco.json``).

    Boxes are ``x y w h`` from 0, continuous. Category ids may have gaps; labels follow their order, and the ids
    stay in ``class_ids``. ``iscrowd`` objects count neither way. Polygons and run lengths are kept as masks, keypoints
    where the file has them. Pictures are looked for beside the json and in the folders usual for them. The file is
    read as a stream, so it may be larger than memory.

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
    def read(
        path: Path,
        split: str,
        classes: Sequence[str] | None = None,
        *,
        trust_sizes: bool = False,
        allow_outside: bool = False,
        captions: bool = False,
        largest: int = LARGEST,
    ) -> Index:
        """The index of one split.

        Args:
            path: the data set's folder, or one json.
            split: train, val, ...
            classes: the classes of the training split; labels are mapped to them by name.
            trust_sizes: take the sizes of pictures from the json instead of opening each; a picture that was turned
                by its EXIF, or that is damaged, is then not noticed.
            allow_outside: take names of pictures that leave the data set's folder.
            captions: add those of ``captions_{split}.json``.
            largest: bytes a json may have.

        Raises:
            DataError: no such split, or nothing of it can be read.
        """
        file = file_of(path, split, _files(path))
        root = path if path.is_dir() else path.parent
        told = file_of(path, split, files(root, coco_captions.START)) if captions else None
        options = Options(trust_sizes, allow_outside, largest)
        return read_objects(file, root, places(root, file, split, _START), classes, options, told)

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes ``annotations/instances_{split}.json``, captions beside it, and the pictures into ``{split}/``."""
        jsons: dict[str, Json] = {_START: (categories(index), objects(index))}
        if index.captions is not None:
            jsons[coco_captions.START] = ([], coco_captions.sentences(index))
        write(index, folder, split, jsons)


def _files(path: Path) -> dict[str, Path]:
    return files(path, _START, alone=True, roboflow=True)
