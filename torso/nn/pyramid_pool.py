"""One map seen through windows of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class PyramidPool(nn.Module):
    """A map and its maxima over windows of several sizes around every cell, concatenated.

    ``[B, C, H, W]`` to ``[B, C * (1 + len(kernels)), H, W]``: the map itself first, then the windows in their order
    (Darknet's files have them the other way round).

    Args:
        kernels: sides of the windows in cells: odd, rising.
        chained: each window from the one before (SPPF): 5, 9 and 13 are one, two and three times 5. The same numbers
            for fewer comparisons; only where a window holds its maximum twice may the gradient go to the other one.

    Raises:
        ValueError: even kernels, or such that do not rise.

    Source: YOLOv3-SPP, after Spatial Pyramid Pooling in Deep Convolutional Networks, 2014, arXiv:1406.4729
    """

    def __init__(self, kernels: Sequence[int] = (5, 9, 13), chained: bool = True):
        super().__init__()
        if not kernels or any(kernel % 2 == 0 for kernel in kernels) or any(b <= a for a, b in pairwise([1, *kernels])):
            raise ValueError(f"kernels of spp are odd numbers above 1, rising, got {list(kernels)}")
        self.kernels, self.chained = tuple(kernels), chained

    def forward(self, x: Tensor) -> Tensor:
        """One map to the windows of it."""
        maps = [x]
        for before, kernel in pairwise([1, *self.kernels]):
            window = kernel - before + 1 if self.chained else kernel
            maps.append(functional.max_pool2d(maps[-1 if self.chained else 0], window, 1, window // 2))
        return torch.cat(maps, dim=1)
