"""What PASCAL VOC lists: its classes, its image sets, and the protocols that papers train and test by."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from torso.config import DataError, suggestion

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

PROTOCOLS = {
    "07": ("2007_trainval", "2007_test"),
    "12": ("2012_trainval", "2012_test"),
    "12_val": ("2012_train", "2012_val"),
    "07+12": ("2007_trainval+2012_trainval", "2007_test"),
    "07++12": ("2007_trainval+2007_test+2012_trainval", "2012_test"),
}
"""Name -> splits to train on, split to test on."""

OFFICIAL = {
    "VOC2007": {
        "train": 2501, "val": 2510, "trainval": 5011, "test": 4952,
        "Segmentation/train": 209, "Segmentation/val": 213, "Segmentation/trainval": 422, "Segmentation/test": 210,
    },
    "VOC2012": {
        "train": 5717, "val": 5823, "trainval": 11540,
        "Segmentation/train": 1464, "Segmentation/val": 1449, "Segmentation/trainval": 2913,
    },
}  # fmt: skip
"""Pictures of the published lists."""

MAX_NAME = 240  # bytes; file systems end at 255, and a suffix comes behind it

_KINDS = ("Segmentation", "Layout", "Action")
_FLAT = ("train", "val", "trainval", "test", "valid")
_FLAGGED = re.compile(r"\S.*\s(-1|0|1)")


def voc_classes(*, background: bool = False) -> tuple[str, ...]:
    """VOC's 20 classes in their order, which is that of the alphabet.

    Args:
        background: with "background" before them, as the numbers of SegmentationClass count.

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """
    return ("background", *VOC_CLASSES) if background else VOC_CLASSES


def voc_protocol(name: str) -> tuple[str, str]:
    """What papers mean by 07, 12, 07+12 and 07++12: splits of a VOCdevkit to train on and to test on.

    ``07++12`` trains on the test pictures of 2007 too. The labels of 2012's test pictures were never published; to
    measure on one's own there is ``12_val``. Protocols called ``+COCO`` train on COCO before, under VOC's names.

    Args:
        name: 07, 12, 12_val, 07+12 or 07++12.

    Returns:
        Two expressions of ``YEAR_split`` joined by ``+``, for the folder that holds VOC2007 and VOC2012.

    Raises:
        DataError: no such protocol.

    Source: Fast R-CNN, 2015, arXiv:1504.08083.
    """
    if name not in PROTOCOLS:
        raise DataError(f"no VOC protocol is called {name!r}{suggestion(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def image_sets(root: Path) -> dict[str, Path]:
    """The lists of a VOC year folder: names of splits to files.

    Main's are called ``train``; those of other competitions ``Segmentation/train``, ``Layout/train``,
    ``Action/train``; those of one class ``cat_train``, where a flag says -1 (absent), 1 (present) or 0 (difficult).
    Without ``ImageSets`` they are ``train.txt`` and the like in the folder itself.

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """
    sets = root / "ImageSets"
    found = {file.stem: file for file in sorted((sets / "Main").glob("*.txt"))}
    for kind in _KINDS:
        found |= {f"{kind}/{file.stem}": file for file in sorted((sets / kind).glob("*.txt"))}
    return found or {name: root / f"{name}.txt" for name in _FLAT if (root / f"{name}.txt").is_file()}


def one_class(name: str, lists: Collection[str]) -> tuple[str, str] | None:
    """Class and split of a list such as ``cat_train``, where there is a list ``train`` too; None of any other."""
    kind, _, split = name.rpartition("_")
    return (kind, split) if kind and split in lists and "/" not in name else None


def is_flagged(file: Path) -> bool:
    """Whether each line is a name and -1, 0 or 1."""
    lines = lines_of(file)
    return bool(lines) and all(_FLAGGED.fullmatch(line) for line in lines)


def text_of(file: Path) -> str:
    """A whole text file.

    Raises:
        DataError: it cannot be read, or is not text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if "\0" in text:
        raise DataError(f"{file}: is not text (it has zero bytes)")
    return text


def lines_of(file: Path) -> list[str]:
    """The lines of a list that say something.

    Raises:
        DataError: not text, or a line that cannot be the name of a file.
    """
    lines = [line.strip() for line in text_of(file).splitlines()]
    for number, line in enumerate(lines, 1):
        if any(len(part.encode("utf-8", "replace")) > MAX_NAME for part in line.split("/")):
            raise DataError(f"{file}:{number}: expected a name of at most {MAX_NAME} bytes, came {line[:40]!r}...")
    return [line for line in lines if line]


def stem_of(line: str, known: Collection[str]) -> str:
    """The name a line means: with or without a suffix, or followed by a flag or the number of an object."""
    words = line.split()
    for stem in (line, Path(line).stem, words[0], Path(words[0]).stem, " ".join(words[:-1])):
        if stem in known:
            return stem
    return words[0] if len(words) > 1 and _FLAGGED.fullmatch(line) else line


def differences(devkit: Path) -> list[str]:
    """Where a VOCdevkit on disk has other numbers of pictures than were published: an unfinished download.

    Args:
        devkit: the folder that holds VOC2007, VOC2012 or both.

    Returns:
        A sentence for each list that differs.
    """
    found = []
    for year, official in OFFICIAL.items():
        root = devkit / year
        pictures = {file.stem for file in (root / "JPEGImages").glob("*")} if root.is_dir() else set()
        lists = image_sets(root)
        for name, count in official.items() if root.is_dir() else []:
            if name not in lists:
                found.append(f"{root}: the list {name} is missing")
                continue
            stems = {stem_of(line, pictures) for line in lines_of(lists[name])}
            if (len(stems), len(stems & pictures)) != (count, count):
                found.append(
                    f"{lists[name]}: {count} pictures were published; here {len(stems)} are listed, and "
                    f"{len(stems & pictures)} of them are there"
                )
    return found
