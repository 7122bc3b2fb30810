"""Overlap of ``xyxy`` boxes: of all pairs, and of boxes row by row.

Boxes without area overlap nothing (0, never NaN), and gradients stay finite there.

Source: IoU is Jaccard's index; GIoU: Generalized Intersection over Union, 2019, arXiv:1902.09630; DIoU and CIoU:
Distance-IoU Loss, 2019, arXiv:1911.08287.
"""

from __future__ import annotations

import math

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


def pairwise_diou(first: Tensor, second: Tensor) -> Tensor:
    """DIoU in -1..1 of every box of ``first [..., N, 4]`` with every box of ``second [..., M, 4]``: ``[..., N, M]``."""
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    return pairwise_iou(first, second) - _apart(a, b)


def pairwise_giou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU in -1..1 of every box of ``first [..., N, 4]`` with every box of ``second [..., M, 4]``: ``[..., N, M]``."""
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    shared, hull = None, None
    for low, high in ((0, 2), (1, 3)):  # coordinate by coordinate, see `pairwise_iou`
        side = (torch.minimum(a[..., high], b[..., high]) - torch.maximum(a[..., low], b[..., low])).clamp(min=0)
        whole = torch.maximum(a[..., high], b[..., high]) - torch.minimum(a[..., low], b[..., low])
        shared, hull = (side, whole) if shared is None or hull is None else (shared * side, hull * whole)
    assert shared is not None
    assert hull is not None
    union = area(first).unsqueeze(-1) + area(second).unsqueeze(-2) - shared
    return _share(shared, union) - _share(hull - union, hull)


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


def diou(first: Tensor, second: Tensor) -> Tensor:
    """Distance IoU in -1..1, row by row: IoU less the squared distance of the centres over the hull's diagonal's."""
    return iou(first, second) - _apart(first, second)


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Complete IoU in -2..1, row by row: DIoU less ``a v``, where ``v`` in 0..1 says how unlike the shapes are.

    ``v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2`` and ``a = v / (1 - IoU + v)``. As in the paper, ``a`` is a number
    without a gradient. The gradient of ``v`` is the true one: the paper's code leaves out its ``1 / (w^2 + h^2)``,
    large where boxes are written in shares of the picture; here they are in pixels.
    """
    overlap = iou(first, second)
    unlike = (4 / math.pi**2) * (_angle(second) - _angle(first)).square()
    with torch.no_grad():
        a = _share(unlike, 1 - overlap + unlike)
    return overlap - _apart(first, second) - a * unlike


def _apart(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of the centres over that of the far corners of the smallest box around both, in 0..1."""
    distance, diagonal = (torch.zeros((), dtype=first.dtype, device=first.device) for _ in range(2))
    for low, high in ((0, 2), (1, 3)):  # coordinate by coordinate, see `pairwise_iou`
        apart = (first[..., low] + first[..., high] - second[..., low] - second[..., high]) / 2
        hull = torch.maximum(first[..., high], second[..., high]) - torch.minimum(first[..., low], second[..., low])
        distance, diagonal = distance + apart.square(), diagonal + hull.square()
    return _share(distance, diagonal)


def _angle(boxes: Tensor) -> Tensor:
    """Of the diagonal, ``atan(width / height)`` in 0..pi/2; of a point, that of a square."""
    width, height = ((boxes[..., i + 2] - boxes[..., i]).clamp(min=0) for i in (0, 1))
    there = width.square() + height.square() > 4 * torch.finfo(boxes.dtype).tiny  # by which the gradient divides
    return torch.atan2(torch.where(there, width, 1), torch.where(there, height, 1))


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
