"""Proposals that nothing has learned: the same windows over every picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.models.inside import Keep
from torso.structures import Features, Losses, Targets


class Windows(nn.Module):
    """Windows of several sizes and shapes, each moved over the picture in equal steps; the largest come first.

    All sides and steps are shares of the picture's, so there are R windows for a picture of any size. A window of ratio
    ``r`` (height / width) and scale ``s`` has the sides ``s / sqrt(r)`` and ``s * sqrt(r)``, at most 1; it begins at
    both borders, and no farther than ``step`` times its side from the one before.

    Args:
        scales: sides of square windows, shares of the picture's, > 0 and at most 1.
        ratios: heights divided by widths, > 0.
        step: how far a window moves at most, a share of its side, > 0; with a third an object of a window's size and
            shape is overlapped by one with an IoU of a half at least.

    Raises:
        ValueError: no window, or numbers outside these ranges.

    Source: own design, for what was left to selective search in Rich Feature Hierarchies for Accurate Object Detection
        and Semantic Segmentation, 2013, arXiv:1311.2524
    """

    inside: ClassVar[tuple[str, ...]] = ()
    windows: Tensor

    def __init__(
        self,
        scales: Sequence[float] = (1.0, 0.7, 0.5, 0.35, 0.25),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        step: float = 1 / 3,
    ):
        super().__init__()
        if not scales or not ratios or min(scales) <= 0 or max(scales) > 1 or min(ratios) <= 0 or step <= 0:
            raise ValueError(
                f"scales in 0..1, ratios and a step above 0 expected, got {list(scales)}, {list(ratios)} and {step}"
            )
        rows = [row for scale in sorted(scales, reverse=True) for ratio in ratios for row in _moved(scale, ratio, step)]
        self.register_buffer("windows", torch.tensor(rows), persistent=False)  # [R, 4] xyxy in 0..1

    def forward(self, features: Features, size: tuple[int, int]) -> None:
        """Nothing: no head looks at the features."""

    def losses(self, output: None, targets: Targets) -> Losses:
        """None: nothing is learned."""
        return {}

    def choose(self, output: None, features: Features, size: tuple[int, int], keep: Keep) -> tuple[Tensor, Tensor]:
        """Regions ``[B, R, 4]`` and which are no padding, ``[B, R]``: all."""
        height, width = size
        left, top, right, bottom = self.windows.unbind(dim=-1)
        boxes = torch.stack([left * width, top * height, right * width, bottom * height], dim=-1)
        boxes = boxes.expand(features[0].shape[0], -1, -1)  # len() would be a constant under torch.export
        return boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool)


def _moved(scale: float, ratio: float, step: float) -> list[list[float]]:
    """One window at all its places, row by row."""
    width, height = min(scale / math.sqrt(ratio), 1.0), min(scale * math.sqrt(ratio), 1.0)
    return [[x, y, x + width, y + height] for y in _starts(height, step) for x in _starts(width, step)]


def _starts(side: float, step: float) -> list[float]:
    """Where a window begins: at 0, at ``1 - side``, and evenly between."""
    moves = math.ceil((1 - side) / (step * side) - 1e-9)
    return [(1 - side) * i / max(moves, 1) for i in range(moves + 1)]
