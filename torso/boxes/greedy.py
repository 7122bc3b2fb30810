"""Greedy non-maximum suppression: within each class, over all classes, and by DIoU.

It is written as a fixed point, because its loop over boxes would neither batch nor export: of boxes sorted by score, a
box stays if no earlier box that stays beats it. Starting with all boxes alive and applying that sentence to all of them
at once, the first t boxes are settled for good after t rounds; in practice a few rounds settle all. The answer is the
greedy one, exactly. Where numbers are at hand `torso.boxes.prefix` finds the same answer with fewer of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.boxes.ordered import (
    Above,
    Carry,
    answer,
    by_score,
    check,
    in_blocks,
    padded,
    picked,
    precise,
    repeat_while,
    same_class,
)
from torso.boxes.overlap import pairwise_diou, pairwise_iou
from torso.boxes.prefix import Measure, at_hand, greedy_rows
from torso.structures import Detections

# Candidates settled together. Their overlaps are a matrix of B x BLOCK x BLOCK, which should stay in the cache.
BLOCK = 256


class Greedy(nn.Module):
    """The greedy suppressor of any measure of overlap that is at most 0 for boxes that share nothing.

    Args:
        measure: ``[..., N, 4]`` and ``[..., M, 4]`` to overlaps ``[..., N, M]``.
        overlap: the largest overlap that two boxes of the answer may have, 0..1.
        max_detections: rows of the answer.
        per_class: boxes of different classes leave each other alone.
    """

    def __init__(self, measure: Measure, overlap: float, max_detections: int, per_class: bool):
        super().__init__()
        check(max_detections, overlap=overlap)
        self.measure, self.overlap, self.max_detections, self.per_class = measure, overlap, max_detections, per_class
        self.above = Above(overlap)

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        if at_hand(boxes, scores, labels):
            return picked(boxes, scores, labels, self._rows(boxes, scores, labels))
        boxes, scores, labels = by_score(boxes, scores, labels)
        nothing = padded(boxes[:, :0], scores[:, :0], labels[:, :0], self.max_detections)
        if scores.shape[1] <= BLOCK:
            return answer(*self._extend(nothing, boxes, scores, labels))
        blocks = [in_blocks(each, BLOCK) for each in (boxes, scores, labels)]  # [N, B, BLOCK, ...]
        count = blocks[1].shape[0]

        def more(done: Tensor, *found: Tensor) -> Tensor:
            rest = blocks[1].index_select(0, done.clamp(max=count - 1))[0]
            # Once every picture's answer is full or its candidates are at an end, the rest cannot matter.
            return (done < count).all() & ((found[1][:, -1] <= 0) & (rest[:, 0] > 0)).any()

        def extend(done: Tensor, *found: Tensor) -> Carry:
            return done + 1, *self._extend(found, *(each.index_select(0, done)[0] for each in blocks))

        start = torch.zeros(1, dtype=torch.int64, device=boxes.device)
        return answer(*repeat_while(more, extend, (start, *nothing))[1:])

    def _rows(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Which candidates are the answer, ``[B, max_detections]``; K where there are fewer."""
        batch, count = scores.shape
        where = torch.full((batch, self.max_detections), count)
        for i in range(batch):
            classes = labels[i] if self.per_class else None
            found = greedy_rows(precise(boxes[i]), scores[i], classes, self.max_detections, self._excludes)
            where[i, : len(found)] = torch.tensor(found, dtype=torch.int64)
        return where

    def _extend(self, found: Carry, boxes: Tensor, scores: Tensor, labels: Tensor) -> Carry:
        """The answer so far, and a block of the next best candidates: the answer of both."""
        by_found = self._overlapping(boxes, labels, found[0], found[2])  # [B, S, D]; padding overlaps nothing
        alive = (scores > 0) & ~by_found.any(dim=-1)  # [B, S]
        within = self._overlapping(boxes, labels, boxes, labels)  # [B, S, S]
        alive = settled(within.tril(diagonal=-1), alive)
        offered = boxes, scores * alive, labels
        boxes, scores, labels = (torch.cat(both, dim=1) for both in zip(found, offered, strict=True))
        return padded(boxes, scores, labels, self.max_detections)

    def _overlapping(self, boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
        over = self._excludes(precise(boxes), precise(others))
        return over & same_class(labels, other_labels) if self.per_class else over

    def _excludes(self, boxes: Tensor, others: Tensor) -> Tensor:
        return self.above(self.measure(boxes, others))

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"overlap={self.overlap}, max_detections={self.max_detections}"


class NMS(Greedy):
    """Greedy non-maximum suppression over all classes: a box goes if a better one overlaps it by more than ``overlap``.

    Args:
        overlap: the largest IoU (0..1) that two boxes of the answer may have.
        max_detections: rows of the answer.

    Source: Histograms of Oriented Gradients for Human Detection, 2005; torchvision.ops.nms
    """

    def __init__(self, overlap: float = 0.5, max_detections: int = 300):
        super().__init__(pairwise_iou, overlap, max_detections, per_class=False)


class BatchedNMS(Greedy):
    """Greedy non-maximum suppression within each class: boxes of different classes never touch each other.

    Args:
        overlap: the largest IoU (0..1) that two boxes of one class in the answer may have.
        max_detections: rows of the answer, over all classes.

    Source: torchvision.ops.batched_nms
    """

    def __init__(self, overlap: float = 0.5, max_detections: int = 300):
        super().__init__(pairwise_iou, overlap, max_detections, per_class=True)


class DIoUNMS(Greedy):
    """Greedy suppression by DIoU: of two boxes that overlap, those with centres far apart are two objects.

    DIoU is the IoU less the squared distance of the centres over that of the far corners of both boxes; with equal
    centres it is `NMS`.

    Args:
        overlap: the largest DIoU (0..1) that two boxes of the answer may have.
        max_detections: rows of the answer, over all classes.
        per_class: boxes of different classes leave each other alone.

    Source: Distance-IoU Loss, 2019, arXiv:1911.08287
    """

    def __init__(self, overlap: float = 0.5, max_detections: int = 300, per_class: bool = True):
        super().__init__(pairwise_diou, overlap, max_detections, per_class)


def settled(beats: Tensor, alive: Tensor) -> Tensor:
    """Greedy suppression: ``beats[b, i, j]`` says that box i cannot stay if box j does; ``alive [B, S]`` takes part."""

    def settle(now: Tensor) -> Tensor:
        return alive & ~(beats & now.unsqueeze(1)).any(dim=-1)

    def changed(before: Tensor, after: Tensor) -> Tensor:
        return (before ^ after).any()

    return repeat_while(changed, lambda before, after: (after, settle(after)), (alive, settle(alive)))[1]
