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

Task = Literal["detect", "classify"]
ImageId = int | str
Mask = list[list[float]] | dict[str, Any] | None
"""Polygons ``[[x, y, x, y, ...], ...]`` in pixels, a COCO run-length dict, or nothing."""

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
    masks: list[Mask] | None = None  # T entries
    image_labels: NDArray[np.int64] | None = None  # [N], classification
    problems: tuple[Problem, ...] = ()
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def __post_init__(self) -> None:
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _fingerprint(self))

    def file(self, row: int) -> Path:
        """The picture's path; ``root / absolute`` is the absolute path."""
        return self.root / self.paths[row]

    def objects(self, row: int) -> slice:
        """The rows of the objects on picture ``row``."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))

    def select(self, rows: Sequence[int]) -> Index:
        """The index of some pictures, in the order given; problems stay."""
        objects = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        kept = np.concatenate([*objects, np.zeros(0, np.int64)]).astype(np.int64)
        counts = [len(part) for part in objects]
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            image_ids=[self.image_ids[row] for row in rows],
            sizes=self.sizes[list(rows)],
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            **{
                name: getattr(self, name)[kept]
                for name in ("boxes", "labels", "crowd", "difficult", "truncated", "area")
            },
            masks=None if self.masks is None else [self.masks[row] for row in kept],
            image_labels=None if self.image_labels is None else self.image_labels[list(rows)],
            fingerprint="",
        )

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


def _fingerprint(index: Index) -> str:
    """A hash of everything a training sees of the labels; where the files lie does not count."""
    digest = hashlib.sha256()
    for text in (index.task, *index.classes, *index.paths):
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    arrays = [index.sizes, index.boxes, index.labels, index.offsets, index.crowd, index.difficult, index.image_labels]
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]
