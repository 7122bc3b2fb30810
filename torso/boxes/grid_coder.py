"""Boxes written relative to a cell of a grid: the coder of the YOLO family."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from torso.boxes.convert import xyxy_to_cxcywh


class Grid:
    """The centre as a place in its cell, the size as a factor of the prior's.

    The cell is the one around the prior's centre, so priors lie in the middle of their cells (``kmeans``, ``grid``);
    deltas are ``(x, y, w, h)``, raw:

    - ``centre="sigmoid"``: ``corner + (sigmoid(x) * scale - (scale - 1) / 2) * stride``. YOLOv2 and v3 have a scale of
      1; with more, centres on a cell's border take no infinite ``x`` ("grid sensitive": YOLOv4 1.05 to 1.2, PP-YOLO
      1.05, YOLOv5 2). A centre that the cell cannot reach is encoded as the nearest one that it can.
    - ``centre="linear"``: ``corner + x * stride`` (YOLOv1, YOLOX), anywhere.
    - ``side="exp"``: ``prior * exp(w)`` (YOLOv2, v3, v4, YOLOX).
    - ``side="square"``: ``prior * (2 * sigmoid(w)) ** 2``, at most four times the prior (scaled YOLOv4, YOLOv5).
    - ``side="root"``: ``prior * w ** 2``: the head says roots of sizes (YOLOv1).
    - ``side="linear"``: ``prior * w``, without roots.

    Args:
        centre: how the centre is written.
        side: how width and height are.
        scale: stretches what a sigmoid can reach around the middle of the cell, 1 or more.
        unit: prior sides that a factor of 1 means: with the ``grid`` prior, 7 makes sizes parts of a picture of 7 cells
            (YOLOv1).
        max_ratio: with ``exp``, decoded sides are at most this many times the prior's.

    Raises:
        ValueError: a scale below 1, or a unit or ratio that is not above 0.

    Source: YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242; scale: YOLOv4, 2020, arXiv:2004.10934; square:
        Scaled-YOLOv4, 2020, arXiv:2011.08036; root: YOLOv1, 2015, arXiv:1506.02640
    """

    size = 4

    def __init__(
        self,
        centre: Literal["sigmoid", "linear"] = "sigmoid",
        side: Literal["exp", "square", "root", "linear"] = "exp",
        scale: float = 1.0,
        unit: float = 1.0,
        max_ratio: float = 1000.0,
    ):
        if scale < 1 or unit <= 0 or max_ratio <= 0:
            raise ValueError(f"expected scale >= 1, unit > 0 and max_ratio > 0, got {scale}, {unit} and {max_ratio}")
        self.centre, self.side = centre, side
        self.scale, self.unit, self.max_log = scale, unit, math.log(max_ratio)

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """``xyxy`` boxes and priors ``[..., 4]`` to raw deltas ``[..., 4]``, finite for any box (padding)."""
        box, prior, stride = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(priors), _needed(strides)
        place = (box[..., :2] - prior[..., :2]) / stride + 0.5  # in cells from the cell's corner
        if self.centre == "sigmoid":
            place = _logit((place + (self.scale - 1) / 2) / self.scale)
        ratio = (box[..., 2:] / (prior[..., 2:] * self.unit)).clamp(min=torch.finfo(boxes.dtype).eps)
        if self.side == "exp":
            ratio = ratio.log()
        elif self.side == "square":
            ratio = _logit(ratio.sqrt() / 2)
        elif self.side == "root":
            ratio = ratio.sqrt()
        return torch.cat([place, ratio], dim=-1)

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Raw deltas ``[..., 4]`` and ``xyxy`` priors to ``xyxy`` boxes."""
        prior, stride = xyxy_to_cxcywh(priors), _needed(strides)
        place, ratio = deltas[..., :2], deltas[..., 2:]
        if self.centre == "sigmoid":
            place = place.sigmoid() * self.scale - (self.scale - 1) / 2
        if self.side == "exp":
            ratio = ratio.clamp(max=self.max_log).exp()
        elif self.side == "square":
            ratio = (2 * ratio.sigmoid()).square()
        elif self.side == "root":
            ratio = ratio.square()
        else:
            ratio = ratio.clamp(min=0)
        centre = prior[..., :2] + (place - 0.5) * stride
        half = ratio * prior[..., 2:] * (self.unit / 2)
        return torch.cat([centre - half, centre + half], dim=-1)


def _logit(share: Tensor) -> Tensor:
    """The inverse of a sigmoid; 0 and 1, and what lies outside, become the last numbers that are finite."""
    edge = torch.finfo(share.dtype).eps
    return share.clamp(edge, 1 - edge).logit()


def _needed(strides: Tensor | None) -> Tensor:
    if strides is None:
        raise ValueError("the grid coder measures in cells: encode and decode need strides")
    return strides
