"""torchvision's AlexNet, SqueezeNet and ShuffleNet V2, cut into levels (timm has none of them)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from torso.backbones.levels import chosen
from torso.backbones.padding import cut, padded
from torso.backbones.timm import freeze
from torso.backbones.weights import body_weights
from torso.config import ModelError
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.structures import Features


class Cut(nn.Module):
    """A row of layers that returns what some of them give.

    Args:
        body: children that run one after the other; their names are those of the weight file.
        ends: level to the place among ``body``'s layers that the level ends with.
        channels: channels of each level.
        levels: levels to return; layers above the highest one are taken away.
        name: of the network, for messages.
        weights: path of the weights of the whole model, or ``None``.
        frozen_stages: 0, or ``n`` to freeze everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        border: pixels of zeros around the picture.

    Source: torchvision.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(
        self,
        body: nn.Sequential,
        ends: dict[int, int],
        channels: dict[int, int],
        levels: Sequence[int],
        name: str,
        *,
        weights: str | None,
        frozen_stages: int,
        frozen_norm: bool = False,
        border: int = 0,
    ):
        super().__init__()
        self.levels = chosen(levels, sorted(ends), name)
        self.channels = [channels[level] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        self.border = border
        names = [key for key, _ in body.named_children()][: ends[self.levels[-1]] + 1]
        self.ends = [ends[level] for level in self.levels]
        self.body = nn.ModuleDict({key: getattr(body, key) for key in names})
        if weights is not None:
            self.body.load_state_dict(body_weights(weights, name, self.body.state_dict()))
        if frozen_stages and ends.get(frozen_stages + 1, len(names)) >= len(names):
            raise ModelError(
                f"frozen_stages={frozen_stages} ends at stride {2 ** (frozen_stages + 1)}, but {name} with levels="
                f"{self.levels} has no stage that ends there: choose less, or 0 to train everything"
            )
        last = names[ends[frozen_stages + 1]] if frozen_stages else None
        self.frozen = freeze(self.body, last, frozen_norm)

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        x = images
        if self.border:
            x = functional.pad(padded(x, self.strides[-1]), [self.border] * 4)
        features = []
        for place, layer in enumerate(self.body.values()):
            x = layer(x)
            if place in self.ends:
                features.append(x)
        return cut(features, self.strides, *images.shape[-2:]) if self.border else features

    def train(self, mode: bool = True) -> Cut:
        """As in torch, except that frozen norms stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


class Whole(nn.Module):
    """Layers, pooling to a fixed grid and fully connected layers: one vector a picture, as a 1x1 map."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential, grid: int, weights: str | None):
        super().__init__()
        self.channels, self.strides = [4096], [224]
        self.body = nn.ModuleDict({"features": features, "classifier": classifier})
        self.pool = nn.AdaptiveAvgPool2d(grid)
        if weights is not None:
            self.body.load_state_dict(body_weights(weights, "alexnet", self.body.state_dict()))

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to ``[B, 4096, 1, 1]``."""
        grid = self.pool(self.body["features"](images))  # [B, 256, 6, 6]
        return [self.body["classifier"](grid.flatten(1))[:, :, None, None]]


def alexnet(
    variant: Literal["torchvision", "wide"] = "torchvision",
    levels: Sequence[int] = (2, 3, 4),
    fully_connected: bool = False,
    weights: str | None = None,
    frozen_stages: int = 0,
) -> Cut | Whole:
    """AlexNet: five convolutions, cut into levels, or whole up to its last linear layer.

    AlexNet's poolings and its first convolution lose the border (a picture of 224 px becomes 55, 27, 13 and 6 cells).
    As a pyramid it sees a border of zeros, and its poolings round up: the same weights, and ``ceil(H / stride)`` cells.

    Args:
        variant: ``"torchvision"`` has 64, 192, 384, 256 and 256 channels (the one-tower network of arXiv:1404.5997;
            61,100,840 parameters with 1000 classes); ``"wide"`` has the 96, 256, 384, 384 and 256 of the paper, its
            towers joined, and ends with 5x5 cells (46,787,978 parameters with 10 classes).
        levels: levels to return: 2, 3 and 4 end before a pooling, 5 is the last pooling.
        fully_connected: return one level ``[B, 4096, 1, 1]`` from the two fully connected layers instead, computed
            exactly as the classifier does; with the head ``classify`` this is the whole AlexNet.
        weights: path of a weight file of torchvision's ``alexnet``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: ImageNet Classification with Deep Convolutional Neural Networks, 2012 (torchvision's weights)
    """
    widths, padding, grid = ((64, 192, 384, 256, 256), 2, 6) if variant == "torchvision" else (WIDE, 1, 5)
    features = alexnet_layers(widths, padding)
    if not fully_connected:
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        return pyramid(features, "alexnet", levels, weights, frozen_stages)
    if frozen_stages:
        raise ModelError("alexnet with fully_connected=True has no stages to freeze: leave frozen_stages at 0")
    linear = [nn.Dropout(), nn.Linear(256 * grid**2, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    return Whole(features, nn.Sequential(*linear), grid, weights)


WIDE = (96, 256, 384, 384, 256)


def alexnet_layers(widths: Sequence[int], padding: int) -> nn.Sequential:
    """The convolutions and poolings, named as in torchvision."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 11, 4, padding), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(widths[0], widths[1], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for before, after in pairwise(widths[1:]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2))


def squeezenet(
    version: Literal["1_0", "1_1"] = "1_1",
    levels: Sequence[int] = (2, 3, 4),
    weights: str | None = None,
    frozen_stages: int = 0,
) -> Cut:
    """SqueezeNet: fire modules, which squeeze channels by 1x1 and expand them by 1x1 and 3x3 side by side.

    Its first convolution loses the border (a picture of 224 px becomes 111, 55, 27 and 13 cells). Here it sees a border
    of zeros: the same weights, and ``ceil(H / stride)`` cells.

    Args:
        version: ``"1_1"`` costs 2.4 times less than ``"1_0"``.
        levels: levels to return: 1, 2 and 3 end before a pooling, 4 after the last fire module.
        weights: path of a weight file of torchvision's ``squeezenet1_0`` or ``squeezenet1_1``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, 2016, arXiv:1602.07360
        (torchvision's implementation)
    """
    from torchvision import models

    whole: Any = models.squeezenet1_0() if version == "1_0" else models.squeezenet1_1()
    return pyramid(whole.features, f"squeezenet{version}", levels, weights, frozen_stages)


def pyramid(features: nn.Sequential, name: str, levels: Sequence[int], weights: str | None, frozen_stages: int) -> Cut:
    """Levels that end before each pooling and with the last layer, under names that begin with ``features``."""
    from torchvision.models.squeezenet import Fire

    first: Any = features[0]
    stem = first.stride[0].bit_length() - 1
    pools = [place for place, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    last = len(features) - 1
    ends = {stem + i: place for i, place in enumerate([*(pool - 1 for pool in pools), last])}
    named = nn.Sequential()
    for key, layer in features.named_children():
        named.add_module(f"features_{key}", layer)
    channels, width = {}, 0
    for place, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            width = layer.out_channels
        elif isinstance(layer, Fire):
            width = layer.expand1x1.out_channels + layer.expand3x3.out_channels
        channels.update({level: width for level, end in ends.items() if end == place})
    # Half of the kernel as padding, so that the first convolution looks at the middle of each cell.
    border = first.kernel_size[0] // 2 - first.padding[0]
    return Cut(named, ends, channels, levels, name, weights=weights, frozen_stages=frozen_stages, border=border)


def shufflenet_v2(
    width: Literal[50, 100, 150, 200] = 100,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    top_conv: bool = False,
) -> Cut:
    """ShuffleNet V2: half of the channels go past every block, and channels are shuffled after it.

    Args:
        width: channels in percent of the paper's 1x.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``: the first convolution, the pooling, and
            stages 2 to 4 of the paper.
        weights: path of a weight file of torchvision's ``shufflenet_v2_x1_0`` (``_x0_5``, ...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        top_conv: level 5 goes through the classifier's last convolution too, to 1024 channels (2048 at width 200).

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018, arXiv:1807.11164
        (torchvision's implementation)
    """
    from torchvision import models

    name = f"shufflenet_v2_x{width // 100}_{width % 100 // 10}"
    whole: Any = models.get_model(name, weights=None)
    layers = nn.Sequential()
    for key, layer in whole.named_children():
        if key != "fc":
            layers.add_module(key, layer)
    ends = {1: 0, 2: 1, 3: 2, 4: 3, 5: 5 if top_conv else 4}
    stem, top = (layer[0].out_channels for layer in (whole.conv1, whole.conv5))
    two, three, four = (stage[0].branch2[-2].num_features * 2 for stage in (whole.stage2, whole.stage3, whole.stage4))
    channels = {1: stem, 2: stem, 3: two, 4: three, 5: top if top_conv else four}
    return Cut(
        layers, ends, channels, levels, name, weights=weights, frozen_stages=frozen_stages, frozen_norm=frozen_norm
    )
