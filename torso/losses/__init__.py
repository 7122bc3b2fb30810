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
- ``"boxes"``: decoded ``xyxy`` boxes ``[..., 4]`` with boxes -> ``[...]``
"""

from __future__ import annotations

from torch import nn

from torso.losses.boxes import L1, GIoU, SmoothL1
from torso.losses.classification import BinaryCrossEntropy, CrossEntropy, Focal

LOSSES: dict[str, type[nn.Module]] = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "giou": GIoU,
    "l1": L1,
    "smooth_l1": SmoothL1,
}
