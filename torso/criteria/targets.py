"""What a prior should have said, gathered from padded targets: shared by the criteria of dense detectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.boxes.candidates import rows
from torso.boxes.coders import Coder
from torso.structures import Assignment, DenseOutput, Targets

FAR = -1e6
"""Pixels, beyond any picture."""


def box_targets(assigned: Assignment, targets: Targets, priors: Tensor) -> Tensor:
    """The box ``[B, P, 4]`` each positive prior learns; others get themselves, finite values that weigh 0."""
    boxes = rows(targets.boxes.to(priors.dtype), assigned.matched)
    return torch.where(assigned.positive[..., None], boxes, priors)


def apart(output: DenseOutput) -> DenseOutput:
    """The output with what is padding far away from every object, so that no assigner counts it among the nearest."""
    if output.valid is None:
        return output
    far = output.priors.new_full((4,), FAR)
    real = output.valid.unsqueeze(-1)
    return output._replace(priors=torch.where(real, output.priors, far), boxes=torch.where(real, output.boxes, far))


def real(assigned: Assignment, valid: Tensor | None) -> Assignment:
    """The assignment without priors that are padding, ``valid [B, P]``."""
    if valid is None:
        return assigned
    return assigned._replace(positive=assigned.positive & valid, negative=assigned.negative & valid)


def of_matched_class(output: DenseOutput, labels: Tensor, coder: Coder) -> DenseOutput:
    """Of deltas ``[B, P, C * D]``, a box for each class, those of the class ``labels [B, P]`` that a prior learns."""
    if output.deltas.shape[-1] == coder.size:
        return output
    deltas = output.deltas.reshape(*labels.shape, -1, coder.size)  # [B, P, C, D]
    deltas = deltas.gather(2, labels[..., None, None].expand(-1, -1, 1, coder.size)).squeeze(2)
    return output._replace(deltas=deltas, boxes=coder.decode(deltas, output.priors, output.strides))


def check_ignored(loss: nn.Module, classes: int) -> None:
    """A loss of classes may leave one out, but not one of these.

    Raises:
        ValueError: it would.
    """
    ignored = getattr(loss, "ignore_index", -1)
    if 0 <= ignored < classes:
        raise ValueError(f"class {ignored} of {classes} would not be learned: give the class loss ignore_index=-1")


def score_targets(positive: Tensor, labels: Tensor, quality: Tensor | None, logits: Tensor) -> Tensor:
    """Targets ``[B, P, C]``: 1 (or the quality) at the class of the object a positive prior learns.

    Args:
        positive: ``[B, P]``.
        labels: classes of the matched objects, ``[B, P]``.
        quality: ``[B, P]`` in 0..1.
        logits: ``[B, P, C]``, for shape and kind.
    """
    score = positive.to(logits.dtype)
    if quality is not None:
        score = score * quality.to(logits.dtype)
    return torch.zeros_like(logits).scatter_(2, labels[..., None], score[..., None])


def centerness(boxes: Tensor, priors: Tensor) -> Tensor:
    """How central the centre of a prior lies in its box, in 0..1 (0 outside): ``[..., 4]``, ``[..., 4]`` to ``[...]``.

    The root of min(left, right) / max(left, right) times min(top, bottom) / max(top, bottom).

    Source: FCOS: Fully Convolutional One-Stage Object Detection, 2019, arXiv:1904.01355, equation 3
    """
    centre = (priors[..., :2] + priors[..., 2:]) / 2
    near, far = centre - boxes[..., :2], boxes[..., 2:] - centre
    tiny = torch.finfo(boxes.dtype).tiny
    share = torch.minimum(near, far).clamp(min=0) / torch.maximum(near, far).clamp(min=tiny)
    return share.prod(dim=-1).sqrt()
