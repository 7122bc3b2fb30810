"""Sampling: which of the assigned priors learn, and how much.

Contract: ``sample(assigned, class_cost, box_cost, output, targets) -> Sampled`` with the unreduced losses ``[B, P]`` of
classes (of every prior) and boxes (meant where positive), batched, without synchronisation or shapes that depend on
data. Ranking by a loss is done without gradient; a factor may carry one (CARL).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Sampled(NamedTuple):
    """Who learns, and what they count."""

    positive: Tensor  # [B, P] bool: a subset of the assigned positives
    negative: Tensor  # [B, P] bool: a subset of the assigned negatives
    class_weight: Tensor | None = None  # [B, P]: factor of the class loss; 1 when None
    box_weight: Tensor | None = None  # [B, P]: factor of the box loss; 1 when None


SAMPLES: dict[str, type[nn.Module]] = {}
