"""Suppression: from many scored boxes to the few that are the answer, with fixed sizes so that it exports.

A suppressor is called with ``boxes [B, K, 4]`` (``xyxy``), ``scores [B, K]`` and ``labels [B, K]``, in any order; an
entry whose score is not above 0 is padding. It returns ``Detections`` of ``max_detections`` rows. ``candidates`` makes
its input.

Greedy non-maximum suppression is written as a fixed point, because its loop over boxes would neither batch nor export:
of boxes sorted by score, a box stays if no earlier box that stays beats it. Starting with all boxes alive and applying
that sentence to all of them at once, the first t boxes are settled for good after t rounds; in practice a few rounds
settle all. The answer is the greedy one, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections

# Candidates settled together: their overlaps are a matrix of B x BLOCK x BLOCK, whatever the number of candidates.
BLOCK = 1024


class Suppressor(Protocol):
    """The contract of this role."""

    max_detections: int

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        ...


class NMS(nn.Module):
    """Greedy non-maximum suppression over all classes: a box goes if a better one overlaps it by more than ``overlap``.

    Args:
        overlap: the largest IoU (0..1) that two boxes of the answer may have.
        max_detections: rows of the answer.

    Source: Histograms of Oriented Gradients for Human Detection, 2005; torchvision.ops.nms
    """

    per_class = False

    def __init__(self, overlap: float = 0.5, max_detections: int = 300):
        super().__init__()
        _check(max_detections, overlap)
        self.overlap, self.max_detections = overlap, max_detections
        self._overlap_float32 = _rounded_down(overlap)

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        boxes, scores, labels = _by_score(boxes, scores, labels)
        found = _padded(boxes[:, :0], scores[:, :0], labels[:, :0], self.max_detections)
        for start in range(0, boxes.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            if not torch.compiler.is_compiling() and _settled(found, scores[:, block]):
                break  # every picture's answer is full or its candidates are at an end: saves most of the work
            found = self._extend(found, boxes[:, block], scores[:, block], labels[:, block])
        return found

    def _extend(self, found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer so far, and a block of the next best candidates: the answer of both."""
        by_found = self._overlapping(boxes, labels, found.boxes, found.labels)  # [B, S, D]; padding overlaps nothing
        alive = (scores > 0) & ~by_found.any(dim=-1)  # [B, S]
        within = self._overlapping(boxes, labels, boxes, labels)  # [B, S, S]
        alive = _fixed_point(within.tril(diagonal=-1), alive)
        return _padded(
            torch.cat([found.boxes, boxes], dim=1),
            torch.cat([found.scores, scores * alive], dim=1),
            torch.cat([found.labels, labels], dim=1),
            self.max_detections,
        )

    def _overlapping(self, boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
        if boxes.dtype == torch.float64:
            over = pairwise_iou(boxes, others) > self.overlap
        else:
            over = pairwise_iou(boxes.float(), others.float()) > self._overlap_float32
        if self.per_class:
            # Shifting each class to its own place, as is usual, rounds the coordinates and so the overlaps.
            over = over & (labels.unsqueeze(2) == other_labels.unsqueeze(1))
        return over

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"overlap={self.overlap}, max_detections={self.max_detections}"


class BatchedNMS(NMS):
    """Greedy non-maximum suppression within each class: boxes of different classes never touch each other.

    Args:
        overlap: the largest IoU (0..1) that two boxes of one class in the answer may have.
        max_detections: rows of the answer, over all classes.

    Source: torchvision.ops.batched_nms
    """

    per_class = True


class Threshold(nn.Module):
    """No suppression: the ``max_detections`` best boxes with a score above ``score``.

    Args:
        max_detections: rows of the answer.
        score: what a score (0..1) has to exceed.

    Source: own design.
    """

    def __init__(self, max_detections: int = 300, score: float = 0.0):
        super().__init__()
        _check(max_detections, score)
        self.max_detections, self.score = max_detections, score

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        boxes, scores, labels = _by_score(boxes, torch.where(scores > self.score, scores, 0.0), labels)
        return _padded(boxes, scores, labels, self.max_detections)

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"max_detections={self.max_detections}, score={self.score}"


def candidates(
    scores: Tensor,
    boxes: Tensor,
    counts: Sequence[int],
    threshold: float = 0.05,
    topk: int = 1000,
    total: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best (prior, class) pairs of each level, as a fixed number of boxes: the input of a suppressor.

    Of equal scores the first in memory wins, so the choice is the same in every runtime.

    Args:
        scores: ``[B, P, C]`` in 0..1.
        boxes: ``[B, P, 4]`` decoded boxes.
        counts: priors of each level; sums to P.
        threshold: what a score has to exceed.
        topk: pairs kept of each level.
        total: pairs kept of all levels together; None keeps ``topk`` of each.

    Returns:
        ``boxes [B, K, 4]``, ``scores [B, K]``, ``labels [B, K]`` with K = levels * topk (or ``total`` if that is
        fewer). Padding has score 0.
    """
    levels = [
        _best_pairs(level_scores, level_boxes, threshold, topk)
        for level_scores, level_boxes in zip(
            torch.split(scores, list(counts), 1), torch.split(boxes, list(counts), 1), strict=True
        )
    ]
    found = [torch.cat(part, dim=1) for part in zip(*levels, strict=True)]
    if total is not None and total < topk * len(levels):
        keep = best(found[1], total)
        found = [_rows(found[0], keep), found[1].gather(1, keep), found[2].gather(1, keep)]
    return found[0], found[1], found[2]


def _best_pairs(scores: Tensor, boxes: Tensor, threshold: float, topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """``candidates`` of one level: ``[B, topk, 4]``, ``[B, topk]``, ``[B, topk]``."""
    _, priors, classes = scores.shape
    # The best pairs lie at the best priors: looking at these alone, the large tensor is read only once.
    # Padding first: the level of a small picture may hold fewer than topk priors, and sizes must not depend on it.
    prior = best(F.pad(scores.amax(dim=-1), (0, topk)), topk)  # [B, topk]
    real = prior < priors
    prior = prior.clamp(max=priors - 1)
    pairs = _rows(scores, prior)  # [B, topk, C]
    pairs = torch.where(real.unsqueeze(-1) & (pairs > threshold), pairs, 0.0).flatten(1)
    pair = best(pairs, topk)  # [B, topk]
    return _rows(boxes, prior.gather(1, pair // classes)), pairs.gather(1, pair), pair % classes


def best(scores: Tensor, topk: int) -> Tensor:
    """Where the ``topk`` largest of ``scores [B, N]`` are, by memory, the first of equals winning: ``[B, topk]``."""
    last = scores.topk(topk, dim=1).values[:, -1:]  # topk alone takes any of equals
    above, equal = scores > last, scores == last
    room = topk - above.sum(dim=1, keepdim=True)
    return first(above | (equal & (equal.cumsum(dim=1) <= room)), topk)


def first(mask: Tensor, count: int) -> Tensor:
    """Where the first ``count`` True of ``mask [B, N]`` are: ``[B, count]``; N where there are fewer."""
    batch, length = mask.shape
    place = (mask.cumsum(dim=1) - 1).where(mask, count).clamp(max=count)  # the last column takes what is not wanted
    where = torch.arange(length, device=mask.device).expand(batch, -1)
    return where.new_full((batch, count + 1), length).scatter(1, place, where)[:, :count]


def _by_score(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Stable: of equal scores the first stays the first, as in torchvision.
    scores, order = scores.clamp(min=0).sort(dim=1, descending=True, stable=True)
    return _rows(boxes, order), scores, labels.gather(1, order)


def _padded(boxes: Tensor, scores: Tensor, labels: Tensor, rows: int) -> Detections:
    """The first ``rows`` entries with a score, in their order, and zeros where there are fewer."""
    where = first(scores > 0, rows)
    scores = F.pad(scores, (0, 1)).gather(1, where)  # index K is a row of zeros
    labels = F.pad(labels, (0, 1)).gather(1, where)
    return Detections(_rows(F.pad(boxes, (0, 0, 0, 1)), where), scores, labels, scores > 0)


def _settled(found: Detections, rest: Tensor) -> bool:
    return bool((found.valid[:, -1] | (rest[:, 0] <= 0)).all())


def _fixed_point(beats: Tensor, alive: Tensor) -> Tensor:
    """Greedy suppression: ``beats[b, i, j]`` says that box i cannot stay if box j does; ``alive [B, S]`` takes part."""

    def settle(alive: Tensor) -> Tensor:
        return start & ~(beats & alive.unsqueeze(1)).any(dim=-1)

    start = alive
    if not torch.compiler.is_compiling():
        while not torch.equal(alive, after := settle(alive)):
            alive = after
        return alive
    from torch._higher_order_ops.while_loop import while_loop

    def changed(before: Tensor, after: Tensor) -> Tensor:
        return (before ^ after).any()

    def again(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        return after.clone(), settle(after)  # the loop must not return what it was given

    loop: tuple[Tensor, Tensor] = while_loop(changed, again, (start.clone(), settle(start)))  # type: ignore[no-untyped-call]
    return loop[1]


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """``values [B, N, D]`` at ``index [B, K]``: ``[B, K, D]``."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _rounded_down(limit: float) -> float:
    """The largest float32 not above ``limit``: comparing a float32 with it is comparing it with the real number."""
    near = np.float32(limit)  # not a tensor: parts are also built on the meta device
    return float(near if float(near) <= limit else np.nextafter(near, np.float32(-np.inf)))


def _check(max_detections: int, share: float) -> None:
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    if not 0 <= share <= 1:
        raise ValueError(f"overlap and score are shares in 0..1, got {share}")


SUPPRESSORS = {"nms": NMS, "batched_nms": BatchedNMS, "threshold": Threshold}
