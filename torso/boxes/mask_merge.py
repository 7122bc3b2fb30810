"""Masks of boxes that were merged: what the looks said of one object, brought over the box that is left of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from torso.boxes.candidates import rows
from torso.boxes.ordered import precise, same_class
from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections

ELSEWHERE = 1e-6  # weight of a look that has no box there: it counts only where no look has one


def merged_masks(answer: Detections, looks: Sequence[Detections], overlap: float) -> Tensor:
    """The masks of a merged answer: of each look the mask of the box that fits best, all in a mean by score.

    Args:
        answer: merged boxes; its masks are not looked at.
        looks: what was merged, with masks, at least one row each; boxes in pixels of the same pictures.
        overlap: from which IoU (0..1) a box of a look means the same object.

    Returns:
        ``[B, D, S, S]`` in 0..1 over the boxes of ``answer``; zeros in its padding.
    """
    total: Tensor | float = 0.0
    weights: Tensor | float = 0.0
    for look in looks:
        if look.masks is None:
            raise ValueError("masks are merged where every look has some")
        fits = pairwise_iou(precise(answer.boxes), precise(look.boxes))  # [B, D, N]
        there = same_class(answer.labels, look.labels) & look.valid.unsqueeze(1)
        best, where = torch.where(there, fits, 0.0).max(dim=-1)  # [B, D]
        weight = look.scores.gather(1, where) * torch.where(best > overlap, best, best * ELSEWHERE)
        side = look.masks.shape[-1]
        masks = rows(look.masks.flatten(2), where).reshape(*where.shape, side, side)
        moved = over(masks, rows(look.boxes, where), answer.boxes)
        total = total + moved * weight[..., None, None]
        weights = weights + weight
    assert isinstance(total, Tensor)
    assert isinstance(weights, Tensor)
    known = answer.valid & (weights > 0)
    found = total / torch.where(known, weights, 1.0)[..., None, None]
    return torch.where(known[..., None, None], found, 0.0).clamp(0, 1)


def over(masks: Tensor, boxes: Tensor, others: Tensor) -> Tensor:
    """Masks over ``boxes [B, D, 4]`` as masks ``[B, D, S, S]`` over ``others [B, D, 4]``: bilinear, 0 outside.

    A cell is its centre, as when a mask is pasted into a picture; over its own box a mask stays what it is.
    """
    side = masks.shape[-1]
    centres = (torch.arange(side, dtype=others.dtype, device=others.device) + 0.5) / side
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=torch.finfo(boxes.dtype).eps)

    def along(axis: int) -> Tensor:
        low, high = others[..., axis, None], others[..., axis + 2, None]
        place = low + (high - low) * centres  # [B, D, S] pixels
        return (place - boxes[..., axis, None]) / size[..., axis, None] * 2 - 1

    x, y = along(0), along(1)
    grid = torch.stack([x.unsqueeze(-2).expand(*x.shape, side), y.unsqueeze(-1).expand(*y.shape, side)], dim=-1)
    flat = masks.to(grid.dtype).flatten(0, 1).unsqueeze(1)
    moved = F.grid_sample(flat, grid.flatten(0, 1), mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.reshape(masks.shape).to(masks.dtype)
