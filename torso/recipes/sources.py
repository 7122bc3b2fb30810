"""From the data section of a recipe to indexes and loaders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torso.config import DataError, RecipeError
from torso.data import Index, open_index
from torso.data.agnostic import agnostic
from torso.data.decode import DecodeError, probe
from torso.data.formats.places import IMAGE_SUFFIXES, images_under
from torso.data.loader import Loader
from torso.data.proposals import Proposals
from torso.data.scene import mixes
from torso.data.split import select_split, whole

DIGITS = {"count": 400, "size": 256, "seed": 0}


def locate(path: str) -> Path:
    """The data set's folder; ``digits`` (where no such folder exists) is the built-in one, made when it is missing.

    ``digits`` has boxes, ``digits-folder`` is its classification form. They are kept in the user's cache.
    """
    if path not in ("digits", "digits-folder") or Path(path).exists():
        return Path(path).expanduser().absolute()
    from torso.data import digits

    kind = "folder" if path == "digits-folder" else "voc"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "torso" / f"digits-{kind}-{DIGITS['count']}-{DIGITS['size']}-{DIGITS['seed']}-v1"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        digits.make(unfinished, format=kind, **DIGITS)  # type: ignore[arg-type]
        unfinished.rename(folder)
    return folder


def open_split(data: dict[str, Any], split: str, classes: Sequence[str] | None = None) -> Index:
    """One split of the data of a recipe, its labels checked.

    Raises:
        DataError: no such data or split, or labels that would teach something wrong.
    """
    index = read(data, split, classes)
    index.raise_if_fatal()
    if not len(index):
        raise DataError(f"{data['path']}: the split {split!r} has no pictures")
    return index


def read(data: dict[str, Any], split: str, classes: Sequence[str] | None = None) -> Index:
    """One split of the data of a recipe as it is.

    Raises:
        DataError: no such data or split.
    """
    if data["agnostic"]:
        classes = None  # the files' own, which then become one
    asked: dict[str, Any] = {"format": data["format"], "classes": classes, "options": data["options"]}
    if data["splits"]:
        index = select_split(whole(locate(data["path"]), **asked), data["splits"], split)
    else:
        index = open_index(locate(data["path"]), split, **asked)
    return agnostic(index) if data["agnostic"] else index


def size_of(data: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the network's input."""
    size = data["size"]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def training_loader(data: dict[str, Any], index: Index, seed: int, epochs: int = 0, *, shuffle: bool = True) -> Loader:
    """Shuffled, augmented batches; a last batch that is not full is left out where there is another."""
    augment = list(data["transforms"])
    # A transform that fits the picture to the canvas by itself (a random crop) stands in for `resize`.
    transforms = augment if any(t.fits for t in augment) else [*data["resize"], *augment]
    sampler = data["sampler"].build(index=index, batch_size=data["batch"]) if shuffle else None
    return Loader(
        index,
        transforms,
        size=size_of(data),
        batch=min(data["batch"], len(index) if sampler is None else len(sampler)),
        workers=data["workers"],
        seed=seed,
        sampler=sampler,
        shuffle=shuffle,
        drop_last=True,
        max_bad=data["max_bad"],
        cache_bytes=data["cache"] << 20,
        mix_until=max(epochs - data["close_mosaic"], 0) if data["close_mosaic"] else None,
        multiscale=data["multiscale"],
        proposals=given(data, index, transforms),
        masks=data["masks"],
        mask_stride=data["mask_stride"],
        bits=data["bits"],
    )


def given(data: dict[str, Any], index: Index, transforms: Sequence[Any] = ()) -> Proposals | None:
    """The proposals that the recipe names, those of the pictures of an index.

    Raises:
        DataError: files that are none, or a transform that puts several pictures into one.
    """
    if not data["proposals"]:
        return None
    if mixed := [transform for transform in transforms if mixes(transform)]:
        raise DataError(
            f"data.proposals are of one picture, but {type(mixed[0]).__name__} mixes several: leave out one of them"
        )
    return Proposals.read(given_files(data), index)


def check_proposals(model: Any, data: dict[str, Any], *indexes: Index) -> None:
    """Given proposals need a model that looks at them, and pictures that they are of.

    Raises:
        RecipeError: this one does not.
        DataError: see `given`.
    """
    if data["proposals"] and not getattr(model, "takes_proposals", False):
        what = type(model).__name__
        raise RecipeError(f"data.proposals are looked at by detectors of two stages such as fast_rcnn, not by a {what}")
    for index in indexes:
        given(data, index, data["transforms"])


def given_files(data: dict[str, Any]) -> list[str]:
    """The files of proposals that the recipe names, absolute: so that a resume finds them from any folder."""
    files = [data["proposals"]] if isinstance(data["proposals"], str) else data["proposals"] or []
    return [str(Path(file).expanduser().absolute()) for file in files]


def judging_loader(data: dict[str, Any], index: Index) -> Loader:
    """All pictures once, in order, as a picture will be seen when the model is used."""
    return Loader(
        index,
        list(data["resize"]),
        size=size_of(data),
        batch=data["batch"],
        workers=data["workers"],
        proposals=given(data, index),
        bits=data["bits"],
    )


def known_ids(data: dict[str, Any]) -> dict[str, int | str]:
    """Path of a picture -> its original id, for the pictures of the recipe's own data; empty where that is not here."""
    known: dict[str, int | str] = {}
    for split in (data["train"], data["val"]):
        try:
            index = read(data, split)
        except DataError:
            continue
        known |= {str(index.file(row).absolute()): image for row, image in enumerate(index.image_ids)}
    return known


def _size(path: str) -> tuple[int, int]:
    """Width and height, upright; what cannot be read has none, and is named when its turn to be read comes."""
    try:
        return probe(path).size
    except DecodeError:
        return 1, 1


def pictures(
    inputs: Sequence[str],
    task: str,
    classes: tuple[str, ...],
    class_ids: tuple[int, ...],
    ids: Mapping[str, int | str],
) -> Index:
    """Pictures without labels as an index; folders are searched, a file is taken whatever its name.

    The id of a picture is that of ``ids`` (path -> id), or else its path.

    Raises:
        DataError: a path that is not there, or nothing that looks like a picture.
    """
    paths: list[str] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            paths += [str(p.absolute()) for p in images_under(path, deep=True)]
        elif path.exists():
            paths.append(str(path.absolute()))
        else:
            raise DataError(f"{name}: no such picture or folder")
    if not paths:
        raise DataError(
            f"no pictures in {', '.join(inputs)}: expected files such as {', '.join(sorted(IMAGE_SUFFIXES)[:4])}"
        )
    count, flags = len(paths), np.zeros(0, dtype=bool)
    return Index(
        task=task,  # type: ignore[arg-type]
        root=Path("/"),
        paths=paths,
        sizes=np.array([_size(path) for path in paths], dtype=np.int32),
        image_ids=[ids.get(path, path) for path in paths],
        boxes=np.zeros((0, 4)),
        labels=np.zeros(0, dtype=np.int64),
        offsets=np.zeros(count + 1, dtype=np.int64),
        crowd=flags,
        difficult=flags,
        truncated=flags,
        area=np.zeros(0),
        classes=classes,
        class_ids=class_ids,
        image_labels=np.zeros(count, dtype=np.int64) if task == "classify" else None,
    )
