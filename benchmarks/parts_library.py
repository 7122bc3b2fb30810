"""Backbones adapted from libraries and the same network called by the library: name -> ours, theirs, inputs."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

from torso.backbones import ViT, resnet, squeezenet, swin

Inputs = tuple[Tensor, ...]


class Trunk(nn.Module):
    """The transformer of our ViT alone."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViT("tiny", levels=(4,), channels=None)

    def forward(self, images: Tensor) -> Tensor:
        """The map of stride 16."""
        return self.vit.trunk(images)


class Patches(nn.Module):
    """timm's ViT without its final norm."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="")
        self.vit.norm = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """All tokens."""
        return self.vit.forward_features(images)


def squeezenet_of_torchvision() -> nn.Module:
    """The same layers on the same border of zeros."""
    from torchvision.models import squeezenet1_1

    return nn.Sequential(nn.ZeroPad2d(1), squeezenet1_1(weights=None).features)


def swin_of_timm() -> nn.Module:
    """For one size only, with masks made beforehand; ours makes them for the picture it sees."""
    return timm.create_model("swin_tiny_patch4_window7_224", features_only=True)


def pictures() -> Inputs:
    """Two of 224 px."""
    return (torch.randn(2, 3, 224, 224),)


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "backbone/resnet": (
        lambda: resnet(50, levels=(2, 3, 4, 5)),
        lambda: timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4)),
        pictures,
    ),
    "backbone/squeezenet": (lambda: squeezenet(levels=(4,)), squeezenet_of_torchvision, pictures),
    "backbone/swin": (swin, swin_of_timm, pictures),
    "backbone/vit": (Trunk, Patches, pictures),
}
