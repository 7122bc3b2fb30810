"""Losses: pure, batched, silent.

Contract: ``loss(prediction, target, weight=None, reduction="none", avg_factor=None)``. ``weight`` multiplies the
unreduced loss
(it broadcasts); ``reduction`` is ``"none"``, ``"sum"`` or ``"mean"``; ``avg_factor`` (a number or a scalar tensor)
divides the sum instead of the count, with ``"mean"`` only. The attribute ``takes`` says what a loss compares:

- ``"scores"``: logits ``[..., C]`` with targets in 0..1 of the same shape -> ``[..., C]``
- ``"classes"``: logits ``[B, C, ...]`` with int64 classes ``[B, ...]``, or with probabilities ``[B, C, ...]`` in
  floating point, -> ``[B, ...]``
- ``"deltas"``: raw regression ``[..., D]`` with encoded targets -> ``[...]`` (summed over D)
- ``"uncertain"``: raw regression ``[..., D]`` and the logarithms of its variances, together ``[..., 2 * D]``, with
  encoded targets ``[..., D]`` -> ``[...]``
- ``"distribution"``: logits ``[..., 4 * (R + 1)]`` over the bins 0..R of each side, with the sides ``[..., 4]`` in
  bins, 0..R -> ``[...]``
- ``"object"``: the logit of "object" and raw regression, together ``[..., 1 + D]``, with 1, 0 or (not sampled) a number
  below 0 and encoded targets ``[..., 1 + D]`` -> ``[...]``
- ``"boxes"``: decoded ``xyxy`` boxes ``[..., 4]`` with boxes -> ``[...]``
- ``"embeddings"``: numbers ``[B, M, K]`` at the K keypoints of M objects, with ``[B, M]``, 1 for an object and 0 for
  padding, -> ``[B, M]``
- ``"grid"``: all that the cells of a grid say, ``[..., H, W, D]``, with what they should -> ``[..., H, W]``

The prediction may be in half precision; the loss is computed, and returned, in float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torso.losses.boxes import L1, BalancedL1, KLBox, SmoothL1
from torso.losses.classes import KLDivergence, LabelSmoothing, SoftmaxFocal
from torso.losses.classification import BinaryCrossEntropy, CrossEntropy, Focal
from torso.losses.harmony import GHMC, GHMR
from torso.losses.heatmap import AssociativeEmbedding, HeatmapFocal
from torso.losses.overlap import BoundedIoU, CIoU, DIoU, GIoU, IoU
from torso.losses.quality import DistributionFocal, GeneralizedFocal, QualityFocal, Varifocal
from torso.losses.reduction import reduced
from torso.losses.rpn import RPN
from torso.losses.squares import MSE
from torso.losses.yolo import YOLOv1, YOLOv3

LOSSES: dict[str, Callable[..., Any]] = {
    "associative_embedding": AssociativeEmbedding,
    "balanced_l1": BalancedL1,
    "binary_cross_entropy": BinaryCrossEntropy,
    "bounded_iou": BoundedIoU,
    "ciou": CIoU,
    "cross_entropy": CrossEntropy,
    "diou": DIoU,
    "distribution_focal": DistributionFocal,
    "focal": Focal,
    "generalized_focal": GeneralizedFocal,
    "ghm_c": GHMC,
    "ghm_r": GHMR,
    "giou": GIoU,
    "heatmap_focal": HeatmapFocal,
    "iou": IoU,
    "kl_box": KLBox,
    "kl_divergence": KLDivergence,
    "l1": L1,
    "label_smoothing": LabelSmoothing,
    "mse": MSE,
    "quality_focal": QualityFocal,
    "reduction": reduced,
    "rpn": RPN,
    "smooth_l1": SmoothL1,
    "softmax_focal": SoftmaxFocal,
    "varifocal": Varifocal,
    "yolov1": YOLOv1,
    "yolov3": YOLOv3,
}
