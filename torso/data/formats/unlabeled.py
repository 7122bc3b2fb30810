"""Pictures without labels: any folder, or what a COCO json of pictures lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.places import copied, images_under, inside, is_file, new_folder, no_split
from torso.data.index import Index

_WHOLE = ("all", "train", "unlabeled")


class Unlabeled:
    """A folder of pictures, however deep, or COCO's ``annotations/image_info_{split}.json``.

    A split is a folder or a json of that name; without one, "all", "train" and "unlabeled" are everything. Hidden
    files do not count; files that cannot be read are named.

    Source: Microsoft COCO: Common Objects in Context, 2014, arXiv:1405.0312.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether pictures lie here or in a split's folder, or a json lists them. Labels of any kind come first."""
        return path.is_dir() and bool(_jsons(path) or _folders(path) or images_under(path))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return sorted(_jsons(path)) or _folders(path) or ["all"]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split; it has no classes, whatever the training split has."""
        if not path.is_dir():
            raise DataError(f"{path}: expected a folder of pictures")
        builder = Builder(path, (), task="unlabeled")
        jsons = _jsons(path)
        if split in jsons:
            _add_listed(builder, path, jsons[split])
            return builder.finish()
        if split not in _folders(path) and (split not in _WHOLE or jsons):
            raise no_split(path, split, Unlabeled.splits(path))
        for picture in images_under(path / split if split in _folders(path) else path, deep=True):
            size = builder.size_of(picture)
            if size is not None:
                builder.image(picture, size, picture.relative_to(path).as_posix())
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Copies the pictures into a folder of the split's name; labels have no place there."""
        copied(index, new_folder(index, folder) / split)


def _jsons(path: Path) -> dict[str, Path]:
    found = {}
    for file in sorted(path.glob("annotations/image_info_*.json")):
        name = file.stem.removeprefix("image_info_")
        found[name[:-4] if name[-4:].isdigit() and len(name) > 4 else name] = file
    return found


def _folders(path: Path) -> list[str]:
    names = ("train", "val", "test", "unlabeled")
    return [name for name in names if (path / name).is_dir() and images_under(path / name, deep=True)]


def _add_listed(builder: Builder, path: Path, file: Path) -> None:
    """The pictures a json lists; they lie in a folder of its name, in ``images/`` or below it."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{file}: is not JSON ({type(error).__name__}: {str(error)[:80]})") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{file}: images: expected a list of pictures")
    stem = file.stem.removeprefix("image_info_")
    short = stem[:-4] if stem[-4:].isdigit() else stem
    places = [path / name for name in (stem, short, f"images/{stem}", f"images/{short}", "images", "")]
    done: set[object] = set()
    for number, row in enumerate(images):
        where = f"images[{number}]"
        name, own = (row.get("file_name"), row.get("id")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(own, int | str):
            builder.report("malformed row", file, f"{where}: expected an object with id and file_name")
            continue
        if own in done:
            builder.report("duplicate image id", file, f"{where}.id: {own!r} is used twice; the first one counts")
            continue
        done.add(own)
        picture = _found(places, name)
        if picture is None:
            builder.report("malformed row", file, f"{where}.file_name: {name[:60]!r} leaves the data set's folder")
            continue
        size = builder.size_of(picture)
        if size is not None:
            builder.image(picture, size, own)


def _found(places: Sequence[Path], name: str) -> Path | None:
    """The picture of a name, or None where it lies outside of the data set."""
    picture = next((place / name for place in places if is_file(place / name)), places[-1] / name)
    return picture if inside(picture, places[-1]) else None
