"""The whole examination: read, decode, compare, count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torso.config import DataError
from torso.data.doctor.balance import balance
from torso.data.doctor.diagnosis import Diagnosis, in_order
from torso.data.doctor.findings import Finding, found, of_problem
from torso.data.doctor.labels import labels
from torso.data.doctor.leaks import leaks
from torso.data.doctor.litter import litter
from torso.data.doctor.pictures import Progress, Scan, scan
from torso.data.formats import FORMATS
from torso.data.formats.opening import open_index, recognise
from torso.data.index import Index

MAX_DAMAGED = 0.01  # the share of a split from which the loader gives up, and more than five
_FEW = 5


def examine(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    split: str | None = None,
    near: bool = True,
    size: int = 640,
    progress: Progress | None = None,
) -> Diagnosis:
    """Says what a data set is and what is wrong with it: every label read, every picture decoded, nothing written.

    Looks for pictures that cannot be decoded or are odd, labels that cannot be learned from, classes that differ among
    splits or are rare, masks with values that are no class, and pictures that are the same or almost the same.

    Args:
        path: the data set's folder, or its ``data.yaml`` or json file.
        format: a name in ``FORMATS``; recognised from the folder when None.
        split: only this split; all of them when None.
        near: look for near duplicates too, not only for equal files and pixels.
        size: side in pixels of the network's input, for boxes that get too small.
        progress: called with pictures decoded and pictures in all.

    Returns:
        The diagnosis; ``fatal`` says whether training would go wrong.

    Raises:
        DataError: there is no such path or format, or no split is named that way.

    Source: torso; its failure classes are those reported for public training code, 2017 to 2026.
    """
    path = Path(path)
    name = format or recognise(path)
    if name not in FORMATS:
        raise DataError(f"data.format: expected one of {', '.join(FORMATS)}, came {name!r}")
    try:
        names = [split] if split else _whole(path, FORMATS[name].splits(path))
        indexes, said = _read(path, name, names)
    except DataError as error:  # no split at all can be told: the labels' own description is wrong
        indexes, said = {}, [found("split that cannot be read", str(path), _without(path, error))]
    indexes, left_out = _unions(indexes)
    looked = scan(indexes, progress)
    said += looked.findings()
    said += _too_many(indexes, looked)
    for one, index in indexes.items():
        said += labels(index, one, size)
    said += balance(indexes)
    said += litter(path, name, indexes)
    said += leaks(indexes, looked, near_too=near)
    return Diagnosis(path, name, size, indexes, left_out, looked, tuple(said))


def _whole(path: Path, names: list[str]) -> list[str]:
    """The splits to look at; a single file of labels has one, whatever it is called."""
    if path.is_file() and path.suffix not in (".yaml", ".yml") and "all" in names:
        return ["all"]
    if not names:
        raise DataError(f"{path}: expected at least one split, found none")
    return in_order([name for name in dict.fromkeys(names) if name != "all" or len(names) == 1])


def _read(path: Path, name: str, names: list[str]) -> tuple[dict[str, Index], list[Finding]]:
    """The indexes that can be read, labels mapped as in training: by the names of the first split."""
    indexes: dict[str, Index] = {}
    said: dict[Finding, None] = {}  # several splits may share a file, and its problems
    known: set[tuple[str, str, int | None, str]] = set()
    for one in names:
        classes = next((index.classes for index in indexes.values()), None)
        try:
            indexes[one] = open_index(path, one, format=name, classes=classes)
        except DataError as error:
            text = _without(path, error)
            said[found("split that cannot be read", "", text, split=one)] = None
            continue
        for problem in indexes[one].problems:
            key = (problem.kind, problem.path, problem.line, problem.message)
            if key not in known:
                known.add(key)
                said[of_problem(problem, one, indexes[one].task)] = None
    return indexes, list(said)


def _without(path: Path, error: DataError) -> str:
    """The message without the path that stands before it anyway."""
    return str(error).removeprefix(f"{path}: ")


def _unions(indexes: dict[str, Index]) -> tuple[dict[str, Index], tuple[str, ...]]:
    """Splits without those that only join others, as VOC's trainval joins train and val."""
    files = {name: {str(index.file(row)) for row in range(len(index))} for name, index in indexes.items()}
    joint = []
    for name, own in files.items():
        parts = [other for key, other in files.items() if key != name and key not in joint and other < own]
        if len(parts) > 1 and set().union(*parts) == own:
            joint.append(name)
    return {name: index for name, index in indexes.items() if name not in joint}, tuple(joint)


def _too_many(indexes: Mapping[str, Index], looked: Scan) -> Iterator[Finding]:
    for split, rows in looked.unreadable().items():
        count = len(indexes[split])
        if len(rows) > max(_FEW, MAX_DAMAGED * count):
            text = f"{len(rows)} of {count} pictures cannot be decoded; training gives up at {MAX_DAMAGED:.0%}"
            yield found("too many damaged images", "", text, split=split)
