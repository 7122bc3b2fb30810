"""From pixels to what a backbone expects, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NormalizePixels(nn.Module):
    """``uint8`` (or float 0..255) pixels ``[B, 3, H, W]`` to float ``(x / 255 - mean) / std``.

    It is the first layer of every model, so an exported model carries it inside.

    Source: torchvision.transforms.v2.Normalize.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__()
        scale = 1 / (255 * torch.tensor(list(std), dtype=torch.float64))
        shift = -torch.tensor(list(mean), dtype=torch.float64) * 255 * scale
        # Not persistent: they are part of the recipe, not learned.
        self.register_buffer("scale", scale.float()[:, None, None], persistent=False)
        self.register_buffer("shift", shift.float()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """One multiply-add a pixel; the memory format of the input is kept."""
        scale: Tensor = self.get_buffer("scale")
        return images.to(scale.dtype) * scale + self.get_buffer("shift")
