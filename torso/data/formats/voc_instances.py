"""VOC's SegmentationObject: a PNG whose numbers are the objects of a picture, in the order of its XML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.builder import Builder
from torso.data.headers import DecodeError
from torso.data.index import Index
from torso.data.masks import encoded_each, problem, rasterise
from torso.data.palette import IGNORED, PLAIN, write_numbers

Runs = dict[str, Any]
"""Uncompressed COCO run lengths."""


def instances(file: Path) -> dict[int, Runs]:
    """The masks in an instance PNG by the number of the object, from 1.

    0 is background. 255 is the border between objects in 8-bit (palette or coloured) files, and an object in 16-bit
    ones. Coloured files are read through VOC's colours.

    Args:
        file: ``SegmentationObject/NAME.png``.

    Returns:
        Number to run lengths ``{"size": [h, w], "counts": [...]}``; object ``n`` is the ``n``-th of the XML.

    Raises:
        DecodeError: not a picture, or colours that are not VOC's.

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """
    numbers = PLAIN.numbers(file)
    border = IGNORED if numbers.dtype in (np.uint8, np.int64) else 0
    found = encoded_each(numbers)
    if any(number < 0 for number in found):
        raise DecodeError(str(file), "has colours that stand for no object")
    return {number: runs for number, runs in found.items() if number not in (0, border)}


def read_objects(builder: Builder, stem: str, size: tuple[int, int]) -> dict[int, Runs]:
    """``instances`` of one picture of a year folder; none where it has no such file, or (noted) an unusable one."""
    file = builder.root / "SegmentationObject" / f"{stem}.png"
    if not file.is_file():
        return {}
    try:
        found = instances(file)
    except DecodeError as error:
        builder.report("damaged image", file, error.reason)
        return {}
    height, width = next(iter(found.values()))["size"] if found else size[::-1]
    if (width, height) != size:
        builder.report("wrong size", file, f"is {width}x{height}, its picture {size[0]}x{size[1]}; left out")
        return {}
    return found


def write_objects(index: Index, names: list[str], folder: Path, split: str) -> set[int]:
    """Writes SegmentationObject, SegmentationClass and their list for pictures all of whose objects have masks.

    Args:
        index: what is written.
        names: what its pictures are called in ``folder``.
        folder: the year folder.
        split: the list in ``ImageSets/Segmentation``.

    Returns:
        The rows it was done for.
    """
    shift = 0 if index.classes[:1] == ("background",) else 1
    rows = _masked(index) if len(index.classes) + shift < IGNORED else []
    if not rows:
        return set()
    for kind in ("SegmentationObject", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for row in rows:
        objects, classes = painted(index, row, shift)
        write_numbers(objects, folder / "SegmentationObject" / f"{Path(names[row]).stem}.png")
        write_numbers(classes, folder / "SegmentationClass" / f"{Path(names[row]).stem}.png")
    stems = "".join(f"{Path(names[row]).stem}\n" for row in rows)
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(stems, encoding="utf-8")
    return set(rows)


def painted(index: Index, row: int, shift: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Numbers of objects and of classes (label + ``shift``) ``[H, W]``; later objects lie above earlier ones."""
    width, height = index.sizes[row].tolist()
    here = index.objects(row)
    objects = np.zeros((height, width), np.uint8 if here.stop - here.start < IGNORED else np.uint16)
    classes = np.zeros((height, width), np.uint8)
    for number, at in enumerate(range(here.start, here.stop), 1):
        mask = None if index.masks is None else index.masks[at]
        if mask is not None:
            covers = rasterise(mask, (width, height))
            objects[covers] = number
            classes[covers] = index.labels[at] + shift
    return objects, classes


def _masked(index: Index) -> list[int]:
    if index.masks is None:
        return []
    found = []
    for row in range(len(index)):
        size = (int(index.sizes[row, 0]), int(index.sizes[row, 1]))
        masks = index.masks[index.objects(row)]
        if masks and not any(problem(mask, size) for mask in masks):
            found.append(row)
    return found
