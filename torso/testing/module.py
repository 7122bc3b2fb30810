"""What is checked of any layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def check_module(module: nn.Module, make_inputs: Callable[[], tuple[Any, ...]], *, compiles: bool = True) -> None:
    """Any layer: it learns, repeats itself, is restored by its state dict, runs in bfloat16 and compiles.

    Every parameter that learns gets a finite gradient, and ``torch.compile`` sees one graph.

    Args:
        module: the layer.
        make_inputs: makes the arguments of a call; random ones, from torch's global generator.
        compiles: try ``torch.compile`` too.
    """
    torch.manual_seed(0)
    inputs = make_inputs()
    module.train()
    torch.autograd.backward([x.float().square().mean() for x in _tensors(module(*inputs))])
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
    module.zero_grad()
    module.eval()
    with torch.no_grad():
        first = _tensors(module(*inputs))
        again = _tensors(module(*inputs))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "the same input, the same output"
        other = copy.deepcopy(module)
        for parameter in other.parameters():
            parameter.fill_(0.5)
        other.load_state_dict(module.state_dict())
        restored = _tensors(other(*inputs))
        assert all(torch.equal(a, b) for a, b in zip(first, restored, strict=True)), "the state dict holds it all"
        with torch.autocast("cpu", torch.bfloat16):
            assert all(x.isfinite().all() for x in _tensors(module(*inputs))), "bfloat16 gives finite outputs"
        if not compiles:
            return
        report = torch._dynamo.explain(module)(*inputs)
        # Where nothing is computed there is no graph, and so less than one with no break.
        assert report.graph_break_count < 1, f"{report.graph_break_count} graph breaks: {report.break_reasons}"


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [x for item in value.values() for x in _tensors(item)]
    if isinstance(value, list | tuple):
        return [x for item in value for x in _tensors(item)]
    return []
