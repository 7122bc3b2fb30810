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

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torso.boxes.candidates import candidates, first, rows
from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections

# Candidates settled together. Their overlaps are a matrix of B x BLOCK x BLOCK, which should stay in the cache.
BLOCK = 256

Carry = tuple[Tensor, ...]

__all__ = ["NMS", "SUPPRESSORS", "BatchedNMS", "Suppressor", "Threshold", "candidates"]


class Suppressor(Protocol):
    """The contract of this role."""

    max_detections: int

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        ...


class _Greedy(nn.Module):
    """Greedy non-maximum suppression; what is one group is said by ``per_class``."""

    per_class: ClassVar[bool]

    def __init__(self, overlap: float = 0.5, max_detections: int = 300):
        super().__init__()
        _check(max_detections, overlap)
        self.overlap, self.max_detections = overlap, max_detections
        self._overlap_float32 = _rounded_down(overlap)

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        boxes, scores, labels = _by_score(boxes, scores, labels)
        nothing = _padded(boxes[:, :0], scores[:, :0], labels[:, :0], self.max_detections)
        if scores.shape[1] <= BLOCK:
            return _detections(*self._extend(nothing, boxes, scores, labels))
        blocks = [_in_blocks(each) for each in (boxes, scores, labels)]  # [N, B, BLOCK, ...]
        count = blocks[1].shape[0]

        def more(done: Tensor, *found: Tensor) -> Tensor:
            rest = blocks[1].index_select(0, done.clamp(max=count - 1))[0]
            # Once every picture's answer is full or its candidates are at an end, the rest cannot matter.
            return (done < count).all() & ((found[1][:, -1] <= 0) & (rest[:, 0] > 0)).any()

        def extend(done: Tensor, *found: Tensor) -> Carry:
            return done + 1, *self._extend(found, *(each.index_select(0, done)[0] for each in blocks))

        start = torch.zeros(1, dtype=torch.int64, device=boxes.device)
        return _detections(*_loop(more, extend, (start, *nothing))[1:])

    def _extend(self, found: Carry, boxes: Tensor, scores: Tensor, labels: Tensor) -> Carry:
        """The answer so far, and a block of the next best candidates: the answer of both."""
        by_found = self._overlapping(boxes, labels, found[0], found[2])  # [B, S, D]; padding overlaps nothing
        alive = (scores > 0) & ~by_found.any(dim=-1)  # [B, S]
        within = self._overlapping(boxes, labels, boxes, labels)  # [B, S, S]
        alive = _fixed_point(within.tril(diagonal=-1), alive)
        offered = boxes, scores * alive, labels
        boxes, scores, labels = (torch.cat(both, dim=1) for both in zip(found, offered, strict=True))
        return _padded(boxes, scores, labels, self.max_detections)

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


class NMS(_Greedy):
    """Greedy non-maximum suppression over all classes: a box goes if a better one overlaps it by more than ``overlap``.

    Args:
        overlap: the largest IoU (0..1) that two boxes of the answer may have.
        max_detections: rows of the answer.

    Source: Histograms of Oriented Gradients for Human Detection, 2005; torchvision.ops.nms
    """

    per_class = False


class BatchedNMS(_Greedy):
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
        return _detections(*_padded(boxes, scores, labels, self.max_detections))

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"max_detections={self.max_detections}, score={self.score}"


def _by_score(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Stable: of equal scores the first stays the first, as in torchvision. NaN is no score.
    scores, order = torch.where(scores > 0, scores, 0.0).sort(dim=1, descending=True, stable=True)
    return rows(boxes, order), scores, labels.gather(1, order)


def _padded(boxes: Tensor, scores: Tensor, labels: Tensor, count: int) -> Carry:
    """The first ``count`` entries with a score, in their order, and zeros where there are fewer."""
    where = first(scores > 0, count)
    scores = F.pad(scores, (0, 1)).gather(1, where)  # index K is a row of zeros
    labels = F.pad(labels, (0, 1)).gather(1, where)
    return rows(F.pad(boxes, (0, 0, 0, 1)), where), scores, labels


def _detections(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    return Detections(boxes, scores, labels, scores > 0)


def _in_blocks(values: Tensor) -> Tensor:
    """``[B, K, ...]`` padded with zeros, as ``[N, B, BLOCK, ...]``."""
    batch, count = values.shape[:2]  # not len(): under torch.export that would be a constant
    padding = values.new_zeros(batch, -count % BLOCK, *values.shape[2:])
    return torch.cat([values, padding], dim=1).reshape(batch, -1, BLOCK, *values.shape[2:]).transpose(0, 1)


def _fixed_point(beats: Tensor, alive: Tensor) -> Tensor:
    """Greedy suppression: ``beats[b, i, j]`` says that box i cannot stay if box j does; ``alive [B, S]`` takes part."""

    def settle(now: Tensor) -> Tensor:
        return alive & ~(beats & now.unsqueeze(1)).any(dim=-1)

    def changed(before: Tensor, after: Tensor) -> Tensor:
        return (before ^ after).any()

    return _loop(changed, lambda before, after: (after, settle(after)), (alive, settle(alive)))[1]


def _loop(more: Callable[..., Tensor], step: Callable[..., Carry], carry: Carry) -> Carry:
    """``carry = step(*carry)`` while ``more(*carry)``: in Python, or as one node of a graph that is being traced."""
    if not torch.compiler.is_compiling():
        while more(*carry):
            carry = step(*carry)
        return carry
    from torch._higher_order_ops.while_loop import while_loop

    def fresh(*now: Tensor) -> Carry:
        return tuple(each.clone() for each in step(*now))  # a traced loop must not return what it was given

    looped: Carry = while_loop(more, fresh, tuple(each.clone() for each in carry))  # type: ignore[no-untyped-call]
    return looped


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
