"""The same answers sooner, where the numbers lie in the processor's own memory: of many candidates few are looked at.

Only the best candidates decide: they are chosen before they are sorted, and an overlap is computed only for two boxes
that touch. Neither has a fixed size, so what is exported, compiled, or runs on an accelerator does the same over all
candidates at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Measure = Callable[[Tensor, Tensor], Tensor]


def at_hand(*tensors: Tensor) -> bool:
    """Whether numbers can be looked at one by one: not while a graph is traced, nor on an accelerator."""
    return not torch.compiler.is_compiling() and all(
        each.device.type == "cpu" and each.dtype is not torch.bfloat16 for each in tensors
    )


class Ranking:
    """Candidates of one picture, best first and of equals the first; sorted only as far as somebody looks.

    Args:
        scores: ``[K]``; what is not above 0 is no candidate.
        start: how many are sorted at first.
    """

    def __init__(self, scores: Tensor, start: int):
        plain = scores.detach().numpy()
        self._rows = np.flatnonzero(plain > 0)
        self._scores = plain[self._rows]
        self.order = np.empty(0, dtype=np.int64)
        self.left = len(self._rows) > 0
        self.extend(start)

    def extend(self, count: int) -> None:
        """Sort at least the ``count`` best."""
        if not self.left:
            return
        self.left = count < len(self._rows)
        chosen = np.arange(len(self._rows))
        if self.left:  # all equals of the last one too
            chosen = np.flatnonzero(self._scores >= np.partition(self._scores, -count)[-count])
        self.order = self._rows[chosen[np.argsort(-self._scores[chosen], kind="stable")]]

    def next(self, start: int, count: int) -> Array:
        """Ranks ``start..start + count`` as rows of the candidates; fewer at the end."""
        if start + count > len(self.order):
            self.extend(4 * (start + count))
        return self.order[start : start + count]


def highest(values: Array, count: int) -> Array:
    """Where the ``count`` highest are, of equals the first, in their own order."""
    if len(values) <= count:
        return np.arange(len(values))
    last = np.partition(values, -count)[-count]
    above = values > last
    above[np.flatnonzero(values == last)[: count - np.count_nonzero(above)]] = True
    return np.flatnonzero(above)


def touching(boxes: Array, labels: Array | None) -> tuple[Array, Array]:
    """The pairs (i, j), i < j, of rows of ``boxes [N, 4]`` that share some area and, if told, their class.

    A sweep from left to right: a box meets those whose left edges lie between its own two. Where classes count, each
    is shifted to a place of its own first; that rounds, but monotonically, so no pair is lost.
    """
    left, top, right, bottom = boxes.T
    if labels is not None:
        with np.errstate(invalid="ignore"):  # edges at infinity give NaN, which sorts to the end: pairs too many
            shift = labels * (np.float64(right.max(initial=0)) - left.min(initial=0) + 1)
            left, right = left + shift, right + shift
    order, after = np.argsort(left), np.arange(1, len(left) + 1)
    top, bottom = top[order], bottom[order]
    count = np.maximum(np.searchsorted(left[order], right[order], side="right") - after, 0)
    other = np.arange(count.sum()) + np.repeat(after - np.cumsum(count) + count, count)
    # Most pairs end here: what is repeated comes in order, which is quicker than looking it up.
    shared = np.flatnonzero((np.repeat(top, count) < bottom[other]) & (top[other] < np.repeat(bottom, count)))
    one, other = order[np.repeat(after - 1, count)[shared]], order[other[shared]]
    if labels is not None:
        same = labels[one] == labels[other]
        one, other = one[same], other[same]
    return np.minimum(one, other), np.maximum(one, other)


def greedy_rows(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, most: int, overlapping: Callable[[Tensor, Tensor], Tensor]
) -> list[int]:
    """The rows that greedy suppression keeps in one picture, best first, at most ``most``.

    Args:
        boxes: ``[K, 4]``.
        scores: ``[K]``; padding is 0.
        labels: ``[K]``, where boxes of other classes leave each other alone.
        most: rows of the answer.
        overlapping: says of boxes ``[P, 1, 4]`` and ``[P, 1, 4]`` which exclude each other; boxes that share no area
            must not.
    """
    boxes = boxes.detach()
    plain, classes = boxes.numpy(), None if labels is None else labels.numpy()
    block = max(256, most + most // 4)
    ranking, kept, start = Ranking(scores, block), np.empty(0, dtype=np.int64), 0
    while len(kept) < most:
        fresh = ranking.next(start, block)
        if not len(fresh):
            break
        start += len(fresh)
        known, among = len(kept), np.concatenate([kept, fresh])  # in the order of their scores
        better, worse = touching(plain[among], None if classes is None else classes[among])
        new = worse >= known
        better, worse = better[new], worse[new]
        hit = overlapping(paired(boxes, among[better]), paired(boxes, among[worse])).flatten().numpy()
        kept = among[_staying(better[hit], worse[hit], len(among))]
    return kept[:most].tolist()  # type: ignore[no-any-return]


def paired(boxes: Tensor, index: Array) -> Tensor:
    """Rows of ``boxes [K, 4]``, as ``[P, 1, 4]``: measures of all pairs then take them row by row."""
    return boxes[torch.from_numpy(index)].unsqueeze(-2)


def _staying(better: Array, worse: Array, count: int) -> Array:
    """Of ranks 0..count those that stay, where a rank that stays excludes its ``worse`` ones."""
    order = np.argsort(better, kind="stable")
    stays = bytearray(b"\1") * count  # a list of bytes is read and written quicker than an array, one at a time
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if stays[one]:
            stays[other] = 0
    return np.flatnonzero(np.frombuffer(stays, dtype=np.uint8))
