"""What a region proposal network learns at a prior: is there anything, and where."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from torso.losses.reduction import Loss


class RPN(Loss):
    """Binary cross entropy of "object", and smooth L1 of the deltas where there is one.

    The prediction ``[..., 1 + D]`` holds the logit, then the deltas. The target ``[..., 1 + D]`` holds 1 for an object,
    0 for nothing and a number below 0 for a prior that was not sampled, then the encoded box, which counts at objects
    only; to ``[...]``. A plain mean is over the sampled priors, positive and negative, as in torchvision and
    Detectron2; the paper divides the boxes by the number of places instead and makes ``box_weight`` 10, which is about
    the same. The criterion ``dense`` with ``average: samples`` learns the same of parts that can be swapped.

    Args:
        beta: where smooth L1 becomes linear, in the deltas' units; > 0.
        box_weight: factor of the boxes, >= 0.

    Source: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015, arXiv:1506.01497,
        equation 1 (torchvision's RegionProposalNetwork.compute_loss)
    """

    takes = "object"

    def __init__(self, beta: float = 1.0 / 9, box_weight: float = 1.0):
        super().__init__()
        self.beta, self.box_weight = beta, box_weight

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each prior costs."""
        logit, there = prediction[..., 0], target[..., 0].to(prediction.dtype)
        deltas = target[..., 1:].to(prediction.dtype)
        of_object = functional.binary_cross_entropy_with_logits(logit, there.clamp(min=0), reduction="none")
        of_box = functional.smooth_l1_loss(prediction[..., 1:], deltas, reduction="none", beta=self.beta).sum(dim=-1)
        loss = of_object + self.box_weight * torch.where(there > 0, of_box, 0)
        return torch.where(there >= 0, loss, 0)

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what was not sampled."""
        return (target[..., 0] >= 0).sum().clamp(min=1)
