"""U-Net's decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from torch import nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.skips import ConcatSkip
from torso.structures import Features


class UNet(nn.Module):
    """From the coarsest level up: upsample, put the finer level beside it, two 3x3 convolutions; every step goes out.

    The coarsest level is where it starts and goes out no more: n levels become n - 1, and ``finer`` ones before them,
    which have no skip. Their sizes are those of the finest level doubled: they tell the truth for pictures whose sides
    are multiples of its stride. A head for pixels takes the first of what goes out.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels that go out, finest first: one number for all, or one each; 16 times the stride by default
            (segmentation_models_pytorch's 256, 128, 64, 32, 16 for the strides 16 to 1).
        finer: steps without a skip beyond the finest level, each twice as fine.
        centre: two more 3x3 convolutions on the coarsest level first.
        upsample: ``"nearest"``, ``"bilinear"``, or ``"transposed"``: a learned convolution, as in the paper.
        norm: normalisation after each convolution; the paper has none.
        activation: activation after each norm.

    Raises:
        ValueError: the levels do not fit each other, there is one only, ``channels`` are not as many as levels, or the
            finest stride cannot be halved ``finer`` times.

    Source: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, arXiv:1505.04597, with padded
        convolutions
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] | None = None,
        finer: int = 0,
        centre: bool = False,
        upsample: Literal["nearest", "bilinear", "transposed"] = "nearest",
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        ratios = check_levels("unet", in_channels, strides, least=2)
        if finer < 0 or strides[0] % 2**finer:
            raise ValueError(f"unet cannot halve the stride {strides[0]} of the finest level {finer} times")
        self.strides = [*(strides[0] // 2**i for i in range(finer, 0, -1)), *strides[:-1]]
        self.channels = channels_of_levels("unet", channels, [16 * stride for stride in self.strides])
        deepest = in_channels[-1]
        self.centre = nn.Sequential(
            *(ConvNormAct(deepest, deepest, norm=norm, activation=activation) for _ in range(2 if centre else 0))
        )
        before = [*self.channels[1:], deepest]
        skips = [*([0] * finer), *in_channels[:-1]]
        self.finer = finer
        self.steps = nn.ModuleList(
            ConcatSkip(before[i], skips[i], c, ratio, upsample=upsample, norm=norm, activation=activation)
            for i, (c, ratio) in enumerate(zip(self.channels, [*([2] * finer), *ratios], strict=True))
        )

    def forward(self, features: Features) -> Features:
        """All levels to one less and the finer ones, finest first."""
        x = self.centre(features[-1])
        skips = [*([None] * self.finer), *features[:-1]]
        levels: Features = []
        for step, skip in zip(reversed(self.steps), reversed(skips), strict=True):
            x = step(x, skip)
            levels.insert(0, x)
        return levels
