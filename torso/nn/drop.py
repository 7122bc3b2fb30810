"""Noise in training: layers that drop or scale values at random, and pass everything on unchanged in eval mode.

Contract of the role: every member keeps the expectation of its input by scaling **in training** (as torch does; older
texts scale by the kept share in testing instead, with the same expectation). The rate ``p`` of those that drop is the
share that is dropped, as in torch; papers on DropBlock and stochastic depth write the kept share ``1 - p``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropPath(nn.Module):
    """Drops the whole branch of a residual block for some pictures of a batch; the others are scaled by 1 / (1 - p).

    Args:
        p: share of pictures, 0..1.

    Raises:
        ValueError: a share outside 0..1.

    Source: Deep Networks with Stochastic Depth, 2016, arXiv:1603.09382; the word from FractalNet, arXiv:1605.07648
        (timm's ``DropPath``, torchvision's ``StochasticDepth`` by row)
    """

    def __init__(self, p: float = 0.1):
        super().__init__()
        self.p = _share(p)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, ...] -> [B, ...]``."""
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        mask = x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(keep)
        return x * (mask / keep if keep > 0 else mask)

    def extra_repr(self) -> str:
        """The rate."""
        return f"p={self.p}"


class DropBlock(nn.Module):
    """Drops squares of neighbouring values, a pattern of its own a channel; the rest is scaled by all / kept values.

    Squares lie inside the map; their rate is such that about ``p`` of the values are dropped (fewer where squares
    overlap). A map smaller than the square gets a square of its own size. With ``block_size=1`` it is dropout, but for
    the scale, which is counted and not expected. The paper raises ``p`` from 0 in training: trick
    ``schedule_argument``.

    Args:
        p: share of values to drop, 0..1.
        block_size: side of a square in values.

    Raises:
        ValueError: a share outside 0..1, or `block_size` under 1.

    Source: DropBlock: A regularization method for convolutional networks, 2018, arXiv:1810.12890 (torchvision's
        ``DropBlock2d``, which takes odd sides only)
    """

    def __init__(self, p: float = 0.1, block_size: int = 7):
        super().__init__()
        if block_size < 1:
            raise ValueError(f"block_size is 1 or more, not {block_size}")
        self.p, self.block_size = _share(p), block_size

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        if not self.training or self.p == 0:
            return x
        height, width = x.shape[-2:]
        side = min(self.block_size, height, width)
        rows, columns = height - side + 1, width - side + 1  # where a square can begin
        rate = min(self.p * height * width / (side**2 * rows * columns), 1.0)
        begins = x.new_empty((*x.shape[:2], rows, columns)).bernoulli_(rate)
        keep = 1 - _squares(begins, side)
        kept = keep.sum(dtype=torch.float32)
        scale = (keep.numel() / kept.clamp(min=1)).to(x.dtype)
        return x * (keep * scale)

    def extra_repr(self) -> str:
        """Rate and side."""
        return f"p={self.p}, block_size={self.block_size}"


class GaussianDropout(nn.Module):
    """Multiplies every value by its own draw from N(1, p / (1 - p)): the mean and variance that dropout gives.

    Args:
        p: rate of the dropout it stands for, 0 up to but not 1.

    Raises:
        ValueError: a rate outside 0..1, or 1.

    Source: Dropout: A Simple Way to Prevent Neural Networks from Overfitting, section 10, 2014
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if _share(p) == 1:
            raise ValueError("p is under 1: noise of infinite variance is no noise")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``[...] -> [...]``."""
        if not self.training or self.p == 0:
            return x
        return x * (1 + torch.randn_like(x) * math.sqrt(self.p / (1 - self.p)))

    def extra_repr(self) -> str:
        """The rate."""
        return f"p={self.p}"


class UniformDropout(nn.Module):
    """Multiplies every value by its own draw from U(1 - beta, 1 + beta) ("Uout").

    Its variance beta² / 3 is smaller than dropout's p / (1 - p), and so is the shift of variance between training and
    testing that disturbs a batch norm behind it.

    Args:
        beta: half the width, 0..1.

    Raises:
        ValueError: a width outside 0..1.

    Source: Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift, 2018,
        arXiv:1801.05134
    """

    def __init__(self, beta: float = 0.1):
        super().__init__()
        self.beta = _share(beta, "beta")

    def forward(self, x: Tensor) -> Tensor:
        """``[...] -> [...]``."""
        if not self.training or self.beta == 0:
            return x
        return x * (1 + (2 * torch.rand_like(x) - 1) * self.beta)

    def extra_repr(self) -> str:
        """The half width."""
        return f"beta={self.beta}"


def _share(value: float, name: str = "p") -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is in 0..1, not {value}")
    return value


def _squares(begins: Tensor, side: int) -> Tensor:
    """1 wherever a square covers, ``[.., rows, columns] -> [.., rows + side - 1, columns + side - 1]``."""
    if side == 1:
        return begins
    # Down, then across: 2 * side values are looked at instead of side ** 2.
    begins = functional.max_pool2d(functional.pad(begins, [0, 0, side - 1, side - 1]), (side, 1), stride=1)
    squares: Tensor = functional.max_pool2d(functional.pad(begins, [side - 1, side - 1]), (1, side), stride=1)
    return squares


DROPS: dict[str, type[nn.Module]] = {
    "dropout": nn.Dropout,
    "spatial": nn.Dropout2d,
    "path": DropPath,
    "block": DropBlock,
    "gaussian": GaussianDropout,
    "uniform": UniformDropout,
}
