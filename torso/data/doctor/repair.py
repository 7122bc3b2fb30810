"""A repaired copy of a data set. The original is never touched, and what would be a guess is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.doctor.diagnosis import Diagnosis
from torso.data.doctor.findings import Finding
from torso.data.formats import FORMATS
from torso.data.index import Index

# What a copy does not have any more: the reader leaves it out or corrects it, and so the writer never sees it.
REPAIRED: Mapping[str, str] = {
    "damaged image": "picture left out",
    "not a picture": "picture left out",
    "picture too large": "picture left out",
    "too many damaged images": "pictures left out",
    "missing image": "entry left out",
    "missing label file": "entry left out",
    "label without picture": "labels left out",
    "picture without labels": "picture left out",
    "hidden folder": "left out",
    "cache of another tool": "left out",
    "ignored": "left out",
    "degenerate box": "row left out",
    "not a number": "row left out",
    "box outside": "row left out",
    "box mostly outside": "clipped",
    "box clipped": "clipped",
    "counted from 0": "clipped",
    "duplicate row": "row left out",
    "duplicate image": "entry left out",
    "duplicate annotation id": "numbered anew",
    "annotation without image": "rows left out",
    "malformed mask": "mask left out",
    "malformed keypoints": "keypoints left out",
    "mask size": "picture left out",
    "picture of no class": "picture left out",
    "unrotated size": "size corrected",
    "wrong size": "size corrected",
}


def repair(diagnosis: Diagnosis, destination: str | Path) -> dict[str, Any]:
    """Writes a copy without what can be repaired without guessing, in the same format.

    Rows without area or with NaN and duplicate rows go, boxes are clipped to their pictures, pictures that cannot be
    decoded are left out with their labels. Pictures are copied byte for byte.

    Args:
        diagnosis: what `examine` said.
        destination: a folder that does not exist yet or is empty, outside of the data set.

    Returns:
        ``path``, ``splits`` (pictures and objects before and after), ``changes`` (each with its place), and ``kept``:
        how often what is no matter of repair was found.

    Raises:
        DataError: something would have to be guessed (a class out of range, a malformed row), the destination is in
            use, or the format has no writer.
    """
    _refuse(diagnosis)
    folder = _free(diagnosis.path, Path(destination))
    unreadable = diagnosis.scan.unreadable()
    splits = {}
    for split, index in diagnosis.splits.items():
        good = index.select([row for row in range(len(index)) if row not in unreadable.get(split, set())])
        if not len(good):
            raise DataError(f"{diagnosis.path}: {split} has no picture that can be decoded, so nothing to copy")
        FORMATS[diagnosis.format].write(good, folder, split)
        splits[split] = _compared(diagnosis, folder, split, good)
    changes = [_change(one) for one in diagnosis.findings if one.kind in REPAIRED]
    kept = Counter(one.kind for one in diagnosis.findings if one.kind not in REPAIRED)
    return {"path": str(folder), "format": diagnosis.format, "splits": splits, "changes": changes, "kept": dict(kept)}


def _refuse(diagnosis: Diagnosis) -> None:
    guesses = [one for one in diagnosis.findings if one.severity == "error" and one.kind not in REPAIRED]
    if guesses:
        listed = "\n".join(f"  {one.where}: {one.message}" for one in guesses[:5])
        more = f"\n  and {len(guesses) - 5} more" if len(guesses) > 5 else ""
        raise DataError(
            f"{diagnosis.path}: {len(guesses)} findings cannot be repaired without guessing; correct them by hand\n"
            f"{listed}{more}"
        )
    if not diagnosis.splits:
        raise DataError(f"{diagnosis.path}: no split could be read, so there is nothing to copy")


def _free(path: Path, folder: Path) -> Path:
    home = (path if path.is_dir() else path.parent).resolve()
    if folder.resolve().is_relative_to(home):
        raise DataError(f"{folder}: lies inside the data set, which torso never writes to; name a folder outside of it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not an empty folder; name a new one")
    return folder


def _compared(diagnosis: Diagnosis, folder: Path, split: str, good: Index) -> dict[str, list[int]]:
    """Reads the copy back: a copy that says something else than was kept is worse than none.

    Raises:
        DataError: they differ; the format's writer cannot hold what the original has.
    """
    copy = FORMATS[diagnosis.format].read(folder, split, good.classes)
    if (len(copy), len(copy.labels)) != (len(good), len(good.labels)):
        raise DataError(
            f"{folder}: the copy of {split} has {len(copy)} pictures and {len(copy.labels)} objects instead of "
            f"{len(good)} and {len(good.labels)}: {diagnosis.format} cannot hold the rest; do not use it"
        )
    before = diagnosis.splits[split]
    return {"pictures": [len(before), len(copy)], "objects": [len(before.labels), len(copy.labels)]}


def _change(one: Finding) -> dict[str, Any]:
    what = REPAIRED[one.kind]
    return {"what": what, "kind": one.kind, "path": one.path, "line": one.line, "message": one.message}
