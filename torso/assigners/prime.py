"""Prime sample attention: the samples that decide how good a detector is count more."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.assigners.sampled import Sampled
from torso.boxes.overlap import iou, pairwise_iou
from torso.structures import Assignment, DenseOutput, Targets

# Rounds in which greedy suppression settles; a chain of boxes that each overlap the next is cut after so many.
ROUNDS = 16


class PISA(nn.Module):
    """Weighs positives by how well they find their object (ISR-P), and boxes by how sure their class is (CARL).

    ISR-P ranks the positives of a batch class by class by their hierarchical local rank (`hierarchical_rank`) and gives
    rank r the importance ``((1 - bias) (n - r) / n + bias) ** power``, with n the positives of the largest class; the
    class loss of all positives together (with the weights of their objects) stays what it was.
    CARL multiplies a box loss by ``(1 - carl_bias) p + carl_bias`` to the power ``carl_power``, with p the probability
    of the object's class; its mean over the positives is 1, and its gradient goes into p. (mmdetection adds this loss
    to the plain one; here it takes its place, as the paper writes it.)
    With ``negatives`` the negatives of each picture are sampled and weighed too (ISR-N): the ``candidates`` of highest
    score form clusters by greedy suppression, the hierarchical local rank of their scores chooses and weighs them as
    above, and their class loss together stays what it was.

    Args:
        power: how strongly ISR-P prefers the first, >= 0; 0 weighs all the same.
        bias: importance that is given to all, 0..1.
        carl: weigh boxes.
        carl_power: how strongly, > 0.
        carl_bias: 0..1.
        negatives: how many negatives of a picture learn; all, equally, when None.
        candidates: negatives that are ranked, at least ``negatives``: memory is B x candidates x candidates.
        overlap: IoU above which two negatives are of one cluster, 0..1.
        negative_power: as ``power``, for negatives.
        negative_bias: as ``bias``, for negatives.

    Raises:
        ValueError: fewer candidates than negatives.

    Source: Prime Sample Attention in Object Detection, 2019, arXiv:1904.04821
    """

    def __init__(
        self,
        power: float = 2.0,
        bias: float = 0.0,
        *,
        carl: bool = True,
        carl_power: float = 1.0,
        carl_bias: float = 0.2,
        negatives: int | None = None,
        candidates: int = 1000,
        overlap: float = 0.5,
        negative_power: float = 0.5,
        negative_bias: float = 0.0,
    ):
        super().__init__()
        if negatives is not None and not 1 <= negatives <= candidates:
            raise ValueError(f"1..candidates={candidates} negatives expected, got {negatives}")
        self.power, self.bias = power, bias
        self.carl, self.carl_power, self.carl_bias = carl, carl_power, carl_bias
        self.negatives, self.candidates, self.overlap = negatives, candidates, overlap
        self.negative_power, self.negative_bias = negative_power, negative_bias

    def forward(
        self, assigned: Assignment, class_cost: Tensor, box_cost: Tensor, output: DenseOutput, targets: Targets
    ) -> Sampled:
        """All positives with their weights, and the negatives."""
        labels = targets.labels.gather(1, assigned.matched)
        weight = self._positive_weight(assigned, class_cost, labels, output, targets)
        negative = assigned.negative
        if self.negatives is not None:
            negative, factor = self._negatives(assigned, class_cost, output, self.negatives)
            weight = torch.where(negative, factor, weight)
        return Sampled(assigned.positive, negative, weight, self._certainty(assigned, labels, output))

    @torch.no_grad()
    def _positive_weight(
        self, assigned: Assignment, cost: Tensor, labels: Tensor, output: DenseOutput, targets: Targets
    ) -> Tensor:
        """ISR-P: ``[B, P]``, 1 where not positive."""
        positive, objects = assigned.positive, targets.boxes.shape[1]
        wanted = targets.boxes.to(output.boxes.dtype).gather(1, assigned.matched[..., None].expand(-1, -1, 4))
        classes = output.logits.shape[-1] - output.background
        row = torch.arange(len(positive), device=positive.device)[:, None] * objects  # [B, 1]
        rank = hierarchical_rank(
            iou(output.boxes, wanted).flatten(),
            torch.where(positive, row + assigned.matched, len(positive) * objects).flatten(),
            torch.where(positive, labels, classes).flatten(),
            groups=len(positive) * objects,
            classes=classes,
        ).view_as(cost)
        sizes = torch.zeros(classes + 1, dtype=cost.dtype, device=cost.device)
        sizes = sizes.scatter_add(0, labels.flatten(), positive.flatten().to(cost.dtype))
        weight = _importance(rank, sizes.amax(), self.power, self.bias)
        counted = torch.where(positive, cost, 0)
        if targets.weights is not None:
            counted = counted * targets.weights.to(cost.dtype).gather(1, assigned.matched)
        kept = _ratio(counted.sum(), (counted * weight).sum())
        return torch.where(positive, weight * kept, 1)

    def _certainty(self, assigned: Assignment, labels: Tensor, output: DenseOutput) -> Tensor | None:
        """CARL: ``[B, P]`` with a gradient into the class scores; 0 where not positive."""
        if not self.carl:
            return None
        chosen = output.logits.gather(2, labels[..., None]).squeeze(-1)  # [B, P]
        score = (chosen - output.logits.logsumexp(dim=-1)).exp() if output.background else chosen.sigmoid()
        base = (self.carl_bias + (1 - self.carl_bias) * score).clamp(min=torch.finfo(score.dtype).eps)
        value = torch.where(assigned.positive, base**self.carl_power, 0)
        return value * _ratio(assigned.positive.sum(), value.sum())

    @torch.no_grad()
    def _negatives(self, assigned: Assignment, cost: Tensor, output: DenseOutput, number: int) -> tuple[Tensor, Tensor]:
        """ISR-N: who learns ``[B, P]`` bool, and its weight ``[B, P]``."""
        keys = output.class_scores().amax(dim=-1).masked_fill(~assigned.negative, -1)
        score, place = keys.topk(min(self.candidates, keys.shape[1]), dim=1)  # [B, K], falling
        there = score >= 0
        batch, size = score.shape
        boxes = output.boxes.gather(1, place[..., None].expand(-1, -1, 4))
        group = clusters(boxes, there, self.overlap)  # [B, K]
        row = torch.arange(batch, device=group.device)[:, None].expand(-1, size)
        rank = hierarchical_rank(
            score.flatten(),
            torch.where(there, row * size + group, batch * size).flatten(),
            torch.where(there, row, batch).flatten(),
            groups=batch * size,
            classes=batch,
        ).view_as(score)
        weight = _importance(
            rank, there.sum(dim=1, keepdim=True, dtype=cost.dtype), self.negative_power, self.negative_bias
        )
        taken = there & (rank < number)
        counted = torch.where(taken, cost.gather(1, place), 0)
        kept = _ratio(counted.sum(dim=1, keepdim=True), (counted * weight).sum(dim=1, keepdim=True))
        chosen = torch.zeros_like(assigned.negative).scatter(1, place, taken)
        return chosen, torch.ones_like(cost).scatter(1, place, weight * kept)


def hierarchical_rank(score: Tensor, group: Tensor, label: Tensor, groups: int, classes: int) -> Tensor:
    """The place of each sample in its class, the best 0: first the best of every group, then the second ones, ...

    Args:
        score: ``[N]``; of equals the first is better.
        group: of each sample, 0..groups - 1; ``groups`` for what takes no part.
        label: class of each sample, 0..classes - 1; ``classes`` for what takes no part.
        groups: how many.
        classes: how many.

    Returns:
        ``[N]`` int64.

    Source: Prime Sample Attention in Object Detection, 2019, arXiv:1904.04821, section 4.1
    """
    order = score.argsort(descending=True, stable=True)
    of_group, of_class = group[order], label[order]
    local = _place(of_group, of_group, groups + 1)
    rank = _place(of_class * len(score) + local, of_class, classes + 1)
    return torch.empty_like(rank).scatter(0, order, rank)


def clusters(boxes: Tensor, there: Tensor, overlap: float) -> Tensor:
    """For each box ``[B, K, 4]``, best first, the best one that greedy suppression keeps and that takes it: ``[B, K]``.

    A box that is kept is its own; memory is B x K x K.
    """
    over = (pairwise_iou(boxes, boxes) > overlap) & there[:, :, None] & there[:, None]  # [B, K, K]
    better = over.tril(diagonal=-1)
    kept = there
    for _ in range(ROUNDS):
        kept = there & ~(better & kept[:, None]).any(dim=-1)
    own = torch.eye(boxes.shape[1], dtype=torch.bool, device=boxes.device)
    leads = (better & kept[:, None]) | own  # [B, K, K]: box i belongs to the first j
    return leads.to(torch.uint8).argmax(dim=-1)


def _place(keys: Tensor, bins: Tensor, count: int) -> Tensor:
    """The place ``[N]`` of each of ``keys [N]``, which rise from bin to bin, among those of its bin."""
    order = keys.argsort(stable=True)
    sizes = torch.zeros(count, dtype=torch.int64, device=keys.device).scatter_add(0, bins, torch.ones_like(bins))
    start = sizes.cumsum(0) - sizes
    place = torch.arange(len(keys), device=keys.device) - start[bins[order]]
    return torch.empty_like(place).scatter(0, order, place)


def _importance(rank: Tensor, count: Tensor, power: float, bias: float) -> Tensor:
    count = count.clamp(min=1)
    linear = ((count - rank) / count).clamp(min=0)  # below 0 only where it does not count
    return (bias + (1 - bias) * linear) ** power


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    """``first / second``, and 1 where there is nothing."""
    there = second > torch.finfo(second.dtype).tiny
    return torch.where(there, first / torch.where(there, second, 1), 1)
