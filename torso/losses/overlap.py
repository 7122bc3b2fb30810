"""Losses of decoded boxes: how far their overlap is from a whole one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from torso.boxes.convert import xyxy_to_cxcywh
from torso.boxes.overlap import ciou, diou, giou, iou
from torso.losses.reduction import Loss


class IoU(Loss):
    """What IoU lacks of 1, of ``xyxy`` boxes: ``[..., 4]`` and ``[..., 4]`` to ``[...]``.

    Sources disagree on the form, and none of them moves boxes that do not touch: ``"log"`` is -ln IoU (UnitBox), which
    diverges there and is cut at -ln ``eps`` with no gradient; ``"linear"`` is 1 - IoU, in 0..1; ``"square"`` is
    1 - IoU^2, in 0..1.

    Args:
        form: which of the three.
        eps: least IoU whose logarithm is taken, > 0; for ``"log"`` only.

    Raises:
        ValueError: there is no such form.

    Source: UnitBox: An Advanced Object Detection Network, 2016, arXiv:1608.01471
    """

    takes = "boxes"

    def __init__(self, form: Literal["log", "linear", "square"] = "log", eps: float = 1e-6):
        super().__init__()
        if form not in ("log", "linear", "square"):
            raise ValueError(f"form is 'log', 'linear' or 'square', got {form!r}")
        self.form, self.eps = form, eps

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        overlap = iou(prediction, target)
        if self.form == "log":
            return -overlap.clamp(min=self.eps).log()
        return 1 - (overlap if self.form == "linear" else overlap.square())


class BoundedIoU(Loss):
    """What IoU lacks of 1 by each of x, y, width and height alone: ``xyxy`` boxes ``[..., 4]`` twice to ``[...]``.

    (w - 2 d) / (w + 2 d) for centres ``d`` apart and a true side ``w``, not below 0; the ratio of the sides. What each
    of the four lacks of 1 is passed through smooth L1; the loss is their mean, in 0..1 - ``beta`` / 2 (the paper sums
    them: a ``box_weight`` four times as large).

    Args:
        beta: where smooth L1 turns from quadratic to linear; > 0.
        eps: pixels added to every denominator, > 0, as in mmdetection. A box then lacks a trifle of itself.

    Source: Improving Object Localization with Fitness NMS and Bounded IoU Loss, 2017, arXiv:1711.00164, equations 9-11
    """

    takes = "boxes"

    def __init__(self, beta: float = 0.2, eps: float = 1e-3):
        super().__init__()
        self.beta, self.eps = beta, eps

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        guess, truth = xyxy_to_cxcywh(prediction), xyxy_to_cxcywh(target)
        size, wanted = (box[..., 2:].clamp(min=0) for box in (guess, truth))  # padding has no side
        off = 2 * (guess[..., :2] - truth[..., :2]).abs()
        centre = ((wanted - off) / (wanted + off + self.eps)).clamp(min=0)
        side = torch.minimum(size / (wanted + self.eps), wanted / (size + self.eps))
        lacking = 1 - torch.cat([centre, side], dim=-1)
        return functional.smooth_l1_loss(lacking, torch.zeros_like(lacking), reduction="none", beta=self.beta).mean(-1)


class GIoU(Loss):
    """1 - generalised IoU of ``xyxy`` boxes, in 0..2: ``[..., 4]`` and ``[..., 4]`` to ``[...]``.

    Source: Generalized Intersection over Union, 2019, arXiv:1902.09630
    """

    takes = "boxes"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        return 1 - giou(prediction, target)


class DIoU(Loss):
    """1 - IoU plus the distance of the centres: ``xyxy`` boxes ``[..., 4]`` and ``[..., 4]`` to ``[...]``, in 0..2.

    The squared distance is a share of the squared diagonal of the smallest box around both.

    Source: Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression, 2019, arXiv:1911.08287
    """

    takes = "boxes"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        return 1 - diou(prediction, target)


class CIoU(Loss):
    """The DIoU loss plus how unlike the shapes are: ``xyxy`` boxes ``[..., 4]`` and ``[..., 4]`` to ``[...]``, in 0..3.

    The factor of the shapes has no gradient, as in the paper; its later rule of leaving shapes alone where IoU is
    below one half is not applied (nor is it by torchvision). See `torso.boxes.overlap.ciou`.

    Source: Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression, 2019, arXiv:1911.08287
    """

    takes = "boxes"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        return 1 - ciou(prediction, target)
