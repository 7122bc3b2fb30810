"""Whether a layer is another library's layer under other names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torso import testing

Named = dict[str, Tensor]
Call = Callable[[Tensor], Tensor]


def compare(
    ours: nn.Module, theirs: nn.Module, *shape: int, convert: Callable[[Named], Named] = dict, run: Call | None = None
) -> None:
    """Equal outputs in float64, in training and evaluation, and equal gradients of the input and of all parameters.

    ``convert`` brings their tensors into the order, and their channels into the places, that ours have; ``run`` is
    called in place of ``theirs``.
    """
    ours.double(), theirs.double()
    transfer(ours, theirs, convert)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        mine, my_gradients = _run(ours, ours, x)
        other, gradients = _run(theirs, run or theirs, x)
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(my_gradients.pop("input"), gradients.pop("input"), rtol=1e-8, atol=1e-8)
        for a, b in zip(my_gradients.values(), convert(gradients).values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def transfer(ours: nn.Module, theirs: nn.Module, convert: Callable[[Named], Named] = dict) -> None:
    """Random weights and statistics into ``theirs``, and from there into ``ours``, in the order they stand there."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
                if "weight" in name and value.dim() > 1:
                    value.sub_(1).mul_(2 / value[0].numel() ** 0.5)
    source, target = list(convert(theirs.state_dict()).values()), ours.state_dict()
    assert [x.shape for x in target.values()] == [x.shape for x in source], "the same tensors in the same order"
    ours.load_state_dict(dict(zip(target, source, strict=True)))


def _run(module: nn.Module, call: Call, x: Tensor) -> tuple[Tensor, Named]:
    leaf = x.clone().requires_grad_()
    output = call(leaf)
    weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    learned = {"input": leaf} | {name: p for name, p in module.named_parameters() if p.requires_grad}
    return output, dict(zip(learned, torch.autograd.grad((output * weight).sum(), list(learned.values())), strict=True))


def check(module: nn.Module, *shape: int) -> None:
    """The contract of a layer on a map whose sides are odd, and that it exports with the same answer."""
    testing.check_module(module, lambda: (torch.randn(shape),))
    check_exports(module, torch.randn(shape))


def check_exports(module: nn.Module, *inputs: Tensor) -> None:
    module.eval()
    with torch.no_grad():
        exported = torch.export.export(module, inputs).module()(*inputs)
        torch.testing.assert_close(exported, module(*inputs))


def count(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(parameter.numel() for parameter in module.parameters())
