"""Coders: how a box is written relative to its prior.

A coder has ``size`` (numbers a box takes in the head's output), ``encode(boxes, priors, strides) -> deltas`` and
``decode(deltas, priors, strides) -> boxes``; both broadcast over leading dimensions, boxes and priors are ``xyxy``
pixels. ``strides [..., 2]`` are the cells' sizes along x and y; coders that measure in cells need them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from torso.boxes.center_size import CenterSize
from torso.boxes.convert import xyxy_to_cxcywh
from torso.boxes.distances import LTRB
from torso.boxes.distribution import Distribution
from torso.boxes.grid_coder import Grid
from torso.boxes.rep_points import RepPoints


class Coder(Protocol):
    """The contract of this role."""

    size: int

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """``xyxy`` boxes ``[..., 4]`` as ``[..., size]`` relative to ``priors [..., 4]``."""
        ...

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """The boxes back."""
        ...


class Delta:
    """Offsets of the centre in units of the prior's size, and log-ratios of width and height.

    Args:
        weights: factors of (x, y, w, h) deltas; (10, 10, 5, 5) is common for second stages.
        max_ratio: decoded sides are at most this many times the prior's: a wild logit cannot overflow ``exp``.

    Source: Faster R-CNN, 2015, arXiv:1506.01497
    """

    size = 4

    def __init__(self, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0), max_ratio: float = 62.5):
        self.weights = tuple(float(w) for w in weights)
        self.max_log = math.log(max_ratio)

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """``xyxy`` boxes and priors ``[..., 4]`` to deltas ``[..., 4]``; without area (padding) either stays finite."""
        box, prior, least = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(priors), torch.finfo(boxes.dtype).eps
        size = prior[..., 2:].clamp(min=least)
        centre = (box[..., :2] - prior[..., :2]) / size
        ratio = (box[..., 2:] / size).clamp(min=least).log()
        return _scaled(torch.cat([centre, ratio], dim=-1), self.weights)

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Deltas ``[..., 4]`` and ``xyxy`` priors to ``xyxy`` boxes."""
        deltas = _scaled(deltas, [1 / w for w in self.weights])
        prior = xyxy_to_cxcywh(priors)
        centre = prior[..., :2] + deltas[..., :2] * prior[..., 2:]
        half = deltas[..., 2:].clamp(max=self.max_log).exp() * prior[..., 2:] / 2
        return torch.cat([centre - half, centre + half], dim=-1)


def _scaled(deltas: Tensor, factors: Sequence[float]) -> Tensor:
    """``deltas [..., 4]``, each times its factor. No tensor is made of the factors: a GPU would have to wait for it."""
    if all(factor == 1 for factor in factors):
        return deltas
    return torch.stack([x * factor for x, factor in zip(deltas.unbind(dim=-1), factors, strict=True)], dim=-1)


CODERS: dict[str, type] = {
    "center_size": CenterSize,
    "delta": Delta,
    "distribution": Distribution,
    "grid": Grid,
    "ltrb": LTRB,
    "rep_points": RepPoints,
}
