"""The head of masks: where in a region its object is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.heads.dense import one_for_all
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.init import init_weights


class RoIMask(nn.Module):
    """3x3 convolutions on the features of a region, twice as many cells by a transposed one, and a mask for each class.

    A class has a mask of its own, so masks of classes do not compete: what the object is, the other head says.
    Features ``[B, R, C, S, S]`` become logits ``[B, R, K, 2S, 2S]``; where one class is asked for (`of_labels`), the
    masks of the others are not computed.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: classes K, each a mask; there is none of the background (torchvision's head has an idle one)
            (wired).
        channels: of the convolutions, >= 1.
        depth: how many 3x3 convolutions, >= 0.
        norm: normalisation after each of them; none in the paper.
        activation: after each of them and after the transposed one.

    Raises:
        ValueError: levels of different channels.

    Source: Mask R-CNN, 2017, arXiv:1703.06870, figure 4 right (torchvision's MaskRCNNHeads and MaskRCNNPredictor)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        depth: int = 4,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        (width, _) = one_for_all(in_channels, [1])
        widths = [width, *[channels] * depth]
        self.layers = nn.Sequential(
            *(ConvNormAct(a, channels, norm=norm, activation=activation) for a in widths[:-1]),
        )
        self.up = nn.ConvTranspose2d(widths[-1], channels, 2, 2)
        self.activation = activation()
        self.class_masks = nn.Conv2d(channels, num_classes, 1)
        init_weights(self)

    def forward(self, regions: Tensor) -> Tensor:
        """Features ``[B, R, C, S, S]`` to the masks of all classes, logits ``[B, R, K, 2S, 2S]``."""
        x: Tensor = self.class_masks(self._shared(regions))
        return x.view(*regions.shape[:2], *x.shape[1:])

    def of_labels(self, regions: Tensor, labels: Tensor) -> Tensor:
        """Of each region the mask of one class ``labels [B, R]`` int64: logits ``[B, R, 2S, 2S]``."""
        x = self._shared(regions)
        own = self.class_masks.weight.flatten(1)[labels.flatten()].unsqueeze(1)  # [B * R, 1, C]
        masks = torch.matmul(own, x.flatten(2)).squeeze(1)
        if self.class_masks.bias is not None:
            masks = masks + self.class_masks.bias[labels.flatten()].unsqueeze(1)
        return masks.view(*labels.shape, *x.shape[-2:])

    def _shared(self, regions: Tensor) -> Tensor:
        """What all classes look at, ``[B * R, C, 2S, 2S]``."""
        x: Tensor = self.activation(self.up(self.layers(regions.flatten(0, 1))))
        return x

    def reset_classes(self, num_classes: int) -> None:
        """New masks for other classes; the rest stays."""
        old = self.class_masks
        self.class_masks = nn.Conv2d(old.in_channels, num_classes, 1)
        init_weights(self.class_masks)
        self.class_masks.to(old.weight)
