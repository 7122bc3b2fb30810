"""Class folders: a picture's class is the name of the folder it lies in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.places import copied, held_out, hidden, images_under, mapped, new_folder, no_split
from torso.data.index import Index

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


class Folder:
    """``train/cat/*.jpg``, ``val/cat/*.jpg``, ... or, without split folders, ``cat/*.jpg``.

    Classes are the sorted names of the training split's folders; hidden folders do not count. Without split folders
    every fifth picture of each class, chosen by a fixed seed from the names, is "val", the rest "train".

    Source: torchvision ImageFolder.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there are class folders with pictures in them."""
        if not path.is_dir() or next(path.glob("annotations/image_info_*.json"), None) is not None:
            return False  # a json of pictures says that they have no labels
        places = _split_folders(path)
        root = next(iter(places.values())) if places else path
        return any(next(iter(images_under(folder)), None) for folder in class_folders(root))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return sorted(_split_folders(path)) or ["train", "val", "all"]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        if not path.is_dir():
            raise DataError(f"{path}: expected a folder with one folder a class")
        places = _split_folders(path)
        if split not in (places or ("train", "val", "all")):
            raise no_split(path, split, Folder.splits(path))
        root = places.get(split, path)
        own = [folder.name for folder in class_folders(places.get("train", root))]
        chosen, label_of = mapped(own, classes)
        builder = Builder(path, chosen, task="classify")
        add_classes(builder, root, label_of, "" if places else split)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes one folder a class.

        Raises:
            DataError: the index has boxes instead of one class a picture.
        """
        if index.image_labels is None:
            raise DataError(
                f"{index.root}: class folders hold one class a picture; these are boxes (use voc, coco or yolo)"
            )
        folder = new_folder(index, folder)
        for label, name in enumerate(index.classes):
            rows = [row for row in range(len(index)) if index.image_labels[row] == label]
            copied(index.select(rows), folder / split / name)


def class_folders(root: Path) -> list[Path]:
    """The folders that stand for classes, sorted."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not hidden(folder))


def add_classes(builder: Builder, root: Path, label_of: Mapping[str, int], held: str = "") -> None:
    """Adds the pictures of all class folders under ``root``, names folders of no class and pictures in none.

    ``held`` is "train", "val" or "all" where one heap is split by the names of the pictures.
    """
    for folder in class_folders(root):
        pictures = images_under(folder, deep=True)
        if folder.name not in label_of:
            if pictures:
                message = f"folder {folder.name!r} is not one of the classes {', '.join(builder.classes)}"
                builder.report("unknown class", folder, message)
            continue
        if not pictures:
            builder.report("empty class", folder, "has no pictures in it")
        if held:
            kept = held_out([picture.relative_to(folder).as_posix() for picture in pictures], held)
            pictures = [picture for picture in pictures if picture.relative_to(folder).as_posix() in kept]
        for picture in pictures:
            size = builder.size_of(picture)
            if size is not None:
                shown = picture.relative_to(builder.root).as_posix()
                builder.image(picture, size, shown, label_of[folder.name])
    for picture in images_under(root):
        builder.report("picture of no class", picture, "lies beside the class folders; left out")


def _split_folders(path: Path) -> dict[str, Path]:
    found = {}
    for split, names in _SPLITS.items():
        place = next((path / name for name in names if (path / name).is_dir()), None)
        if place is not None:
            found[split] = place
    return found if "train" in found else {}
