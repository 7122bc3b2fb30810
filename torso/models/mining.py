"""How a sliding window learns: support vectors, and in each round the windows that were wrongly taken for objects."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from torso.config import DataError
from torso.structures import Batch

if TYPE_CHECKING:
    from torso.models.classical import Level, SlidingWindow

Rows = NDArray[np.float32]
Whole = NDArray[np.int64]
NOTHING = -1  # the label of a window without an object
SAFE = -1.0  # the margin from which on a window without an object costs nothing
NEVER = -10.0  # the margin where nothing of a class was seen


class Mining(NamedTuple):
    """How planes are found."""

    cost: float = 0.01  # of a window on the wrong side, against the width of the margin: C of the machine
    positives: int = 4  # windows of an object at most, those that overlap it most
    negatives: int = 20  # windows of nothing that a picture and shape may add in a round
    limit: int = 20000  # windows of nothing that are kept of a shape, the hardest


class HardNegatives:
    """Finds the planes of a `SlidingWindow` by support vectors, one class against the rest.

    In the first round windows without an object are drawn at random; in each further one those are added that the
    planes so far take for an object, or nearly so, and those forgotten that lie safely on the right side. Windows of
    other classes are negatives too.

    Args:
        model: whose planes are to be found.
        mining: how.
        seed: of what is drawn.

    Source: Histograms of Oriented Gradients for Human Detection, 2005 (hard examples); scikit-learn's LinearSVC
    """

    def __init__(self, model: SlidingWindow, mining: Mining, seed: int = 0):
        self.model, self.mining, self.seed = model, mining, seed
        self.pools = [_Pool() for _ in model.shapes]

    def round(self, batches: Iterable[Batch], number: int) -> dict[str, float]:
        """One pass over the pictures; ``number`` 0 is the first.

        Returns:
            how many windows of objects and of nothing the planes were found from, how many of these are new, and the
            mean squared hinge over all of them.

        Raises:
            DataError: no window overlaps any object enough.
        """
        before = sum(len(pool) for pool in self.pools)
        generator = torch.Generator().manual_seed(self.seed + number)
        for batch in batches:
            self._take(batch, number, generator)
        for pool in self.pools:
            pool.settle()
        labels = np.concatenate([pool.labels for pool in self.pools])
        if not (labels != NOTHING).any():
            raise DataError(self._no_object())
        loss = [self._learn(shape, pool) for shape, pool in enumerate(self.pools) if len(pool)]
        return {
            "loss": float(np.concatenate(loss).mean()),
            "objects": int((labels != NOTHING).sum()),
            "nothing": int((labels == NOTHING).sum()),
            "new": len(labels) - before,
        }

    @torch.no_grad()
    def _take(self, batch: Batch, number: int, generator: torch.Generator) -> None:
        """The windows of some pictures that are to be learned from."""
        output, levels = self.model.look(batch.images)
        assigned, labels, overlap = self.model.assign(output, batch)
        rank = output.logits.amax(dim=-1).cpu()  # [B, P]
        if number == 0:
            rank = torch.rand(rank.shape, generator=generator)
        negative = assigned.negative.cpu() & (rank > SAFE)
        kind = np.repeat(np.arange(len(output.counts)) % len(self.pools), output.counts)
        taken = []
        for i in range(len(batch)):
            free = negative[i].numpy()
            for shape in range(len(self.pools)):
                hard = _best(rank[i].numpy(), free & (kind == shape), self.mining.negatives)
                taken.append(_Taken(np.full(len(hard), i), hard, np.full(len(hard), NOTHING)))
            owner, share, there = (x[i].cpu().numpy() for x in (assigned.matched, overlap, assigned.positive))
            best = _best_of_each(owner, share, there, self.mining.positives)
            taken.append(_Taken(np.full(len(best), i), best, labels[i].cpu().numpy()[best]))
        picture, window, label = (np.concatenate(column) for column in zip(*taken, strict=True))
        begin = 0
        for place, count in enumerate(output.counts):
            level, shape = levels[place // len(self.pools)], place % len(self.pools)
            here = (window >= begin) & (window < begin + count)
            self.pools[shape].add(self._blocks(level, shape, picture[here], window[here] - begin), label[here])
            begin += count

    def _blocks(self, level: Level, shape: int, picture: Whole, window: Whole) -> Rows:
        """The blocks of windows of a level and shape, ``[K, N * H * W]``."""
        wide, high = self.model.head.shapes[shape]
        windows = level.blocks.unfold(2, high, 1).unfold(3, wide, 1)  # [B, N, rows, columns, H, W]
        row, column = np.divmod(window, windows.shape[3])
        chosen = windows[torch.from_numpy(picture), :, torch.from_numpy(row), torch.from_numpy(column)]
        return np.asarray(chosen.flatten(1).float().cpu().numpy())

    def _learn(self, shape: int, pool: _Pool) -> NDArray[np.float64]:
        """New planes of a shape; what they still cost for each of its windows. Easy windows are forgotten."""
        from sklearn.svm import LinearSVC

        classes = self.model.num_classes
        margins = np.empty((len(pool), classes))
        for label in range(classes):
            right = pool.labels == label
            if right.all() or not right.any():  # nothing to tell apart
                weight, bias = np.zeros(pool.rows.shape[1]), 1.0 if right.all() else NEVER
            else:
                found = LinearSVC(C=self.mining.cost, dual=False, tol=1e-3).fit(pool.rows, right)
                weight, bias = found.coef_[0], float(found.intercept_[0])
            self.model.head.set(shape, label, torch.from_numpy(weight), bias)
            margins[:, label] = pool.rows @ weight + bias
        right = pool.labels[:, None] == np.arange(classes)
        cost = np.square(np.maximum(1 - np.where(right, margins, -margins), 0)).sum(axis=1)
        pool.forget(margins.max(axis=1), self.mining.limit)
        return np.asarray(cost)

    def _no_object(self) -> str:
        """Why there is nothing to learn from, in one sentence."""
        cell, shares = self.model.hog.cell, [scale.over / scale.under for scale in self.model.scales]
        windows = [f"{wide * cell}x{high * cell}" for wide, high in self.model.shapes]
        return (
            f"no object has a window that overlaps it enough: there are windows of {', '.join(windows)} pixels on "
            f"pictures of {min(shares):.3g} to {max(shares):.3g} times their size; change model.shapes, model.scales, "
            "or the overlap that model.assigner asks for"
        )


class _Taken(NamedTuple):
    """Windows of one picture."""

    picture: Whole
    window: Whole
    label: Whole


class _Pool:
    """Windows of a shape, none of them twice."""

    def __init__(self) -> None:
        self.labels: Whole = np.zeros(0, dtype=np.int64)
        self.rows: Rows = np.zeros((0, 0), dtype=np.float32)
        self._new: list[tuple[Rows, Whole]] = []
        self._known: set[bytes] = set()

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, rows: Rows, labels: Whole) -> None:
        """Windows that are not here yet; they are, once they are `settle`d."""
        names = [_name(row) for row in rows]
        first = {name: i for i, name in reversed([*enumerate(names)])}
        fresh = sorted(i for name, i in first.items() if name not in self._known)
        self._known.update(names)
        self._new.append((rows[fresh], labels[fresh]))

    def settle(self) -> None:
        """Take in what is new."""
        if any(len(rows) for rows, _ in self._new):
            old = [(self.rows, self.labels)] if len(self) else []
            rows, labels = zip(*old, *self._new, strict=True)
            self.rows, self.labels = np.concatenate(rows), np.concatenate(labels)
        self._new = []

    def forget(self, margins: NDArray[np.float64], limit: int) -> None:
        """Windows of nothing whose margin is safe, and of the others all but the hardest ``limit``."""
        hard = _best(margins, (self.labels == NOTHING) & (margins > SAFE), limit)
        kept = np.sort(np.concatenate([np.flatnonzero(self.labels != NOTHING), hard]))
        self.rows, self.labels = self.rows[kept], self.labels[kept]
        self._known = {_name(row) for row in self.rows}


def _name(row: Rows) -> bytes:
    return blake2b(row.tobytes(), digest_size=16).digest()


def _best(rank: NDArray[Any], among: NDArray[np.bool_], count: int) -> Whole:
    """Where the ``count`` highest are, the first of equals first."""
    where = np.flatnonzero(among)
    return where[np.argsort(-rank[where], kind="stable")[:count]]


def _best_of_each(owner: Whole, overlap: NDArray[Any], positive: NDArray[np.bool_], count: int) -> Whole:
    """Of the windows of each object the ``count`` that overlap it most."""
    where = np.flatnonzero(positive)
    where = where[np.lexsort((-overlap[where], owner[where]))]
    place = np.arange(len(where)) - np.searchsorted(owner[where], owner[where])
    return where[place < count]
