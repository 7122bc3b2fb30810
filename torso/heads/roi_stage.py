"""The head of a second stage without a pyramid: the end of the backbone, for each region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from torso.config import Role
from torso.heads.region import RegionHead, RoIOutput
from torso.nn.conv import Layer
from torso.nn.frozen import Frozen
from torso.nn.residual import bottleneck
from torso.nn.transfer import load_weights


class RoIStage(RegionHead):
    """The last stage of a ResNet on the features of a region, their mean, then one layer for classes and one for boxes.

    Args:
        in_channels: channels of the one level (wired).
        num_classes: logits K of a region, the background's among them (wired).
        coder_size: numbers a box takes (wired).
        num_boxes: for how many classes a box is said, 1 or all but the background (wired).
        channels: of the stage.
        blocks: how many bottlenecks there are.
        stride: of the first; regions of 14 cells become 7.
        norm: in the blocks; frozen as in Detectron, for regions of one picture are no sample of their own.
        activation: in the blocks.
        weights: path of a file of timm's or torchvision's ResNet, of which this is ``layer4``; random ones when None.

    Raises:
        ValueError: more levels than one.
        ModelError: weights of another network.

    Source: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385, appendix A (Detectron's C4)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        coder_size: int = 4,
        num_boxes: int = 1,
        *,
        channels: int = 2048,
        blocks: int = 3,
        stride: int = 2,
        norm: Annotated[Layer, Role("norm", factory=True)] = Frozen,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        weights: str | None = None,
    ):
        super().__init__()
        if len(in_channels) != 1:
            raise ValueError(
                f"the last stage of a backbone goes on from one level, got {len(in_channels)}: take a backbone with "
                "levels: [4] and the neck identity, or the head roi_box"
            )
        layers, width = [], in_channels[0]
        for number in range(blocks):
            layers.append(bottleneck(width, channels, 1 if number else stride, norm=norm, activation=activation))
            width = channels
        self.stage = nn.Sequential(*layers)
        for layer in self.stage.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_weights(self.stage, weights, prefix="", rename=_names(blocks), minimum=1.0)
        self.end(width, num_classes, coder_size, num_boxes)

    def forward(self, regions: Tensor) -> RoIOutput:
        """Features ``[B, R, C, S, S]`` to logits ``[B, R, K]`` and deltas ``[B, R, boxes * D]``."""
        x = self.stage(regions.flatten(0, 1)).mean(dim=(2, 3))  # [B * R, channels]
        x = x.unflatten(0, regions.shape[:2])
        return self.said(x)


def _names(blocks: int) -> dict[str, str]:
    """Beginnings of names in a ResNet's file, and what they are called in the stage."""
    found = {f"layer4.0.downsample.{i}.": f"0.shortcut.{i}." for i in range(2)}
    for block in range(blocks):
        for i in range(3):
            found[f"layer4.{block}.conv{i + 1}."] = f"{block}.path.{i}.0."
            found[f"layer4.{block}.bn{i + 1}."] = f"{block}.path.{i}.1."
    return found
