"""Boxes as a point and two sides."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from torso.boxes.convert import xyxy_to_cxcywh


class CenterSize:
    """How far the centre of the box is from that of its prior, in strides, then width and height, as they are.

    ``decode(encode(box))`` is the box. Sides below 0 count as 0.

    Args:
        unit: of width and height: the ``"stride"`` of the cell (the authors' code) or the ``"pixel"`` (the paper).

    Raises:
        ValueError: an unknown unit.

    Source: Objects as Points, 2019, arXiv:1904.07850, section 3
    """

    size = 4

    def __init__(self, unit: Literal["stride", "pixel"] = "stride"):
        if unit not in ("stride", "pixel"):
            raise ValueError(f"center_size takes a unit stride or pixel, got {unit!r}")
        self.unit = unit

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """``xyxy`` boxes and priors ``[..., 4]`` to raw numbers ``[..., 4]``."""
        box, cell = xyxy_to_cxcywh(boxes), _given(strides)
        offset = (box[..., :2] - _centre(priors)) / cell
        return torch.cat([offset, box[..., 2:] / cell if self.unit == "stride" else box[..., 2:]], dim=-1)

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Raw numbers ``[..., 4]`` to ``xyxy`` boxes."""
        cell = _given(strides)
        centre = _centre(priors) + deltas[..., :2] * cell
        sides = deltas[..., 2:].clamp(min=0)
        half = (sides * cell if self.unit == "stride" else sides) / 2
        return torch.cat([centre - half, centre + half], dim=-1)


def _centre(priors: Tensor) -> Tensor:
    return (priors[..., :2] + priors[..., 2:]) / 2


def _given(strides: Tensor | None) -> Tensor:
    if strides is None:
        raise ValueError("center_size measures in strides: give them")
    return strides
