"""From what a head says at every prior to a fixed number of candidates, and the choosing that takes.

Of equal scores the first in memory wins, everywhere here: ``topk`` leaves that open, and runtimes differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from torso.boxes.prefix import Array, at_hand, highest


def candidates(
    scores: Tensor,
    boxes: Tensor,
    counts: Sequence[int],
    threshold: float = 0.05,
    topk: int = 1000,
    total: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best (prior, class) pairs of each level, as a fixed number of boxes: the input of a suppressor.

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
    batch, _, classes = scores.shape
    if at_hand(scores, boxes):
        size = topk * len(counts) if total is None else min(total, topk * len(counts))
        levels = np.cumsum([count * classes for count in counts])[:-1]
        return _rows_of(
            scores, boxes, size, lambda flat, over: _best_of_levels(flat, over, levels, topk, size), threshold
        )
    # The best pairs lie at the best priors: with these alone, the large tensor is read only once.
    prior, real = _best_priors(scores.amax(dim=-1), counts, topk)  # [B, L * topk]
    pairs = rows(scores, prior)  # [B, L * topk, C]
    pairs = torch.where(real.unsqueeze(-1) & (pairs > threshold), pairs, 0.0).reshape(-1, topk * classes)  # [B * L, ..]
    pair = best(pairs, topk)  # [B * L, topk]
    prior = prior.reshape(-1, topk).gather(1, pair // classes).reshape(batch, -1)
    found = rows(boxes, prior), pairs.gather(1, pair).reshape(batch, -1), (pair % classes).reshape(batch, -1)
    if total is None or total >= topk * len(counts):
        return found
    keep = best(found[1], total)
    return rows(found[0], keep), found[1].gather(1, keep), found[2].gather(1, keep)


def candidates_of_classes(
    scores: Tensor, boxes: Tensor, threshold: float = 0.01, topk: int = 400
) -> tuple[Tensor, Tensor, Tensor]:
    """The best priors of each class, whatever their level: SSD's input of a suppressor.

    Args:
        scores: ``[B, P, C]`` in 0..1.
        boxes: ``[B, P, 4]`` decoded boxes.
        threshold: what a score has to exceed.
        topk: priors kept of each class.

    Returns:
        as `candidates`, with K = C * topk.
    """
    batch, priors, classes = scores.shape
    if at_hand(scores, boxes):
        size = classes * topk
        return _rows_of(scores, boxes, size, lambda flat, over: _best_of_classes(flat, over, classes, topk), threshold)
    scores = torch.where(scores > threshold, scores, 0.0).transpose(1, 2).reshape(batch * classes, -1)  # [B * C, P]
    padded = F.pad(scores, (0, topk))  # a small picture may have fewer than topk priors; sizes must not depend on it
    place = best(padded, topk)  # [B * C, topk]
    found = padded.gather(1, place).reshape(batch, -1)
    labels = torch.arange(classes, device=scores.device)[:, None].expand(-1, topk).reshape(1, -1).expand(batch, -1)
    return rows(boxes, place.clamp(max=priors - 1).reshape(batch, -1)), found, labels


def _rows_of(
    scores: Tensor, boxes: Tensor, size: int, choose: Callable[[Array, Array], Array], threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with numbers at hand: few pairs of a trained network exceed the threshold, so only these are looked at.

    ``choose`` takes the scores ``[P * C]`` of a picture and where those above the threshold are, and leaves some.
    """
    batch, _, classes = scores.shape
    found = boxes.new_zeros(batch, size, boxes.shape[-1]), scores.new_zeros(batch, size)
    labels = torch.zeros(batch, size, dtype=torch.int64)
    for i in range(batch):
        flat = scores[i].reshape(-1)
        plain = flat.detach().numpy()
        pair = torch.from_numpy(choose(plain, np.flatnonzero(plain > threshold)))
        found[0][i, : len(pair)] = boxes[i, pair // classes]
        found[1][i, : len(pair)] = flat[pair]
        labels[i, : len(pair)] = pair % classes
    return *found, labels


def _best_of_levels(flat: Array, over: Array, levels: Array, topk: int, total: int) -> Array:
    chosen = [each[highest(flat[each], topk)] for each in np.split(over, np.searchsorted(over, levels))]
    together = np.concatenate(chosen)
    return together[highest(flat[together], total)]


def _best_of_classes(flat: Array, over: Array, classes: int, topk: int) -> Array:
    label = over % classes
    over = over[np.argsort(label, kind="stable")]
    each_class = np.split(over, np.cumsum(np.bincount(label, minlength=classes))[:-1])
    return np.concatenate([each[highest(flat[each], topk)] for each in each_class])


def _best_priors(peaks: Tensor, counts: Sequence[int], topk: int) -> tuple[Tensor, Tensor]:
    """The ``topk`` best priors of each level by ``peaks [B, P]``: ``[B, L * topk]``, and which of them are real."""
    found, start = [], 0
    for count, level in zip(counts, torch.split(peaks, list(counts), 1), strict=True):
        # A level of a small picture may hold fewer than topk priors; sizes must not depend on it.
        place = best(F.pad(level, (0, topk)), topk)
        found.append(torch.where(place < count, place + start, -1))
        start += count
    prior = torch.cat(found, dim=1)
    return prior.clamp(min=0), prior >= 0


def best(scores: Tensor, topk: int) -> Tensor:
    """Where the ``topk`` largest of ``scores [B, N]`` are, by memory, the first of equals winning: ``[B, topk]``."""
    last = scores.topk(topk, dim=1).values[:, -1:]
    above, equal = scores > last, scores == last
    room = topk - above.sum(dim=1, keepdim=True)
    return first(above | (equal & (equal.cumsum(dim=1) <= room)), topk)


def first(mask: Tensor, count: int) -> Tensor:
    """Where the first ``count`` True of ``mask [B, N]`` are: ``[B, count]``; N where there are fewer."""
    batch, length = mask.shape
    place = (mask.cumsum(dim=1) - 1).where(mask, count).clamp(max=count)  # the last column takes what is not wanted
    where = torch.arange(length, device=mask.device).expand(batch, -1)
    return where.new_full((batch, count + 1), length).scatter(1, place, where)[:, :count]


def rows(values: Tensor, index: Tensor) -> Tensor:
    """``values [B, N, D]`` at ``index [B, K]``: ``[B, K, D]``."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
