"""Suppression of boxes that lie inside others: of an object cut in two, the halves do not stay beside the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from torso.boxes.convert import area
from torso.boxes.greedy import Greedy


class IoSNMS(Greedy):
    """Greedy suppression by the intersection over the smaller area: half of an object is all inside the whole.

    For answers of several looks at parts of a picture, where a seam cuts objects (`torso.deploy.tiled`). Objects that
    truly lie inside others of their class are lost, so it is no suppressor for crowds.

    Args:
        overlap: the largest share (0..1) of the smaller of two boxes that may lie inside the other.
        max_detections: rows of the answer, over all classes.
        per_class: boxes of different classes leave each other alone.

    Source: Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection, 2022, arXiv:2202.06934
    """

    def __init__(self, overlap: float = 0.5, max_detections: int = 300, per_class: bool = True):
        super().__init__(pairwise_ios, overlap, max_detections, per_class)


def pairwise_ios(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over the smaller area, 0..1, of ``first [..., N, 4]`` and ``second [..., M, 4]``: ``[..., N, M]``.

    Boxes without area, or without end, overlap nothing.

    >>> pairwise_ios(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 10, 10], [5.0, 5, 15, 15]]))
    tensor([[1.0000, 0.2500]])
    """
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    shared = width * height  # [..., N, M]
    one, other = area(first).unsqueeze(-1), area(second).unsqueeze(-2)
    smaller = torch.minimum(one, other)
    there = (smaller > 4 * torch.finfo(smaller.dtype).tiny) & torch.maximum(one, other).isfinite()
    return torch.where(there, shared, 0) / torch.where(there, smaller, 1)
