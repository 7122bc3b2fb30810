"""Selective kernels: each channel chooses how much of every kernel size it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from torso.nn.conv import ConvNormAct, Layer


class SelectiveKernel(nn.Module):
    """Branches with kernels of different sizes, summed with weights that a softmax over the branches gives a channel.

    The weights are read from the mean over places of the sum of all branches. Kernels above 3 are 3x3 with dilation.
    ``[B, in_channels, H, W] -> [B, channels, ceil(H / stride), ceil(W / stride)]``.

    Args:
        in_channels: channels that come in.
        channels: channels that go out; ``in_channels`` by default.
        kernels: effective side of each branch's kernel, odd and at least 3.
        stride: of every branch.
        groups: groups of every branch's convolution (the paper: 32).
        hidden: channels that the weights are read from; a sixteenth, at least 32, by default.
        split: every branch sees its own share of ``in_channels`` (timm's SK-ResNets) instead of all of them.
        norm: makes the norms.
        activation: makes the activations.

    Raises:
        ValueError: a kernel that is even or below 3, or channels that do not split into branches.

    Source: Selective Kernel Networks, 2019, arXiv:1903.06586
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        *,
        kernels: Sequence[int] = (3, 5),
        stride: int = 1,
        groups: int = 1,
        hidden: int | None = None,
        split: bool = False,
        norm: Layer = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        if any(kernel < 3 or kernel % 2 == 0 for kernel in kernels) or (split and in_channels % len(kernels)):
            raise ValueError(
                f"kernels must be odd and at least 3, and with split as many as divide the {in_channels} channels, "
                f"got {list(kernels)}"
            )
        channels = in_channels if channels is None else channels
        hidden = max(channels // 16, 32) if hidden is None else hidden
        self.split = split
        before = in_channels // len(kernels) if split else in_channels
        self.branches = nn.ModuleList(
            ConvNormAct(
                before, channels, 3, stride, norm=norm, activation=activation, groups=groups, dilation=kernel // 2
            )
            for kernel in kernels
        )
        self.reduce = ConvNormAct(channels, hidden, 1, norm=norm, activation=activation)
        self.select = nn.Conv2d(hidden, channels * len(kernels), 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The branches' sum, weighed."""
        count = len(self.branches)
        parts = x.chunk(count, dim=1) if self.split else [x] * count
        seen = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        total = seen[0]
        for branch in seen[1:]:
            total = total + branch
        logits = self.select(self.reduce(total.mean((2, 3), keepdim=True)))  # [B, branches * C, 1, 1]
        weights = logits.unflatten(1, (count, -1)).softmax(1).unbind(1)
        out: Tensor = seen[0] * weights[0]
        for branch, weight in zip(seen[1:], weights[1:], strict=True):
            out = torch.addcmul(out, branch, weight)
        return out
