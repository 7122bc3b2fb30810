"""The coder of generalized focal loss: every side of a box is a distribution over how many cells away it lies."""

from __future__ import annotations

import torch
from torch import Tensor


class Distribution:
    """Sides as softmax distributions over the bins 0..``bins`` cells left, above, right and below the prior's centre.

    ``decode`` takes the expectation of each: logits ``[..., 4 * (bins + 1)]``, the bins of a side together. ``encode``
    gives what the distribution focal loss wants, and so not a code of this size: the four distances in bins,
    ``[..., 4]``, at least 0 and a little less than ``bins``, so that each has a bin on either side.

    Args:
        bins: the farthest a side may lie from the centre of its prior, in strides; at least 1.

    Raises:
        ValueError: fewer than 1 bin, or a call without ``strides``.

    Source: Generalized Focal Loss, 2020, arXiv:2006.04388, section 3.2
    """

    def __init__(self, bins: int = 16):
        if bins < 1:
            raise ValueError(f"distribution: a side needs at least one bin beside 0, got bins={bins}")
        self.bins, self.size = bins, 4 * (bins + 1)

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """The distances ``[..., 4]`` (left, above, right, below) of ``xyxy`` boxes, in bins."""
        centre, steps = _centres(priors), _needed(strides)
        sides = torch.cat([centre - boxes[..., :2], boxes[..., 2:] - centre], dim=-1) / torch.cat([steps, steps], -1)
        return sides.clamp(min=0, max=self.bins - 0.01)

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Logits ``[..., 4 * (bins + 1)]`` to ``xyxy`` boxes ``[..., 4]``."""
        centre, steps = _centres(priors), _needed(strides)
        shares = deltas.reshape(*deltas.shape[:-1], 4, self.bins + 1).softmax(dim=-1)
        sides = shares @ torch.arange(self.bins + 1, dtype=deltas.dtype, device=deltas.device)  # [..., 4]
        return torch.cat([centre - sides[..., :2] * steps, centre + sides[..., 2:] * steps], dim=-1)


def _centres(priors: Tensor) -> Tensor:
    return (priors[..., :2] + priors[..., 2:]) / 2


def _needed(strides: Tensor | None) -> Tensor:
    if strides is None:
        raise ValueError("distribution: sides are counted in cells, so the strides [..., 2] of the priors are needed")
    return strides
