"""The columnar index of a data set: flat arrays instead of a Python object a box.

Flat arrays are compact, and worker processes share them without copying a page. Readers (``torso.data.formats``)
fill an index through ``torso.data.builder``; nothing downstream knows which format the files had.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.palette import PLAIN, Legend
from torso.data.stores import Picture, Store

Task = Literal["detect", "classify", "segment", "unlabeled"]
ImageId = int | str
Mask = list[list[float]] | dict[str, Any] | None
"""Polygons ``[[x, y, x, y, ...], ...]`` in pixels, a COCO run-length dict, or nothing."""

PER_PICTURE = ("paths", "image_ids", "sizes", "image_labels", "segments", "captions", "places")
PER_OBJECT = (
    "boxes", "labels", "crowd", "difficult", "truncated", "occluded", "area", "masks", "poses", "keypoints"
)  # fmt: skip

SHOWN = 5  # problems a message lists before it counts the rest


@dataclass(frozen=True)
class Problem:
    """Something a reader met: what, where (``line`` from 1), and whether training on it would be wrong."""

    kind: str
    path: str
    line: int | None
    message: str
    fatal: bool = False

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line is not None else self.path
        return f"{where}: {self.message}"


def first_problems(problems: Sequence[Problem]) -> str:
    """The first few problems and how many there are in all, as text."""
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class Index:
    """N pictures and the T objects on them.

    Boxes are xyxy in pixels of the upright picture, continuous from 0. The objects of picture ``i`` are the rows
    ``offsets[i]:offsets[i + 1]`` of everything that is ``[T]``. Labels count from 0 and index ``classes``;
    ``class_ids`` keeps the numbers the files used, and they come back on export.
    """

    task: Task
    root: Path
    paths: list[str]  # N, relative to root, or absolute where outside of it
    sizes: NDArray[np.int32]  # [N, 2] width, height, upright
    image_ids: list[ImageId]  # N
    boxes: NDArray[np.float64]  # [T, 4] xyxy
    labels: NDArray[np.int64]  # [T]
    offsets: NDArray[np.int64]  # [N + 1]
    crowd: NDArray[np.bool_]  # [T]
    difficult: NDArray[np.bool_]  # [T]
    truncated: NDArray[np.bool_]  # [T]
    area: NDArray[np.float64]  # [T] pixels
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    occluded: NDArray[np.bool_] | None = None  # [T]
    masks: list[Mask] | None = None  # T entries
    poses: list[str] | None = None  # T entries: VOC's view of the object ("Left", "Frontal", ...)
    keypoints: NDArray[np.float64] | None = None  # [T, K, 3] x, y, visibility (0 unlabelled, 1 hidden, 2 visible)
    keypoint_names: tuple[str, ...] = ()  # K
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of keypoints, counted from 0
    image_labels: NDArray[np.int64] | None = None  # [N], classification
    segments: list[str | None] | None = None  # N paths (as ``paths``) of PNG whose pixels are classes, 255 ignored
    legend: Legend = PLAIN  # how those PNG are read: numbers or colours to labels
    captions: list[list[str]] | None = None  # N
    store: Store | None = None  # where pictures come from that are no files of their own
    places: NDArray[np.int64] | None = None  # [N, k] where the store finds them
    problems: tuple[Problem, ...] = ()
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def __post_init__(self) -> None:
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _fingerprint(self))

    def file(self, row: int) -> Path:
        """The picture's path; ``root / absolute`` is the absolute path. In a store it is a name for messages only."""
        return self.root / self.paths[row]

    def picture(self, row: int) -> Picture:
        """What `torso.data.decode.decode` takes: the file, or the store's bytes or pixels."""
        if self.store is None or self.places is None:
            return self.file(row)
        return self.store.read(self.places[row])

    def segment_file(self, row: int) -> Path | None:
        """The PNG whose pixels are classes."""
        named = None if self.segments is None else self.segments[row]
        return None if named is None else self.root / named

    def segment(self, row: int) -> NDArray[np.uint8] | None:
        """The class of each pixel ``[H, W]``, 255 where it counts neither way."""
        file = self.segment_file(row)
        return None if file is None else self.legend.read(file)

    def objects(self, row: int) -> slice:
        """The rows of the objects on picture ``row``."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))

    def select(self, rows: Sequence[int]) -> Index:
        """The index of some pictures, in the order given (one may come twice); problems stay."""
        rows = [int(row) for row in rows]
        spans = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        kept = np.concatenate([*spans, np.zeros(0, np.int64)]).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64)
        columns: dict[str, Any] = {name: _taken(getattr(self, name), rows) for name in PER_PICTURE}
        columns |= {name: _taken(getattr(self, name), kept) for name in PER_OBJECT}
        return replace(self, **columns, offsets=offsets, fingerprint="")

    def raise_if_fatal(self) -> None:
        """Stops before training.

        Raises:
            DataError: labels that would teach something wrong, the first of them with file and line.
        """
        fatal = [problem for problem in self.problems if problem.fatal]
        if fatal:
            count = "1 error" if len(fatal) == 1 else f"{len(fatal)} errors"
            raise DataError(f"{self.root}: {count} in the labels; correct them and run again\n{first_problems(fatal)}")

    def report(self) -> dict[str, Any]:
        """What is in the data and everything that was left out or changed, JSON-able (``data_report.json``)."""
        labels = self.labels if self.image_labels is None else self.image_labels
        counts = np.bincount(labels, minlength=len(self.classes))
        return {
            "task": self.task,
            "root": str(self.root),
            "fingerprint": self.fingerprint,
            "images": len(self),
            "images_without_objects": int((np.diff(self.offsets) == 0).sum()) if self.task == "detect" else None,
            "objects": len(self.labels),
            "classes": dict(zip(self.classes, counts.tolist(), strict=True)),
            "ignored": {"crowd": int(self.crowd.sum()), "difficult": int(self.difficult.sum())},
            "problem_counts": dict(Counter(problem.kind for problem in self.problems)),
            "problems": [
                {field.name: getattr(problem, field.name) for field in fields(problem)} for problem in self.problems
            ],
        }


def joined(indexes: Sequence[Index]) -> Index:
    """Several indexes of the same task and classes as one; paths become absolute where the roots differ.

    Raises:
        DataError: nothing to join, or classes, tasks or stores that differ.
    """
    if not indexes:
        raise DataError("expected at least one split, came none")
    first = indexes[0]
    for other in indexes[1:]:
        if (other.task, other.classes, other.keypoint_names) != (first.task, first.classes, first.keypoint_names):
            raise DataError(
                f"{first.root} and {other.root} differ in task or classes: {first.classes}, {other.classes}"
            )
        if (other.store is None) != (first.store is None) or (other.store is not None and other.store != first.store):
            raise DataError(f"{first.root} and {other.root} are kept in different stores and cannot be joined")
    if len(indexes) == 1:
        return first
    legends = {index.legend for index in indexes if index.segments is not None}
    if len(legends) > 1:
        raise DataError(f"{first.root}: cannot be joined with PNG whose numbers or colours mean other classes")
    indexes = [_rooted(index, first.root) for index in indexes]
    columns: dict[str, Any] = {}
    for name in PER_PICTURE:
        columns[name] = _chained([(getattr(index, name), len(index)) for index in indexes])
    for name in PER_OBJECT:
        columns[name] = _chained([(getattr(index, name), len(index.labels)) for index in indexes])
    counts = np.concatenate([np.diff(index.offsets) for index in indexes])
    ids: list[ImageId] = columns["image_ids"]
    if len(set(ids)) != len(ids):  # two sources count from 1: paths tell pictures apart
        columns["image_ids"] = list(columns["paths"])
    return replace(
        first,
        **columns,
        legend=next(iter(legends), PLAIN),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        problems=tuple(problem for index in indexes for problem in index.problems),
        fingerprint="",
    )


def _taken(column: Any, rows: Any) -> Any:
    if column is None or isinstance(column, np.ndarray):
        return None if column is None else column[rows]
    return [column[row] for row in rows]


def _chained(parts: Sequence[tuple[Any, int]]) -> Any:
    """Columns one after the other; where only some have one, the others get what says nothing."""
    present = [column for column, _ in parts if column is not None]
    if not present:
        return None
    if isinstance(present[0], np.ndarray):
        like = present[0]
        blank = [np.zeros((count, *like.shape[1:]), like.dtype) for _, count in parts]
        return np.concatenate([b if c is None else c for (c, _), b in zip(parts, blank, strict=True)])
    nothing: Any = "" if isinstance(next(iter(present[0]), None), str) else None
    return [item for column, count in parts for item in ([nothing] * count if column is None else column)]


def _rooted(index: Index, root: Path) -> Index:
    """The same index with its paths under another root."""
    if index.root == root or index.store is not None:
        return index
    named = [None if path is None else str(index.root / path) for path in index.segments or []]
    return replace(
        index, root=root, paths=[str(index.root / path) for path in index.paths], segments=named or index.segments
    )


def _fingerprint(index: Index) -> str:
    """A hash of everything a training sees of the labels; where the files lie does not count."""
    digest = hashlib.sha256()
    for text in (index.task, *index.classes, *index.paths):
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    arrays = [index.sizes, index.boxes, index.labels, index.offsets, index.crowd, index.difficult, index.image_labels]
    arrays += [index.keypoints, index.places]
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]
