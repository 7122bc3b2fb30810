"""Weighted boxes fusion: boxes that mean one object become one box, their mean, whichever models they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torso.boxes.ordered import Above, Carry, again_by_score, by_score, check, precise, repeat_while
from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections


class WeightedFusion(nn.Module):
    """Boxes join, best first, the cluster of their class whose mean they overlap most, or found one.

    As a suppressor it fuses the boxes of one model. ``fuse`` takes the answers of several, one ``Detections`` each; so
    the model of a box is told by its place in that list. The mean of a cluster is weighted by scores. Its score is:

    - ``average``: the mean score, times the share of the models (at most 1) that the number of its boxes would be;
    - ``max``: the highest score;
    - ``box_and_model``: the mean score, times the weight of the models that have a box in it over that of all;
    - ``absent_model``: the sum of scores over the weight of the boxes and that of the models that have none in it.

    Args:
        overlap: the IoU (0..1) with the mean of a cluster above which a box joins it.
        confidence: what the score of a cluster is.
        weights: one a model, above 0: how much its scores count.
        max_detections: rows of the answer, over all classes.
        topk: boxes that take part, the best; the loop takes as many steps as there are.

    Raises:
        ValueError: an argument outside its range, or an unknown confidence.

    Source: Weighted boxes fusion: Ensembling boxes from different object detection models, 2019, arXiv:1910.13302
    """

    def __init__(
        self,
        overlap: float = 0.55,
        confidence: Literal["average", "max", "box_and_model", "absent_model"] = "average",
        weights: Sequence[float] = (1.0,),
        max_detections: int = 300,
        *,
        topk: int = 1000,
    ):
        super().__init__()
        check(max_detections, overlap=overlap)
        if confidence not in ("average", "max", "box_and_model", "absent_model"):
            raise ValueError(f"confidence is average, max, box_and_model or absent_model, got {confidence!r}")
        if not weights or not all(weight > 0 for weight in weights) or topk < 1:
            raise ValueError(f"weights must be above 0 and topk at least 1, got {list(weights)} and {topk}")
        self.overlap, self.confidence, self.weights = overlap, confidence, tuple(float(w) for w in weights)
        self.above = Above(overlap)
        self.max_detections, self.topk = max_detections, topk

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        return self._fuse(boxes, scores, labels, torch.zeros_like(labels))

    def fuse(self, found: Sequence[Detections]) -> Detections:
        """The answers of several models about the same pictures as one.

        Raises:
            ValueError: there is not one weight for each of them.
        """
        if len(found) != len(self.weights):
            raise ValueError(f"{len(found)} answers need as many weights, got {list(self.weights)}")
        models = [torch.full_like(each.labels, i) for i, each in enumerate(found)]
        columns = [[each.boxes for each in found], [each.scores for each in found], [each.labels for each in found]]
        boxes, scores, labels = (torch.cat(column, dim=1) for column in columns)
        return self._fuse(boxes, scores, labels, torch.cat(models, dim=1))

    def _fuse(self, boxes: Tensor, scores: Tensor, labels: Tensor, models: Tensor) -> Detections:
        weight = _each(self.weights, models, scores)
        scores = torch.where(scores > 0, scores * weight, 0.0)
        rows = torch.cat([precise(boxes), weight.unsqueeze(-1).to(precise(boxes).dtype)], dim=-1)
        tags = labels * len(self.weights) + models  # one number, for it is sorted along
        rows, scores, tags = (each[:, : self.topk] for each in by_score(rows, scores, tags))
        labels, models = tags // len(self.weights), tags % len(self.weights)
        fused = self._clusters(rows, scores.to(rows.dtype), labels, models)
        return again_by_score(
            fused[0].to(boxes.dtype), self._score(*fused[1:4]).to(scores.dtype), fused[4], self.max_detections
        )

    def _clusters(self, rows: Tensor, scores: Tensor, labels: Tensor, models: Tensor) -> Carry:
        """Of K clusters: boxes, sums of scores, highest scores, boxes of each model and weight of all, labels."""
        rows, scores, labels, models = F.pad(rows, (0, 0, 0, 1)), *(F.pad(x, (0, 1)) for x in (scores, labels, models))
        count = scores.shape[1]  # at least one, padding
        rank = torch.arange(count, device=scores.device)
        kinds = torch.arange(len(self.weights), device=scores.device)

        def more(done: Tensor, *_clusters: Tensor) -> Tensor:
            here = scores.index_select(1, done.clamp(max=count - 1))
            return (done < count).all() & (here > 0).any()

        def join(done: Tensor, boxes: Tensor, total: Tensor, highest: Tensor, members: Tensor, label: Tensor) -> Carry:
            row, score, own, model = (each.index_select(1, done) for each in (rows, scores, labels, models))
            overlap = pairwise_iou(row[..., :4], boxes)[:, 0]  # [B, K]
            overlap = torch.where((label == own) & (total > 0), overlap, 0.0)
            best = overlap.amax(dim=1, keepdim=True)
            fits = torch.where(overlap == best, rank, count).amin(dim=1, keepdim=True)  # the first of equals
            place = torch.where(self.above(best), fits, (total > 0).sum(dim=1, keepdim=True))
            hit = (rank == place) & (score > 0)  # [B, K]
            total = torch.where(hit, total + score, total)
            share = (score / torch.where(hit, total, 1.0)).unsqueeze(-1)  # of the newcomer in the mean; 1 of the first
            boxes = torch.where(hit.unsqueeze(-1), boxes + (row[..., :4] - boxes) * share, boxes)
            mine = torch.cat([(model == kinds[None]).to(rows.dtype), row[:, 0, 4:]], dim=1)  # [B, T + 1]
            members = members + mine.unsqueeze(1) * hit.unsqueeze(-1)
            highest = torch.where(hit, torch.maximum(highest, score), highest)
            return done + 1, boxes, total, highest, members, torch.where(hit, own, label)

        start = torch.zeros(1, dtype=torch.int64, device=scores.device)
        empty = torch.zeros_like(scores)
        members = torch.zeros_like(empty).unsqueeze(-1).repeat(1, 1, len(self.weights) + 1)
        nothing = torch.zeros_like(rows[..., :4]), empty, empty, members, torch.zeros_like(labels)
        return repeat_while(more, join, (start, *nothing))[1:]

    def _score(self, total: Tensor, highest: Tensor, members: Tensor) -> Tensor:
        each, weight = members[..., :-1], members[..., -1]
        number = each.sum(dim=-1)
        if self.confidence == "max":
            return highest / max(self.weights)
        if self.confidence == "average":
            return total / number.clamp(min=1) * number.clamp(max=len(self.weights)) / sum(self.weights)
        present = sum(
            (value * (each[..., i] > 0) for i, value in enumerate(self.weights)), start=torch.zeros_like(weight)
        )
        if self.confidence == "box_and_model":
            return total / torch.where(weight > 0, weight, 1.0) * present / sum(self.weights)
        return total / (weight + sum(self.weights) - present).clamp(min=min(self.weights))

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"overlap={self.overlap}, confidence={self.confidence}, max_detections={self.max_detections}"


def _each(weights: Sequence[float], models: Tensor, like: Tensor) -> Tensor:
    """The weight of every box's model. No tensor is made of the weights: a GPU would have to wait for it."""
    found = torch.zeros_like(like)
    for i, weight in enumerate(weights):
        found = torch.where(models == i, weight, found)
    return found
