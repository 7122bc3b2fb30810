"""What a network costs, counted without computing it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(make: Callable[[], nn.Module], size: int) -> float:
    """Of one picture of ``size`` x ``size``; convolutions only, as papers count."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        make().eval()(torch.empty(1, 3, size, size))
    return counter.get_total_flops() / 2


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def empty(make: Callable[[], nn.Module]) -> nn.Module:
    """Built without drawing weights, for shapes: small convolutions are quicker to do than to trace on ``meta``."""
    return on_meta(make).to_empty(device="cpu").eval()


def shapes(module: nn.Module, height: int, width: int) -> list[list[int]]:
    """Of the levels, for two pictures on the device of the module."""
    device = next(module.parameters()).device
    with torch.no_grad():
        return [list(x.shape) for x in module(torch.empty(2, 3, height, width, device=device))]


def promised(module: nn.Module, height: int, width: int) -> list[list[int]]:
    """The shapes that ``channels`` and ``strides`` promise."""
    return [[2, c, -(-height // s), -(-width // s)] for c, s in zip(module.channels, module.strides, strict=True)]
