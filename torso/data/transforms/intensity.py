"""Values of pixels as a network takes them, on the device, where dividing by 255 is all or where it is wrong.

Scans and satellite pictures use an unknown, narrow part of their range, with a few wild values: their scale is taken
from each picture itself. Photographs are better served by `torso.nn.normalize.NormalizePixels`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class ToTensor(nn.Module):
    """Scales whole numbers to 0..1 and leaves floating-point pictures alone.

    Shape: ``[B, 3, H, W]`` uint8 (or any whole numbers: divided by their type's largest) -> float32.

    Source: torchvision v2.ToDtype(torch.float32, scale=True).
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        """The pictures in 0..1, channels-last where they came so."""
        if images.is_floating_point():
            return images
        return images.float() / torch.iinfo(images.dtype).max


class NormalizeRobust(nn.Module):
    """Scales each picture by its own values: between two percentiles to 0..1, or to mean 0 and deviation 1.

    Args:
        by: "percentile", or "zscore".
        low: percentile that becomes 0; what lies below is cut off.
        high: percentile that becomes 1; what lies above is cut off.
        each: "channel" has a scale of its own for each channel (bands of a satellite), "picture" a common one.

    Shape: ``[B, C, H, W]`` of any type -> float32 (or the given floating type). A picture of a single value gives 0.

    Raises:
        ValueError: percentiles out of order.

    Source: nnU-Net, 2018, arXiv:1809.10486 (clipping at percentiles, z-scores of each picture).
    """

    def __init__(
        self,
        by: Literal["percentile", "zscore"] = "percentile",
        low: float = 1.0,
        high: float = 99.0,
        each: Literal["channel", "picture"] = "channel",
    ) -> None:
        super().__init__()
        if not 0 <= low < high <= 100:
            raise ValueError(f"expected 0 <= low < high <= 100, got {low:g} and {high:g}")
        self.by = by
        self.low = low
        self.high = high
        self.each = each

    def forward(self, images: Tensor) -> Tensor:
        """The normalised pictures."""
        pixels = images if images.is_floating_point() else images.float()
        groups = pixels.flatten(2) if self.each == "channel" else pixels.flatten(1)[:, None]
        if self.by == "zscore":
            start, scale = groups.mean(-1), groups.std(-1, correction=0)
        else:
            start = percentile(groups, self.low)
            scale = percentile(groups, self.high) - start
        scale = torch.where(scale > 0, 1 / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)
        scaled = (pixels - start[..., None, None]) * scale[..., None, None]
        return scaled.clamp(0, 1) if self.by == "percentile" else scaled


def percentile(values: Tensor, percent: float) -> Tensor:
    """The percentile of the last dimension, between two values in proportion (as numpy's default).

    ``torch.quantile`` refuses more than 16 million values and sorts them all.
    """
    place = percent / 100 * (values.shape[-1] - 1)
    below = values.kthvalue(int(place) + 1, dim=-1).values
    if place == int(place):
        return below
    return below + (values.kthvalue(int(place) + 2, dim=-1).values - below) * (place - int(place))
