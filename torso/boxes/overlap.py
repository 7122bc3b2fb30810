"""Overlap of ``xyxy`` boxes: of all pairs, and of boxes row by row.

Boxes without area overlap nothing (0, never NaN), and gradients stay finite there.

Source: IoU is Jaccard's index; GIoU: Generalized Intersection over Union, 2019, arXiv:1902.09630.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torso.boxes.convert import area


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU in 0..1 of every box of ``first [..., N, 4]`` with every box of ``second [..., M, 4]``: ``[..., N, M]``.

    >>> pairwise_iou(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([[20.0, 20, 40, 40]]))
    tensor([[0.1429]])
    """
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)  # [..., N, 1, 4], [..., 1, M, 4]
    # Coordinate by coordinate: a trailing dimension of 2 costs several times more memory traffic.
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    shared = width * height  # [..., N, M]
    union = area(first).unsqueeze(-1) + area(second).unsqueeze(-2) - shared
    return _share(shared, union)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU in 0..1, row by row, of ``[..., 4]`` and ``[..., 4]``: ``[...]``."""
    return _share(*_shared_and_union(first, second))


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU in -1..1, row by row: IoU less the empty share of the smallest box around both."""
    shared, union = _shared_and_union(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).prod(dim=-1)
    return _share(shared, union) - _share(hull - union, hull)


def _shared_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    return shared, area(first) + area(second) - shared


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and 0 where there is no whole, or one so small that the gradient ``1 / whole`` overflows.

    Not a clamp of ``whole``: a small one makes the gradient infinite, a larger one is wrong for small boxes.
    """
    there = whole > 4 * torch.finfo(whole.dtype).tiny
    return torch.where(there, part, 0) / torch.where(there, whole, 1)
