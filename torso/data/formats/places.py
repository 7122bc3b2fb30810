"""Where the files of a data set lie: searching, splitting and copying, the same for all formats."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from PIL import Image

from torso.config import DataError
from torso.data.index import Index
from torso.data.stores import Picture

LINKING = ContextVar("LINKING", default=False)
"""Whether pictures are given a second name instead of being copied, where the disk can (``torso.data.convert``)."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


def hidden(path: Path) -> bool:
    """Litter of operating systems and editors: .DS_Store, ._name, .ipynb_checkpoints, Thumbs.db, __MACOSX."""
    return _hidden(path.name)


def _hidden(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def images_under(folder: Path, *, deep: bool = False) -> list[Path]:
    """Files that look like pictures by their suffix, sorted, without hidden ones."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if deep and not _hidden(name)]
        found += [Path(place, name) for name in files if not _hidden(name) and _suffix(name) in IMAGE_SUFFIXES]
    return sorted(found)


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; a name that no system can have (too long, a zero byte) is not there."""
    return os.path.exists(path)  # noqa: PTH110 - pathlib raises for such names


def is_file(path: Path) -> bool:
    """The same for a file."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """The same for a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def inside(path: Path, home: Path) -> bool:
    """Whether a path, links followed, lies in a folder."""
    try:
        return path.resolve().is_relative_to(home.resolve())
    except (OSError, ValueError, RuntimeError):  # such names, and links in a circle
        return False


def no_split(path: Path, split: str, splits: Sequence[str]) -> DataError:
    """The error for a split that is not there."""
    return DataError(f"{path}: no split {split!r}; it has {', '.join(splits) or 'none'}")


def held_out(names: Iterable[str], split: str, *, fraction: float = 0.2) -> set[str]:
    """The names of one side of a seeded split, for data that comes without one: "val" is a fifth, "train" the rest.

    Depends on the names alone, so it is the same on every machine and needs no file.
    """
    ordered = sorted(names)
    random.Random(0).shuffle(ordered)
    count = max(round(len(ordered) * fraction), 1) if len(ordered) > 1 else 0
    chosen = ordered[:count] if split == "val" else ordered[count:]
    return set(ordered) if split == "all" else set(chosen)


def mapped(own: Sequence[str], classes: Sequence[str] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes of an index and the label of each name; ``classes`` (of the training split) win where given."""
    chosen = tuple(classes if classes is not None else own)
    return chosen, {name: label for label, name in enumerate(chosen)}


def new_folder(index: Index, folder: Path) -> Path:
    """Makes the folder a writer may fill.

    Raises:
        DataError: it is the index's own, which is never written to.
    """
    if folder.resolve() == index.root.resolve():
        raise DataError(
            f"{folder}: this is where the data come from, and torso never writes there; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copied(index: Index, folder: Path) -> list[str]:
    """Copies the pictures into a folder and returns their names there, a number added where two have the same."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    names = []
    for row in range(len(index)):
        source = index.file(row)
        if isinstance(index.picture(row), np.ndarray):  # pixels have no file yet
            source = source.with_suffix(".png")
        name, number = source.name, 1
        # Labels are found by the stem, so that must differ, not only the name.
        while Path(name).stem.casefold() in taken:
            name, number = f"{source.stem}_{number}{source.suffix}", number + 1
        taken.add(Path(name).stem.casefold())
        _copy(index.picture(row), folder / name)
        names.append(name)
    return names


def _copy(picture: Picture, file: Path) -> None:
    """A picture into a file of its own, byte for byte where it is one already."""
    if isinstance(picture, Path):
        file.unlink(missing_ok=True)  # a link there must not lead into the source
        if not (LINKING.get() and _linked(picture, file)):
            shutil.copyfile(picture, file)
    elif isinstance(picture, bytes):
        file.write_bytes(picture)
    else:
        Image.fromarray(picture).save(file)


def _linked(picture: Path, file: Path) -> bool:
    """Whether a hard link could be made: not to another disk, nor where there are none."""
    try:
        os.link(picture.resolve(), file)
    except OSError:
        return False
    return True
