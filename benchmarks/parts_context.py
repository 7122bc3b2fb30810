"""Context necks beside their closest library parts: ASPP, U-Net's decoder, spatial attention.

``PAIRS``: name -> (ours, theirs, inputs), for ``parts.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Inputs = tuple[list[Tensor]]
Pair = tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Inputs]]

RATES = (12, 24, 36)
ENCODER, STRIDES = [64, 64, 128, 256, 512], [2, 4, 8, 16, 32]  # ResNet-18 for a picture of 256 px
LEVELS = [128, 256, 512]


class OnList(nn.Module):
    """A library's part, called with the list of levels that a neck takes."""

    def __init__(self, part: nn.Module, call: Callable[[nn.Module, list[Tensor]], list[Tensor]]):
        super().__init__()
        self.part, self.call = part, call

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return self.call(self.part, features)


def our_aspp() -> nn.Module:
    from torso.necks import ASPP

    return ASPP([512], [8], 256, RATES)


def their_aspp() -> nn.Module:
    from torchvision.models.segmentation.deeplabv3 import ASPP

    return OnList(ASPP(512, RATES, 256), lambda part, features: [part(features[0])])


def our_unet() -> nn.Module:
    from torso.necks import UNet

    return UNet(ENCODER, STRIDES, finer=1)


def their_unet() -> nn.Module:
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    def call(part: nn.Module, features: list[Tensor]) -> list[Tensor]:
        batch, _, height, width = features[0].shape
        return [part([features[0].new_empty(batch, 3, 2 * height, 2 * width), *features])]

    return OnList(UnetDecoder((3, *ENCODER), (256, 128, 64, 32, 16)), call)


def our_sam() -> nn.Module:
    from torso.necks import SAM

    return SAM(LEVELS, STRIDES[2:])


def their_sam() -> nn.Module:
    from timm.layers.cbam import SpatialAttn

    return OnList(
        nn.ModuleList(SpatialAttn() for _ in LEVELS),
        lambda part, features: [attend(x) for attend, x in zip(part, features, strict=True)],  # type: ignore[call-overload]
    )


def levels(channels: list[int], sides: list[int], batch: int = 2) -> Inputs:
    """Maps that ask for gradients."""
    generator = torch.Generator().manual_seed(0)
    return (
        [
            torch.randn(batch, c, side, side, generator=generator).requires_grad_()
            for c, side in zip(channels, sides, strict=True)
        ],
    )


PAIRS: dict[str, Pair] = {
    "neck/aspp": (our_aspp, their_aspp, lambda: levels([512], [32])),
    "neck/unet": (
        our_unet,
        their_unet,
        lambda: levels(ENCODER, [128, 64, 32, 16, 8]),
    ),
    "neck/sam": (our_sam, their_sam, lambda: levels(LEVELS, [64, 32, 16])),
}
