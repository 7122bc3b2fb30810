"""Regions of interest: features of any number of boxes at one size.

A part of this role is constructed with the ``strides`` of the levels (wired) and called with the features of all levels
and ``boxes [B, R, 4]`` (``xyxy`` pixels of the network's input; rows of padding are boxes without area); it returns
``[B, R, C, size, size]``. The number of boxes is fixed, so nothing depends on data but values. A row of padding, a box
outside of the picture and one that is no number give finite features.

Where a box lies on its map: ``aligned`` subtracts half a cell, so that the centre of the first cell, at 0.5, is the
number of the first row (Detectron2, `torchvision.ops.roi_align(aligned=True)`); without, a box is half a cell too far
right and down, as in Mask R-CNN's first code and torchvision's detectors. Pooling rounds a box to whole cells instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from torso.boxes.roi_align import RoIAlign
from torso.boxes.roi_levels import level_of
from torso.boxes.roi_pool import RoIPool
from torso.boxes.roi_sensitive import PositionSensitive
from torso.structures import Features

__all__ = ["BESIDE", "ROIS", "PositionSensitive", "RoI", "RoIAlign", "RoIPool", "level_of"]


class RoI(Protocol):
    """The contract of this role."""

    size: int

    def __call__(self, features: Features, boxes: Tensor) -> Tensor:
        """Features of ``boxes [B, R, 4]``: ``[B, R, C, size, size]``."""
        ...


BESIDE: dict[str, Callable[..., Any]] = {"level_assignment": level_of}
"""What all of them look up their level with, listed for its page: it cuts nothing out."""

ROIS: dict[str, Callable[..., Any]] = {
    "align": RoIAlign,
    "pool": RoIPool,
    "position_sensitive": PositionSensitive,
    **BESIDE,
}
