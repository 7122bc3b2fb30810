"""MS COCO's captions: sentences about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.coco_columns import Row
from torso.data.formats.coco_files import file_of, files, places
from torso.data.formats.coco_json import LARGEST, stream
from torso.data.formats.coco_pictures import Options, Pictures
from torso.data.formats.coco_write import write
from torso.data.index import ImageId, Index

START = "captions_"


class CocoCaptions:
    """``annotations/captions_{split}.json``: about five sentences a picture, and nothing else.

    The task is "unlabeled": there are no classes. To have captions beside boxes, read the instances with the option
    ``captions``.

    Source: Microsoft COCO Captions: Data Collection and Evaluation Server, 2015, arXiv:1504.00325.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a json of captions."""
        return bool(files(path, START))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return sorted(files(path, START))

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
        """The index of one split; it has no classes, whatever the training split has. Options as in ``Coco.read``."""
        file = file_of(path, split, files(path, START))
        root = path if path.is_dir() else path.parent
        options = Options(trust_sizes, allow_outside, largest)
        builder = Builder(root, (), task="unlabeled")
        pictures, captions = Pictures(builder, file), Captions(builder, file)
        stream(file, {"images": pictures, "annotations": captions}, largest)
        listed = pictures.finish(places(root, file, split, START), options, captions.found)
        captions.report_orphans(listed.row_of)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes ``annotations/captions_{split}.json`` and the pictures into ``{split}/``.

        Raises:
            DataError: the index has no captions.
        """
        if index.captions is None:
            raise DataError(f"{index.root}: these pictures have no captions; convert to coco, voc or yolo")
        write(index, folder, split, {START: ([], sentences(index))})


class Captions:
    """Takes the rows of ``annotations``."""

    def __init__(self, builder: Builder, file: Path) -> None:
        self.builder, self.file = builder, file
        self.found: dict[ImageId, list[str]] = {}  # in the order of the file
        self._first: dict[ImageId, int] = {}

    def chunk(self, text: bytes, start: int) -> int:
        """Wants them decoded."""
        return 0

    def rows(self, rows: list[Any], start: int) -> None:
        """Takes rows; what cannot be used is noted."""
        for number, row in enumerate(rows, start):
            where = f"annotations[{number}]"
            image, caption = (row.get("image_id"), row.get("caption")) if isinstance(row, dict) else (None, None)
            if isinstance(image, bool) or not isinstance(image, int | str):
                self.builder.report("malformed row", self.file, f"{where}: expected an object with an image_id")
            elif not isinstance(caption, str) or not caption.strip() or not _is_text(caption):
                message = f"{where}.caption: expected a sentence, came {ascii(caption)[:60]}"
                self.builder.report("malformed caption", self.file, f"{message}; left out")
            else:
                self.found.setdefault(image, []).append(caption.strip())
                self._first.setdefault(image, number)

    def report_orphans(self, listed: dict[ImageId, int]) -> None:
        """Notes captions of pictures that nobody listed."""
        for image, captions in self.found.items():
            if image not in listed:
                where = f"annotations[{self._first[image]}].image_id"
                message = f"{where}: there is no image {image!r}; {len(captions)} of its annotations left out"
                self.builder.report("annotation without image", self.file, message)


def read_captions(builder: Builder, file: Path, largest: int) -> Captions:
    """The captions of a json, for pictures that another lists."""
    captions = Captions(builder, file)
    stream(file, {"annotations": captions}, largest)
    return captions


def sentences(index: Index) -> Iterator[tuple[int, Row]]:
    """Rows of ``annotations`` without the image's id, each with the row of its picture."""
    number = 0
    for picture, captions in enumerate(index.captions or []):
        for caption in captions or []:  # of joined indexes, only some may have any
            number += 1
            yield picture, {"id": number, "caption": caption}


def _is_text(caption: str) -> bool:
    try:
        caption.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
