"""Soft-NMS: a box that a better one overlaps is not removed, its score falls.

Scores only fall, so the next box of the answer is among those whose last known score is highest: where numbers are at
hand, only these are brought up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torso.boxes.candidates import rows
from torso.boxes.ordered import Above, Carry, by_score, check, picked, precise, repeat_while, same_class
from torso.boxes.overlap import pairwise_iou
from torso.boxes.prefix import Array, Ranking, at_hand, highest, paired, touching
from torso.structures import Detections

# Candidates whose scores are kept up to date together; the factors between them are a matrix of ACTIVE x ACTIVE.
ACTIVE = 384


class SoftNMS(nn.Module):
    """Soft non-maximum suppression: each box of the answer, best first, lowers the scores of those that it overlaps.

    ``gaussian`` multiplies them by ``exp(-IoU^2 / sigma)``; ``linear`` by ``1 - IoU`` where the IoU is more than
    ``overlap``. The answer's scores are the lowered ones; of equal ones the box that was better at first comes first.

    Args:
        method: how scores fall.
        overlap: of ``linear``: the IoU (0..1) above which they do.
        sigma: of ``gaussian``: the width of the bell, above 0.
        score: a box whose score is not above this (0..1) is dropped.
        max_detections: rows of the answer, over all classes.
        per_class: boxes of different classes leave each other alone.

    Raises:
        ValueError: an argument outside its range, or an unknown method.

    Source: Soft-NMS -- Improving Object Detection With One Line of Code, 2017, arXiv:1704.04503
    """

    def __init__(
        self,
        method: Literal["gaussian", "linear"] = "gaussian",
        overlap: float = 0.3,
        sigma: float = 0.5,
        score: float = 0.001,
        max_detections: int = 300,
        *,
        per_class: bool = True,
    ):
        super().__init__()
        check(max_detections, overlap=overlap, score=score)
        if method not in ("gaussian", "linear"):
            raise ValueError(f"method is gaussian or linear, got {method!r}")
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        self.above = Above(overlap)
        self.method, self.overlap, self.sigma, self.score = method, overlap, sigma, score
        self.max_detections, self.per_class = max_detections, per_class

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        if at_hand(boxes, scores, labels):
            where, found = self._one_by_one(boxes, scores, labels)
        else:
            boxes, scores, labels = by_score(boxes, scores, labels)
            where, found = self._together(boxes, scores, labels)
        kept = picked(boxes, scores, labels, where)
        return kept._replace(scores=found)

    def _together(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of sorted candidates that are the answer (K: none), and their scores; a round takes one a picture."""
        batch, count = scores.shape
        boxes, labels = (F.pad(precise(boxes), (0, 0, 0, 1)), F.pad(labels, (0, 1)))  # there is always a row to take
        now = F.pad(torch.where(scores > self.score, scores, 0.0), (0, 1))
        rank = torch.arange(count + 1, device=scores.device)
        column = torch.arange(self.max_detections, device=scores.device)

        def more(done: Tensor, now: Tensor, _where: Tensor, _found: Tensor) -> Tensor:
            return (done < self.max_detections).all() & (now > 0).any()

        def take(done: Tensor, now: Tensor, where: Tensor, found: Tensor) -> Carry:
            best = now.amax(dim=1, keepdim=True)  # [B, 1]
            at = torch.where(now == best, rank, count).amin(dim=1, keepdim=True)  # the first of equals
            at = torch.where(best > 0, at, count)
            factor = self.factor(pairwise_iou(rows(boxes, at), boxes)[:, 0])  # [B, K + 1]
            if self.per_class:
                factor = torch.where(same_class(labels.gather(1, at), labels)[:, 0], factor, 1.0)
            now = torch.where(rank == at, 0.0, now * factor)
            now = torch.where(now > self.score, now, 0.0)
            here = column == done
            return done + 1, now, torch.where(here, at, where), torch.where(here, best, found)

        found = scores.new_zeros(batch, self.max_detections)
        where = torch.full_like(found, count, dtype=torch.int64)
        start = torch.zeros(1, dtype=torch.int64, device=scores.device)
        where, found = repeat_while(more, take, (start, now, where, found))[2:]
        return where, found

    def _one_by_one(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The same of candidates in any order, with numbers at hand."""
        batch, count = scores.shape
        found = scores.new_zeros(batch, self.max_detections)
        where = torch.full_like(found, count, dtype=torch.int64)
        for i in range(batch):
            classes = labels[i].numpy() if self.per_class else None
            kept, lowered = soft_rows(
                precise(boxes[i]), scores[i], classes, self.max_detections, self.score, self.factor
            )
            where[i, : len(kept)], found[i, : len(kept)] = torch.from_numpy(kept), torch.from_numpy(lowered)
        return where, found

    def factor(self, overlap: Tensor) -> Tensor:
        """From IoU to the factor of a score; 1 where nothing is shared."""
        if self.method == "gaussian":
            return torch.exp(-overlap.square() / self.sigma)
        return 1 - overlap * self.above(overlap)

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        shape = f"sigma={self.sigma}" if self.method == "gaussian" else f"overlap={self.overlap}"
        return f"{self.method}, {shape}, score={self.score}, max_detections={self.max_detections}"


def soft_rows(
    boxes: Tensor, scores: Tensor, labels: Array | None, most: int, floor: float, factor: Callable[[Tensor], Tensor]
) -> tuple[Array, Array]:
    """The rows that soft suppression keeps in one picture, best first, and their lowered scores.

    Of all candidates a last score is known, which can only fall. The ``ACTIVE`` highest are brought up to date and stay
    so while boxes are taken; when all others might be better than the best of these, the next ones are chosen.

    Args:
        boxes: ``[K, 4]``.
        scores: ``[K]``; padding is 0.
        labels: ``[K]``, where boxes of other classes leave each other alone.
        most: rows of the answer.
        floor: what a score has to exceed.
        factor: of a score, from an IoU.
    """
    boxes, plain = boxes.detach(), scores.detach().numpy()
    ranking = Ranking(scores, 2 * ACTIVE)
    known = plain[ranking.order]  # by rank, as all that follows
    since = np.zeros(len(known), dtype=np.int64)  # how many boxes of the answer a known score takes into account
    kept = np.empty(0, dtype=np.int64)
    found: list[float] = []
    while len(kept) < most:
        while ranking.left and not (
            len(known) > ACTIVE and np.partition(known, -ACTIVE)[-ACTIVE] >= plain[ranking.order[-1]]
        ):
            ranking.extend(4 * len(ranking.order))
            more = ranking.order[len(known) :]
            known, since = np.append(known, plain[more]), np.append(since, np.zeros(len(more), dtype=np.int64))
        chosen = highest(known, ACTIVE)
        rest = known.copy()
        rest[chosen] = 0
        limit, first = (float(rest.max()), int(rest.argmax())) if len(rest) else (0.0, 0)
        if ranking.left and limit < plain[ranking.order[-1]]:
            limit, first = float(plain[ranking.order[-1]]), len(known)
        now, factors = _up_to_date(boxes, labels, ranking.order, kept, chosen, known[chosen], since[chosen], factor)
        taken, values = _taken(
            now, factors, chosen, most - len(kept), max(limit, floor), first if limit > floor else -1
        )
        known[chosen], since[chosen] = now, len(kept) + len(taken)
        kept, found = np.append(kept, chosen[taken]), found + values
        if not taken and limit <= floor:
            break
    return ranking.order[kept], np.array(found, dtype=plain.dtype)


def _up_to_date(
    boxes: Tensor,
    labels: Array | None,
    order: Array,
    kept: Array,
    chosen: Array,
    known: Array,
    since: Array,
    factor: Callable[[Tensor], Tensor],
) -> tuple[Array, Array]:
    """The scores of the ``chosen`` ranks after all ``kept`` ones, and the factors between them ``[A, A]``."""
    start = int(since.min(initial=len(kept)))
    among = order[np.concatenate([kept[start:], chosen])]
    count = len(kept) - start
    better, worse = touching(boxes.numpy()[among], None if labels is None else labels[among])
    # Pairs between the chosen, and of a kept one with those that do not know of it yet.
    both = better >= count
    wanted = both | (better + start >= np.append(np.full(count, len(kept)), since)[worse])
    better, worse, both = better[wanted], worse[wanted], both[wanted]
    overlap = pairwise_iou(paired(boxes, among[better]), paired(boxes, among[worse]))
    better, worse, value = better - count, worse - count, factor(overlap).flatten().numpy()
    in_turn = np.flatnonzero(~both)[np.argsort(better[~both], kind="stable")]  # products are rounded in this order
    now = known.copy()
    np.multiply.at(now, worse[in_turn], value[in_turn])
    factors = np.ones((len(chosen), len(chosen)), dtype=now.dtype)
    better, worse, value = better[both], worse[both], value[both]
    factors[better, worse] = factors[worse, better] = value
    return now, factors


def _taken(
    now: Array, factors: Array, ranks: Array, most: int, limit: float, first: int
) -> tuple[list[int], list[float]]:
    """Take the best and lower the others, until that of rank ``first`` with the score ``limit`` might be better."""
    taken: list[int] = []
    values: list[float] = []
    alone = (factors == 1).all(axis=1).tolist()
    while len(taken) < most and len(now):
        at = int(now.argmax())
        value = float(now[at])
        if value < limit or (value == limit and ranks[at] > first):
            break
        taken.append(at)
        values.append(value)
        if not alone[at]:
            now *= factors[at]
        now[at] = 0
    return taken, values
