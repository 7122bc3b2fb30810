"""From pixels to what a backbone expects, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NormalizePixels(nn.Module):
    """Scales pixels in 0..255 to 0..1, subtracts the mean and divides by the standard deviation, on the device.

    It is the first layer of every model, so an exported model carries it inside; it is no member of a loader's list,
    which keeps whole numbers.

    Args:
        mean: three numbers in 0..1; the default is ImageNet's. A backbone says its own.
        std: three numbers in 0..1.

    Shape: ``[B, 3, H, W]`` uint8, uint16 (0..65535 is 0..255) or floating point in 0..255 -> ``[B, 3, H, W]`` of the
    given floating type, float32 where it was none; channels-last where it came so.

    Source: torchvision.transforms.v2.Normalize.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__()
        # Both constants in the units of the pixels: one multiply and one add a pixel.
        scale = 1 / (255 * torch.tensor(list(std), dtype=torch.float64))
        shift = -torch.tensor(list(mean), dtype=torch.float64) * 255 * scale
        # Not persistent: they are part of the recipe, not learned.
        self.register_buffer("scale", scale.float()[:, None, None], persistent=False)
        self.register_buffer("shift", shift.float()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The normalised pictures."""
        return eight_bits(images) * self.get_buffer("scale") + self.get_buffer("shift")


def eight_bits(images: Tensor) -> Tensor:
    """Pixels of any type as floating point in 0..255."""
    if images.is_floating_point():
        return images
    return images.float() / 257 if images.dtype == torch.uint16 else images.float()


def normalizer(chosen: nn.Module | None, backbone: nn.Module) -> nn.Module:
    """The first layer of a model: the one chosen, or what the backbone says.

    Raises:
        ValueError: what was chosen is no layer.
    """
    if chosen is None:
        return NormalizePixels(backbone.mean, backbone.std)  # type: ignore[arg-type]
    if not isinstance(chosen, nn.Module):
        raise ValueError(f"normalize needs a layer such as normalize_robust, got {type(chosen).__name__}")
    return chosen
