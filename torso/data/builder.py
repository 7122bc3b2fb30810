"""What every reader goes through: rows are checked one by one, and nothing is dropped without being named."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.decode import DecodeError, probe
from torso.data.headers import Header
from torso.data.index import ImageId, Index, Mask, Problem, Task, first_problems
from torso.data.palette import PLAIN, Legend
from torso.data.table import Table

READING = 8  # threads that read the headers of pictures; they wait for the disk

# Labels that would teach something wrong: they end a training before it starts.
FATAL = frozenset(
    {"class out of range", "unknown class", "malformed row", "malformed file", "not a number", "duplicate image id"}
)


@dataclass
class Object:
    """One labelled object as a file says it; ``line`` and ``where`` (a path inside the file) name it in messages."""

    box: tuple[float, float, float, float]  # xyxy pixels, as the file says
    label: int
    line: int | None = None
    where: str = ""
    crowd: bool = False
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    pose: str = ""
    keypoints: list[float] | None = None  # x, y, visibility for each of the index's keypoint names
    area: float | None = None
    mask: Mask = None


@dataclass
class Builder:
    """Collects pictures and objects, and says what was wrong with them."""

    root: Path
    classes: tuple[str, ...]
    class_ids: tuple[int, ...] = ()
    task: Task = "detect"
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    legend: Legend = PLAIN
    problems: list[Problem] = field(default_factory=list)
    _paths: list[str] = field(default_factory=list)
    _sizes: list[tuple[int, int]] = field(default_factory=list)
    _ids: list[ImageId] = field(default_factory=list)
    _image_labels: list[int] = field(default_factory=list)
    _segments: list[str | None] = field(default_factory=list)
    _captions: list[list[str]] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _objects: list[Object] = field(default_factory=list)
    _lost: list[Problem] = field(default_factory=list)
    _many_sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    _table: Table | None = None
    _last: tuple[Path | str, str] = ("", "")  # a path, and how it is shown

    def report(self, kind: str, path: Path | str, message: str, line: int | None = None) -> None:
        """Notes a problem; its kind decides whether it is fatal."""
        self.problems.append(Problem(kind, self._shown(path), line, message, kind in FATAL))

    def size_of(
        self, image: Path, said: tuple[int, int] | None = None, labels: Path | None = None
    ) -> tuple[int, int] | None:
        """The upright size from the picture's own header, or None (noted) where it is missing or not an image.

        ``said`` is the size the label file states; where it differs it is noted against ``labels``.
        """
        return self._size(image, _probed(image), said, labels)

    def sizes_of(
        self, images: Sequence[Path], said: NDArray[np.int64], labels: Path | None = None
    ) -> list[tuple[int, int] | None]:
        """``size_of`` for many pictures, headers read by several threads; ``said`` is ``[N, 2]``, 0 where unknown."""
        with ThreadPoolExecutor(READING) as pool:
            headers = list(pool.map(_probed, images))
        return [
            self._size(image, header, (width, height), labels)
            for image, header, (width, height) in zip(images, headers, said.tolist(), strict=True)
        ]

    def lost(self, image: Path | str, kind: str = "missing image", reason: str = "no such file") -> None:
        """Notes a picture that cannot be used; ``finish`` raises where most are lost."""
        self.report(kind, image, reason)
        self._lost.append(self.problems[-1])

    def _size(
        self, image: Path, found: Header | DecodeError, said: tuple[int, int] | None, labels: Path | None
    ) -> tuple[int, int] | None:
        if isinstance(found, DecodeError):
            there = os.path.exists(image)  # noqa: PTH110 - pathlib raises where a name is too long
            self.lost(image, "damaged image" if there else "missing image", found.reason)
            return None
        if found.frames > 1:
            self.report("animated image", image, f"has {found.frames} frames; the first one counts")
        if said is not None and min(said) > 0 and said != found.size:
            hint = ""
            if said == found.size[::-1]:
                hint = "; the labels may have been drawn without applying the EXIF rotation"
            message = f"says {image.name} is {said[0]}x{said[1]}, upright it is {found.size[0]}x{found.size[1]}{hint}"
            self.report("wrong size", labels or image, message)
        return found.size

    def image(
        self,
        path: Path,
        size: tuple[int, int],
        image_id: ImageId,
        label: int | None = None,
        *,
        segments: Path | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        """Starts a picture; the objects that follow are its own."""
        self._segments.append(None if segments is None else self._shown(segments))
        self._captions.append(list(captions))
        self._paths.append(self._shown(path))
        self._sizes.append(size)
        self._ids.append(image_id)
        self._counts.append(0)
        if label is not None:
            self._image_labels.append(label)

    def pictures(
        self, paths: Sequence[str], sizes: NDArray[np.int64], ids: Sequence[ImageId], captions: Sequence[list[str]] = ()
    ) -> None:
        """Adds many pictures at once, before any others: ``paths`` as the index has them, ``sizes`` ``[N, 2]``."""
        self._segments += [None] * len(paths)
        self._captions += captions or [[]] * len(paths)
        self._paths += paths
        self._many_sizes = np.concatenate([self._many_sizes, sizes])
        self._ids += ids
        self._counts += [0] * len(paths)

    def table(self, table: Table, labels: Path) -> None:
        """Adds the objects of all pictures at once, in place of ``objects``; the checks and their words are the same.

        ``table`` is changed: its boxes are clipped where they stand.
        """
        sizes = self._all_sizes()
        good = table.plain(sizes, len(self.classes))
        for at in np.flatnonzero(~good).tolist():
            width, height = sizes[table.pictures[at]].tolist()
            kept = self._checked(_row_of(table, at), labels, (width, height))
            if kept is not None:
                good[at], table.boxes[at] = True, kept.box
                table.area[at] = math.nan if kept.area is None else kept.area
        for at in table.repeated(good):
            good[at] = False
            self.report("duplicate row", labels, f"{table.where(at)}the same box and class again; counted once")
        self._table = table.kept(good)
        self._counts = np.bincount(self._table.pictures, minlength=len(self._paths)).tolist()

    def objects(self, rows: Sequence[Object], labels: Path) -> None:
        """Adds the objects of the picture started last, each checked by itself."""
        seen: set[tuple[tuple[float, ...], int]] = set()
        for row in rows:
            kept = self._checked(row, labels, self._sizes[-1])
            if kept is None:
                continue
            if (kept.box, kept.label) in seen and not kept.crowd:
                self.report(
                    "duplicate row", labels, f"{kept.where}the same box and class again; counted once", kept.line
                )
                continue
            seen.add((kept.box, kept.label))
            self._objects.append(kept)
            self._counts[-1] += 1

    def _checked(self, row: Object, labels: Path, size: tuple[int, int]) -> Object | None:
        """The row clipped to its picture, or None where it cannot be used; both are noted."""
        if not all(map(math.isfinite, row.box)):
            self.report("not a number", labels, f"{row.where}expected finite coordinates, came {row.box}", row.line)
            return None
        if not 0 <= row.label < len(self.classes):
            expected = f"expected a class in 0..{len(self.classes) - 1}"
            self.report("class out of range", labels, f"{row.where}{expected}, came {row.label}", row.line)
            return None
        x0, y0, x1, y1 = row.box
        if x1 <= x0 or y1 <= y0:
            message = f"{row.where}box {_show(row.box)} has no area; dropped"
            self.report("degenerate box", labels, message, row.line)
            return None
        width, height = size
        clipped = (
            min(max(x0, 0.0), width),
            min(max(y0, 0.0), height),
            min(max(x1, 0.0), width),
            min(max(y1, 0.0), height),
        )
        if clipped == row.box:
            return row
        inside = (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]) / ((x1 - x0) * (y1 - y0))
        where = f"{row.where}box {_show(row.box)} in a picture of {width}x{height}"
        if inside <= 0:
            self.report("box outside", labels, f"{where} lies outside of it; dropped", row.line)
            return None
        # Rounding in files with six decimals is not worth a word.
        if max(abs(a - b) for a, b in zip(clipped, row.box, strict=True)) > 1e-2:
            kind = "box mostly outside" if inside < 0.5 else "box clipped"
            self.report(kind, labels, f"{where} was clipped; {inside:.0%} of it is inside", row.line)
        area = None if row.area is None else row.area if row.mask is not None else row.area * inside
        return replace(row, box=clipped, area=area)

    def finish(self) -> Index:
        """The index of all that was kept.

        Raises:
            DataError: not one picture is left, or more than half of those listed are missing or damaged.
        """
        if self._lost and len(self._lost) >= len(self._paths):
            listed = len(self._lost) + len(self._paths)
            raise DataError(
                f"{self.root}: {len(self._lost)} of {listed} listed pictures are missing or cannot be read; "
                f"check the paths\n{first_problems(self._lost)}"
            )
        if not self._paths:
            fatal = [problem for problem in self.problems if problem.fatal] or self.problems
            raise DataError(f"{self.root}: expected pictures, found none\n{first_problems(fatal)}".rstrip())
        return Index(
            task=self.task,
            root=self.root,
            paths=self._paths,
            sizes=self._all_sizes().astype(np.int32),
            image_ids=self._ids,
            offsets=np.concatenate([[0], np.cumsum(self._counts)]).astype(np.int64),
            classes=self.classes,
            class_ids=self.class_ids or tuple(range(len(self.classes))),
            **(_columns(self._objects, len(self.keypoint_names)) if self._table is None else _drained(self._table)),
            keypoint_names=self.keypoint_names,
            skeleton=self.skeleton,
            legend=self.legend,
            segments=self._segments if any(path is not None for path in self._segments) else None,
            captions=self._captions if any(self._captions) else None,
            image_labels=np.array(self._image_labels, np.int64) if self.task == "classify" else None,
            problems=tuple(self.problems),
        )

    def _all_sizes(self) -> NDArray[np.int64]:
        return np.concatenate([self._many_sizes, np.array(self._sizes, np.int64).reshape(-1, 2)])

    def _shown(self, path: Path | str) -> str:
        """Relative to the root where it lies inside."""
        if path != self._last[0]:  # a file's problems come one after the other
            full = Path(path)
            inside = full.is_relative_to(self.root)
            self._last = (path, full.relative_to(self.root).as_posix() if inside else str(full))
        return self._last[1]


def _probed(image: Path) -> Header | DecodeError:
    try:
        return probe(image)
    except DecodeError as error:
        return error


def _row_of(table: Table, row: int) -> Object:
    """One row of a table by itself."""
    x0, y0, x1, y1 = table.boxes[row].tolist()
    area = float(table.area[row])
    return Object(
        (x0, y0, x1, y1),
        int(table.labels[row]),
        where=table.where(row),
        crowd=bool(table.crowd[row]),
        area=None if math.isnan(area) else area,
        mask=None if table.masks is None else table.masks[row],
    )


def _columns(rows: Sequence[Object], keypoints: int) -> dict[str, Any]:
    """What the index has of each object."""
    boxes = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    said = np.array([math.nan if row.area is None else row.area for row in rows], np.float64)
    blank = [0.0] * (3 * keypoints)  # what has no keypoints is all unlabelled
    points = [row.keypoints or blank for row in rows]
    return {
        "boxes": boxes,
        "labels": np.array([row.label for row in rows], np.int64),
        "crowd": np.array([row.crowd for row in rows], np.bool_),
        "difficult": np.array([row.difficult for row in rows], np.bool_),
        "truncated": np.array([row.truncated for row in rows], np.bool_),
        "area": _areas(boxes, said),
        "masks": [row.mask for row in rows] if any(row.mask is not None for row in rows) else None,
        "occluded": np.array([row.occluded for row in rows], np.bool_) if any(row.occluded for row in rows) else None,
        "poses": [row.pose for row in rows] if any(row.pose for row in rows) else None,
        "keypoints": np.array(points, np.float64).reshape(-1, keypoints, 3) if keypoints else None,
    }


def _drained(table: Table) -> dict[str, Any]:
    """The same of a table."""
    return {
        "boxes": table.boxes,
        "labels": table.labels,
        "crowd": table.crowd,
        "difficult": table.difficult,
        "truncated": np.zeros(len(table.labels), np.bool_),
        "area": _areas(table.boxes, table.area),
        "masks": table.masks if any(mask is not None for mask in table.masks or ()) else None,
        "keypoints": table.keypoints,
    }


def _areas(boxes: NDArray[np.float64], said: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the file said, else the area of the box; ``said`` is filled."""
    unsaid = np.isnan(said)
    said[unsaid] = (boxes[unsaid, 2] - boxes[unsaid, 0]) * (boxes[unsaid, 3] - boxes[unsaid, 1])
    return said


def _show(box: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"
