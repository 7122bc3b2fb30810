"""What one index has and another has not: the same data before and after they were written in another format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.index import Index, Mask
from torso.data.masks import rasterise

EXACT = 1e-6  # pixels: boxes that differ by less are the same
OF_THE_WHOLE = frozenset({"classes", "order of classes", "class ids", "task", "keypoint names", "skeleton"})
_HINTS = frozenset(
    {"class ids from 1", "empty class", "ignored"}
)  # what a reader remarks on that is no fault of the data
FLAGS = ("crowd", "difficult", "truncated", "occluded")
Rows = NDArray[np.int64]


@dataclass
class Difference:
    """How many objects, pictures or classes are not what they were, by what they lost."""

    lost: Counter[str] = field(default_factory=Counter)
    of: Counter[str] = field(default_factory=Counter)  # how many had it
    max_pixels: float = 0.0  # the largest difference of a coordinate of a box
    notes: dict[str, str] = field(default_factory=dict)

    def count(self, what: str, lost: int, of: int) -> None:
        """Notes that ``lost`` of ``of`` lost something."""
        self.of[what] += of
        if lost:
            self.lost[what] += lost

    def add(self, other: Difference) -> None:
        """Adds what another split lost; what belongs to the whole data is lost only once."""
        for mine, theirs in ((self.lost, other.lost), (self.of, other.of)):
            for what, count in theirs.items():
                mine[what] = max(mine[what], count) if what in OF_THE_WHOLE else mine[what] + count
        self.max_pixels = max(self.max_pixels, other.max_pixels)
        self.notes |= other.notes


def compare(source: Index, written: Index) -> Difference:
    """Compares column by column; pictures are paired by their names, objects by class and place.

    Args:
        source: what there was.
        written: what was read back; its classes may be in another order, names tell which is which.
    """
    found = Difference()
    pairs = _pictures(source, written)
    found.count("pictures", len(source) - len(pairs), len(source))
    _classes(found, source, written)
    rows, others = ([pair[side] for pair in pairs] for side in (0, 1))
    a, b = source.select(rows), written.select(others)
    _of_pictures(found, a, b)
    mine, theirs = _objects(a, b)
    gone = np.setdiff1d(np.arange(len(a.labels)), mine)
    found.count("objects", len(gone) + len(source.labels) - len(a.labels), len(source.labels))
    for flag in ("difficult", "crowd"):
        found.count(f"objects that are {flag}", int(getattr(a, flag)[gone].sum()), int(getattr(a, flag).sum()))
    found.count("new objects", len(b.labels) - len(theirs), len(b.labels))
    _boxes(found, a, b, mine, theirs)
    for flag in FLAGS:
        _flag(found, flag, _flagged(a, flag)[mine], _flagged(b, flag)[theirs])
    _poses(found, a, b, mine, theirs)
    _masks(found, a, b, mine, theirs)
    _keypoints(found, a, b, mine, theirs)
    known = Counter(problem.kind for problem in source.problems)
    for kind, count in (Counter(problem.kind for problem in written.problems) - known).items():
        if kind not in _HINTS:
            found.count(f"problem: {kind}", count, count)
    return found


def _key(index: Index, row: int) -> str:
    stem = PurePath(index.paths[row]).stem.casefold()
    if index.image_labels is None:
        return stem
    return f"{index.classes[index.image_labels[row]]}/{stem}"


def _pictures(source: Index, written: Index) -> list[tuple[int, int]]:
    """Rows of the same picture; by their order where names do not tell pictures apart."""
    here = [_key(source, row) for row in range(len(source))]
    there = {_key(written, row): row for row in range(len(written))}
    if len(source) == len(written) and not (len(set(here)) == len(there) == len(source) and set(here) == set(there)):
        return [(row, row) for row in range(len(source))]
    return [(row, there[key]) for row, key in enumerate(here) if key in there]


def _classes(found: Difference, source: Index, written: Index) -> None:
    ids = dict(zip(written.classes, written.class_ids, strict=True))
    missing = [name for name in source.classes if name not in ids]
    found.count("classes", len(missing), len(source.classes))
    if missing:
        found.notes["classes"] = ", ".join(missing[:5])
    both = [name for name in source.classes if name in ids]
    kept = [name for name in written.classes if name in source.classes]
    found.count("order of classes", sum(a != b for a, b in zip(both, kept, strict=True)), len(both))
    changed = {
        name: (number, ids[name])
        for name, number in zip(source.classes, source.class_ids, strict=True)
        if name in ids and ids[name] != number
    }
    found.count("class ids", len(changed), len(both))
    if changed:
        name, (before, after) = next(iter(changed.items()))
        found.notes["class ids"] = f"{name} was {before}, is {after}"
    found.count("task", int(source.task != written.task), 1)
    if source.keypoint_names:
        found.count("keypoint names", int(source.keypoint_names != written.keypoint_names), 1)
        found.count("skeleton", int(bool(source.skeleton) and source.skeleton != written.skeleton), 1)


def _of_pictures(found: Difference, a: Index, b: Index) -> None:
    """What belongs to whole pictures; both have the same ones in the same order."""
    count = len(a)
    # An id that is only the name of the file goes with the file.
    named = [str(x) in (path, PurePath(path).stem) for x, path in zip(a.image_ids, a.paths, strict=True)]
    ids = zip(a.image_ids, b.image_ids, named, strict=True)
    found.count("image ids", sum(x != y and not name for x, y, name in ids), count - sum(named))
    found.count("sizes", int((a.sizes != b.sizes).any(axis=1).sum()), count)
    if a.image_labels is not None:
        there = [None] * count if b.image_labels is None else [b.classes[label] for label in b.image_labels]
        found.count("image labels", sum(a.classes[x] != y for x, y in zip(a.image_labels, there, strict=True)), count)
    if a.captions is not None:
        others = b.captions or [[] for _ in range(count)]
        found.count(
            "captions", sum(x != y for x, y in zip(a.captions, others, strict=True)), sum(map(bool, a.captions))
        )
    if a.segments is not None:
        lost = sum(not _same_segments(a, b, row) for row in range(count))
        found.count("segments", lost, sum(path is not None for path in a.segments))


def _same_segments(a: Index, b: Index, row: int) -> bool:
    labels, others = a.segment(row), b.segment(row)
    if labels is None or others is None:
        return labels is None
    # The numbers of classes may differ; names tell.
    names = np.full(256, 255)
    names[: len(b.classes)] = [a.classes.index(name) if name in a.classes else 254 for name in b.classes[:256]]
    return labels.shape == others.shape and bool((labels == names[others]).all())


def _objects(a: Index, b: Index) -> tuple[Rows, Rows]:
    """Rows of the same object in both indexes, whose pictures are the same."""
    number = {name: label for label, name in enumerate(a.classes)}
    labels = np.array([number.get(name, -1) for name in b.classes] or [0], np.int64)[b.labels]
    mine: list[Rows] = []
    theirs: list[Rows] = []
    for row in range(len(a)):
        here, there = a.objects(row), b.objects(row)
        one, other = _matched(a.boxes[here], a.labels[here], b.boxes[there], labels[there])
        mine.append(one + here.start)
        theirs.append(other + there.start)
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *mine]), np.concatenate([nothing, *theirs])


def _matched(
    boxes: NDArray[np.float64], labels: Rows, others: NDArray[np.float64], other_labels: Rows
) -> tuple[Rows, Rows]:
    """Objects of one picture in pairs: in the order they have, or, where that cannot be, the nearest of each class."""
    if len(boxes) == len(others) and np.array_equal(labels, other_labels):
        near = np.abs(boxes - others).max(axis=1, initial=0) < 0.5
        if near.all():
            order = np.arange(len(boxes))
            return order, order
    from scipy.optimize import linear_sum_assignment

    far = np.abs(boxes[:, None] - others[None]).max(axis=2, initial=0)
    wrong = labels[:, None] != other_labels[None]
    one, other = linear_sum_assignment(np.where(wrong, 1e9, far))
    right = ~wrong[one, other]
    return one[right].astype(np.int64), other[right].astype(np.int64)


def _boxes(found: Difference, a: Index, b: Index, mine: Rows, theirs: Rows) -> None:
    moved = np.abs(a.boxes[mine] - b.boxes[theirs]).max(axis=1, initial=0)
    found.max_pixels = float(moved.max(initial=0))
    found.count("boxes", int((moved > EXACT).sum()), len(mine))
    # A box says how large an object is, unless the file says so too.
    own = (a.boxes[mine, 2:] - a.boxes[mine, :2]).prod(axis=1)
    said, after = a.area[mine], b.area[theirs]
    special = np.abs(said - own) > EXACT * np.maximum(own, 1)
    changed = np.abs(said - after) > 1e-4 * np.maximum(said, 1)
    found.count("area", int((special & changed).sum()), int(special.sum()))


def _flagged(index: Index, flag: str) -> NDArray[np.bool_]:
    column: NDArray[np.bool_] | None = getattr(index, flag)
    return np.zeros(len(index.labels), np.bool_) if column is None else column


def _flag(found: Difference, flag: str, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> None:
    found.count(flag, int((before & ~after).sum()), int(before.sum()))
    found.count(f"not {flag}", int((~before & after).sum()), int((~before).sum()))


def _poses(found: Difference, a: Index, b: Index, mine: Rows, theirs: Rows) -> None:
    if a.poses is None:
        return
    nothing = ("", "Unspecified")
    before = [a.poses[row] for row in mine]
    after = [""] * len(theirs) if b.poses is None else [b.poses[row] for row in theirs]
    lost = sum(x != y and x not in nothing for x, y in zip(before, after, strict=True))
    found.count("pose", lost, sum(pose not in nothing for pose in before))


def _masks(found: Difference, a: Index, b: Index, mine: Rows, theirs: Rows) -> None:
    if a.masks is None:
        return
    size = np.repeat(a.sizes, np.diff(a.offsets), axis=0)
    lost = changed = had = 0
    for row, other in zip(mine.tolist(), theirs.tolist(), strict=True):
        before = a.masks[row]
        after = None if b.masks is None else b.masks[other]
        had += before is not None
        if before is not None and after is None:
            lost += 1
        elif before is not None and not _same_mask(before, after, (int(size[row, 0]), int(size[row, 1]))):
            changed += 1
    found.count("masks", lost, had)
    found.count("pixels of masks", changed, had - lost)


def _same_mask(one: Mask, other: Mask, size: tuple[int, int]) -> bool:
    if one == other:
        return True
    if isinstance(one, list) and isinstance(other, list) and [len(p) for p in one] == [len(p) for p in other]:
        pairs = zip(_flat(one), _flat(other), strict=True)
        if all(abs(x - y) <= EXACT for x, y in pairs):
            return True
    try:
        return bool(np.array_equal(rasterise(one, size), rasterise(other, size)))
    except DataError:  # what cannot be drawn and was not kept as it is
        return False


def _flat(polygons: Sequence[Sequence[float]]) -> Iterator[float]:
    for polygon in polygons:
        yield from polygon


def _keypoints(found: Difference, a: Index, b: Index, mine: Rows, theirs: Rows) -> None:
    if a.keypoints is None:
        return
    before = a.keypoints[mine]
    shown = before[..., 2] > 0
    some = shown.any(axis=1)
    if b.keypoints is None or b.keypoints.shape[1:] != before.shape[1:]:
        found.count("keypoints", int(some.sum()), int(some.sum()))
        return
    after = b.keypoints[theirs]
    moved = (np.abs(before[..., :2] - after[..., :2]).max(axis=2) > EXACT) & shown
    differ = (moved | (before[..., 2] != after[..., 2])).any(axis=1)
    found.count("keypoints", int((differ & some).sum()), int(some.sum()))
