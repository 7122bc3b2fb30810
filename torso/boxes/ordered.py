"""What suppressors share: candidates in the order of their scores, answers of fixed size, loops that export.

Source: own design.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from torso.boxes.candidates import first, rows
from torso.structures import Detections

Carry = tuple[Tensor, ...]


def by_score(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three in the order of falling scores; what is not above 0 comes last, with score 0 and a box of zeros."""
    # Stable: of equal scores the first stays the first, as in torchvision. NaN is no score.
    scores, order = torch.where(scores > 0, scores, 0.0).sort(dim=1, descending=True, stable=True)
    return torch.where(scores.unsqueeze(-1) > 0, rows(boxes, order), 0.0), scores, labels.gather(1, order)


def padded(boxes: Tensor, scores: Tensor, labels: Tensor, count: int) -> Carry:
    """The first ``count`` entries with a score, in their order, and zeros where there are fewer."""
    where = first(scores > 0, count)
    scores = F.pad(scores, (0, 1)).gather(1, where)  # index K is a row of zeros
    labels = F.pad(labels, (0, 1)).gather(1, where)
    return rows(F.pad(boxes, (0, 0, 0, 1)), where), scores, labels


def answer(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    """Detections of rows that are sorted and padded already."""
    return Detections(boxes, scores, labels, scores > 0)


def again_by_score(boxes: Tensor, scores: Tensor, labels: Tensor, count: int) -> Detections:
    """The ``count`` best of entries whose scores were changed."""
    return answer(*padded(*by_score(boxes, scores, labels), count))


def picked(boxes: Tensor, scores: Tensor, labels: Tensor, where: Tensor) -> Detections:
    """Rows ``where [B, D]`` of the candidates; index K is padding."""
    scores = F.pad(scores, (0, 1)).gather(1, where)
    labels = F.pad(labels, (0, 1)).gather(1, where)
    return answer(rows(F.pad(boxes, (0, 0, 0, 1)), where), scores, labels)


def in_blocks(values: Tensor, size: int) -> Tensor:
    """``[B, K, ...]`` padded with zeros, as ``[N, B, size, ...]``."""
    batch, count = values.shape[:2]  # not len(): under torch.export that would be a constant
    padding = values.new_zeros(batch, -count % size, *values.shape[2:])
    return torch.cat([values, padding], dim=1).reshape(batch, -1, size, *values.shape[2:]).transpose(0, 1)


def finite(boxes: Tensor) -> Tensor:
    """Boxes for a weighted mean: in a product with a weight of 0, what is not finite would be NaN for all."""
    return torch.where(boxes.isfinite(), boxes, 0.0)


def same_class(labels: Tensor, others: Tensor) -> Tensor:
    """``[B, N]`` and ``[B, M]`` to ``[B, N, M]``.

    Shifting each class to its own place, as is usual, rounds the coordinates and so the overlaps.
    """
    return labels.unsqueeze(2) == others.unsqueeze(1)


def repeat_while(more: Callable[..., Tensor], step: Callable[..., Carry], carry: Carry) -> Carry:
    """``carry = step(*carry)`` while ``more(*carry)``: in Python, or as one node of a graph that is being traced."""
    if not torch.compiler.is_compiling():
        if carry[0].is_meta:  # there are no numbers to look at; one round has the shapes of all
            return step(*carry)
        while more(*carry):
            carry = step(*carry)
        return carry
    from torch._higher_order_ops.while_loop import while_loop

    def fresh(*now: Tensor) -> Carry:
        return tuple(each.clone() for each in step(*now))  # a traced loop must not return what it was given

    looped: Carry = while_loop(more, fresh, tuple(each.clone() for each in carry))  # type: ignore[no-untyped-call]
    return looped


def rounded_down(limit: float) -> float:
    """The largest float32 not above ``limit``: comparing a float32 with it is comparing it with the real number."""
    near = np.float32(limit)  # not a tensor: parts are also built on the meta device
    return float(near if float(near) <= limit else np.nextafter(near, np.float32(-np.inf)))


class Above:
    """Where overlaps are larger than the number that was typed; made before a graph is traced."""

    def __init__(self, limit: float):
        self.limit, self.limit_float32 = limit, rounded_down(limit)

    def __call__(self, overlap: Tensor) -> Tensor:
        """Overlaps of any shape to bool."""
        return overlap > (self.limit if overlap.dtype == torch.float64 else self.limit_float32)


def precise(boxes: Tensor) -> Tensor:
    """Overlaps of boxes in less than float32 would be noise."""
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def check(max_detections: int, **shares: float) -> None:
    """Refuse senseless arguments.

    Raises:
        ValueError: no row of answer, or a share outside 0..1.
    """
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is a share in 0..1, got {share}")
