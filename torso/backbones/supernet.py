"""The supernet of DetNAS: every block in all its kinds, of which a path takes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.backbones.detnas import (
    CHANNELS,
    KERNELS,
    Activation,
    DetNAS,
    ShuffleBlock,
    Size,
    blocks,
    checked,
    stage_ends,
)
from torso.backbones.levels import chosen
from torso.backbones.shufflenet import init_shuffle
from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class ChoiceBlock(nn.Module):
    """One block in all its kinds; a call says which of them is meant.

    Source: DetNAS, 2019, arXiv:1903.10979; Single Path One-Shot Neural Architecture Search, 2019, arXiv:1904.00420
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Layer, activation: Activation):
        super().__init__()
        self.kinds = nn.ModuleList(
            ShuffleBlock(in_channels, channels, stride, choice, norm, activation) for choice in range(len(KERNELS))
        )

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """``[B, in_channels, H, W]`` through the kind ``choice``."""
        out: Tensor = self.kinds[choice](x)
        return out


class DetNASSupernet(nn.Module):
    """All networks of the search space in one: a path of one choice a block is trained at a time.

    No path is drawn inside: `sample` draws one from a generator of yours, `forward` takes it, and `subnet` gives the
    network it stands for, with the weights it has by now. A network that shares weights like this needs the statistics
    of its batch norms computed anew on training pictures before it is judged (section 3.3 of the paper).

    Args:
        size: which search space.
        levels: levels to return; level ``l`` (2 to 5) has stride ``2 ** l``.
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ModelError: a level it does not have, or (when called) choices that are not one of 0 to 3 for each block.

    Source: DetNAS: Backbone Search for Object Detection, 2019, arXiv:1903.10979
    """

    mean, std = DetNAS.mean, DetNAS.std

    def __init__(
        self,
        size: Size = "300M",
        levels: Sequence[int] = (2, 3, 4, 5),
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Activation, Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        self.size: Size = size
        self.norm, self.activation = norm, activation
        self.levels = chosen(levels, range(2, 6), "the supernet of detnas")
        self.channels = [CHANNELS[size][level - 1] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        self.stem = ConvNormAct(3, CHANNELS[size][0], 3, 2, norm=norm, activation=activation)
        self.blocks = nn.ModuleList(ChoiceBlock(*block, norm, activation) for block in blocks(size, self.levels[-1]))
        self.ends = stage_ends(size, self.levels)
        init_shuffle(self)

    def sample(self, generator: torch.Generator) -> list[int]:
        """A path drawn uniformly: a choice for each block."""
        return torch.randint(len(KERNELS), (len(self.blocks),), generator=generator).tolist()

    def forward(self, images: Tensor, choices: Sequence[int]) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` along the path ``choices`` to the chosen levels."""
        path = checked(choices, len(self.blocks))
        images = self.stem(images)
        features = []
        for place, (block, choice) in enumerate(zip(self.blocks, path, strict=True)):
            images = block(images, choice)
            if place in self.ends:
                features.append(images)
        return features

    def subnet(self, choices: Sequence[int]) -> DetNAS:
        """The network that ``choices`` stand for, on the processor, with copies of the weights they have here."""
        path = checked(choices, len(self.blocks))
        whole = [*path, *[0] * (len(blocks(self.size, 5)) - len(path))]  # blocks above the last level are not built
        network = DetNAS(self.size, "coco_fpn", whole, self.levels, self.norm, self.activation)
        network.stem.load_state_dict(self.stem.state_dict())
        for mine, block, choice in zip(network.blocks, self.blocks, path, strict=True):
            kinds = block.get_submodule("kinds")
            mine.load_state_dict(kinds.get_submodule(str(choice)).state_dict())
        return network
