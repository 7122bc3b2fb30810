"""The four ways to write a box, and clipping.

``xyxy`` left, top, right, bottom; ``xywh`` left, top, width, height (COCO); ``cxcywh`` centre, width, height (YOLO).
All functions take and return ``[..., 4]`` of any float dtype and are differentiable.

Source: torchvision.ops.box_convert.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size.

    >>> xyxy_to_cxcywh(torch.tensor([10.0, 20.0, 30.0, 60.0]))
    tensor([20., 40., 20., 40.])
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners to corner and size."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Corner and size to corners."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Areas ``[...]`` of ``xyxy`` boxes ``[..., 4]``; negative sides count as 0."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """``xyxy`` boxes cut to a picture of ``height`` x ``width`` pixels (which may be symbols of ``torch.export``)."""
    x = boxes[..., 0::2].clamp(min=0, max=width)
    y = boxes[..., 1::2].clamp(min=0, max=height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)
