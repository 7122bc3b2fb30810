"""OTA: objects supply priors with positive labels, the background with negative ones, at the least cost in all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.assigners.candidates import claimed, learnable, offsets, scores, topk
from torso.assigners.chunks import centres, ignored_priors, slices
from torso.assigners.transport import sinkhorn
from torso.boxes.overlap import iou
from torso.structures import Assignment, DenseOutput, Targets


class OTA(nn.Module):
    """The plan of optimal transport from objects, and the background, to priors that each need one label.

    An object supplies k labels, k being the sum of the IoUs of its ``topk`` best predictions; the background the
    rest. A label costs the focal loss of the class and ``-ln`` of the IoU of what the network predicts at the
    prior. Of each level an object reaches the ``nearest`` priors to its centre; elsewhere the paper adds a constant
    cost, here so great that nothing is brought there, and the predictions counted for k are those within reach. A
    prior learns the object that brings it most, or nothing, after each supplier's shares are divided by its
    greatest one: as in the authors' code, for else an object whose label is shared by equal priors loses all of
    them. Objects without area are not learned. Where objects have more labels than priors are within reach, they
    get one a prior in all.
    Memory: ``B x CHUNK x P`` and ``B x M x nearest x levels`` numbers.

    Args:
        nearest: priors of a level an object reaches, from 1 on.
        topk: predictions that say how many labels an object has, from 1 on.
        box_weight: what ``-ln`` of the IoU counts beside the focal loss, 0 or more.
        alpha: of the focal loss, 0..1.
        gamma: of the focal loss, 0 or more.
        blur: the weight of the plan's entropy, above 0.
        steps: of Sinkhorn's iteration.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Source: OTA: Optimal Transport Assignment for Object Detection, 2021, arXiv:2103.14259
    """

    def __init__(
        self,
        nearest: int = 25,
        topk: int = 20,
        box_weight: float = 1.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
        blur: float = 0.1,
        steps: int = 50,
        ignore_overlap: float = 0.5,
    ):
        super().__init__()
        if nearest < 1 or topk < 1 or steps < 1 or blur <= 0:
            wanted = "nearest, topk, steps >= 1 and blur > 0 expected"
            raise ValueError(f"{wanted}, got nearest={nearest}, topk={topk}, steps={steps}, blur={blur}")
        self.nearest, self.topk, self.box_weight = nearest, topk, box_weight
        self.alpha, self.gamma, self.blur, self.steps = alpha, gamma, blur, steps
        self.ignore_overlap = ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        targets = targets.with_a_row()
        plan, rest, prior, real = self.plan(output, targets)
        count = rest.shape[1]
        tiny = torch.finfo(plan.dtype).tiny
        share = plan / plan.amax(dim=-1, keepdim=True).clamp(min=tiny)
        matched, most = claimed(prior, share.masked_fill(~real, -1), count)
        positive = (most > 0) & (most >= rest / rest.amax(dim=-1, keepdim=True).clamp(min=tiny))
        neither = ignored_priors(output, targets, self.ignore_overlap)
        return Assignment(matched.where(positive, 0), positive, ~positive & ~neither)

    @torch.no_grad()
    def plan(self, output: DenseOutput, targets: Targets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Labels from objects ``[B, M, K]`` and background ``[B, P]``; the priors in reach; which of them there are."""
        boxes = targets.boxes.to(output.boxes.dtype)
        prior, real = self._reach(output, boxes)  # [B, M, K]
        real = real & learnable(targets).unsqueeze(-1)
        at = prior.flatten(1)
        guess = output.boxes.gather(1, at[..., None].expand(-1, -1, 4)).view(*prior.shape, 4)
        overlap = iou(guess, boxes.unsqueeze(2)).where(real, 0)
        cost = self._class_cost(output, targets, prior) - self.box_weight * overlap.clamp(min=1e-8).log()
        best = overlap.topk(min(self.topk, overlap.shape[-1]), dim=-1).values  # equal ones have equal sums
        supply = best.sum(dim=-1).floor().clamp(min=1).where(real.any(dim=-1), 0)  # [B, M]
        return *sinkhorn(cost, prior, real, supply, len(output.priors), self.blur, self.steps), prior, real

    def _reach(self, output: DenseOutput, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The priors of each level nearest to the centre of each object ``[B, M, K]``, and which of them there are."""
        points, places = centres(output.priors), []
        for rows in slices(boxes, output.priors):
            x, y = offsets(points, boxes[:, rows])
            away = x.square() + y.square()  # [B, m, P]
            start, found = 0, []
            for count, level in zip(output.counts, torch.split(away, list(output.counts), 2), strict=True):
                value, place = topk(-level, self.nearest)
                found.append(torch.where(value > -torch.inf, place + start, -1))
                start += count
            places.append(torch.cat(found, dim=2))
        place = torch.cat(places, dim=1)
        return place.clamp(min=0), place >= 0

    def _class_cost(self, output: DenseOutput, targets: Targets, prior: Tensor) -> Tensor:
        """The focal loss of saying the object's class less that of saying nothing, ``[B, M, K]``.

        The loss of the other classes is the same for every supplier of a prior, and so changes no plan.
        """
        score = scores(output)
        at = prior * score.shape[-1] + targets.labels.unsqueeze(-1)
        p = score.flatten(1).gather(1, at.flatten(1)).view_as(prior).to(output.boxes.dtype)
        tiny = torch.finfo(p.dtype).eps
        yes = -self.alpha * (1 - p) ** self.gamma * p.clamp(min=tiny).log()
        no = -(1 - self.alpha) * p**self.gamma * (1 - p).clamp(min=tiny).log()
        return yes - no
