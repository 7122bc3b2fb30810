"""What the tests of necks share: pyramids of numbers, and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def pyramid(
    channels: Sequence[int], strides: Sequence[int], size: tuple[int, int] = (64, 64), seed: int = 0, batch: int = 2
) -> list[Tensor]:
    """A level each, as a backbone gives them for pictures of (height, width): sizes are rounded up."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, -(-size[0] // s), -(-size[1] // s), generator=generator, dtype=torch.float64)
        for c, s in zip(channels, strides, strict=True)
    ]


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Every parameter and every statistic a number of its own, so that no two can be mistaken for each other."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                drawn = drawn / max(value[0].numel(), 1) ** 0.5 if value.ndim > 1 else drawn * 0.3 + 1
                value.copy_(drawn.abs() + 0.1 if name.endswith("running_var") else drawn)


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """The tensors of one module's state to the other's, in the order of definition; counters are left out."""
    ours = [(name, value) for name, value in target.state_dict().items() if value.is_floating_point()]
    theirs = [(name, value) for name, value in source.state_dict().items() if value.is_floating_point()]
    assert len(ours) == len(theirs), f"{len(ours)} tensors are not {len(theirs)}"
    with torch.no_grad():
        for (mine, value), (other, given) in zip(ours, theirs, strict=True):
            assert value.shape == given.shape, f"{mine} {list(value.shape)} is not {other} {list(given.shape)}"
            value.copy_(given)


def compare(
    ours: Callable[[list[Tensor]], Sequence[Tensor]],
    theirs: Callable[[list[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    tolerance: float = 1e-9,
) -> None:
    """Equal outputs, and equal gradients of a weighted sum of them for everything that came in."""
    results = []
    for function in (ours, theirs):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        outputs = list(function(list(leaves)))
        generator = torch.Generator().manual_seed(9)
        loss = sum((y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, leaves, allow_unused=True)])
    assert len(results[0]) == len(results[1]), f"{len(results[0])} tensors are not {len(results[1])}"
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def count(module: nn.Module) -> int:
    """Learnable numbers."""
    return sum(parameter.numel() for parameter in module.parameters())
