"""A model layer by layer: what goes out, parameters, operations, stride and receptive field. Nothing is computed."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from torso.anatomy.receptive import Field, Receptive, tensors


@dataclass(frozen=True)
class Row:
    """One module of a model."""

    path: str  # "" is the whole model
    kind: str  # the name of its class
    outputs: tuple[tuple[int, ...], ...]  # shapes of what goes out, the batch first
    parameters: int
    learned: int  # of them, those with gradients
    flops: int  # for one picture; 2 operations a multiply-add
    stride: float | None  # of the last output; None where it does not come from the picture
    receptive_field: float | None  # side in pixels of the picture, inf: all of it


def summary(model: nn.Module, size: tuple[int, int], depth: int = 2) -> list[Row]:
    """The rows of a model, outermost first, modules in the order they run.

    The model is copied to the ``meta`` device, where shapes are known and nothing is computed. A module that runs
    several times (a head shared by levels) is one row: its outputs one after the other, its operations all together.

    Args:
        model: called with one picture ``[1, 3, height, width]`` in 0..255.
        size: width and height of the picture.
        depth: how deep to look; 1 gives backbone, neck and head.

    Returns:
        Rows of modules that run, or hold parameters.

    Source: torch.utils.flop_counter; receptive fields as in `torso.anatomy.receptive`.
    """
    model = copy.deepcopy(model).to("meta").eval()
    images = torch.zeros(1, 3, size[1], size[0], device="meta")
    seen: dict[str, list[tuple[tuple[int, ...], Field | None]]] = {}
    fields = Receptive()

    def note(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in tensors(output):
                seen.setdefault(path, []).append((tuple(tensor.shape), fields.of(tensor)))

        return hook

    handles = [
        module.register_forward_hook(note(path))
        for path, module in model.named_modules()
        if path.count(".") < depth or not path
    ]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, fields:
        fields.begin(images)
        model(images)
    for handle in handles:
        handle.remove()
    flops = _by_path(counter, model)
    return [
        _row(path, module, seen.get(path, []), flops.get(path, 0))
        for path, module in model.named_modules()
        if (path.count(".") < depth or not path) and (path in seen or any(True for _ in module.parameters()))
    ]


def _row(path: str, module: nn.Module, seen: list[tuple[tuple[int, ...], Field | None]], flops: int) -> Row:
    last = seen[-1][1] if seen else None
    parameters = list(module.parameters())
    return Row(
        path=path,
        kind=type(module).__name__,
        outputs=tuple(shape for shape, _ in seen),
        parameters=sum(p.numel() for p in parameters),
        learned=sum(p.numel() for p in parameters if p.requires_grad),
        flops=flops,
        stride=None if last is None else max(last.step),
        receptive_field=None if last is None else max(last.size),
    )


def _by_path(counter: FlopCounterMode, model: nn.Module) -> dict[str, int]:
    """Operations of each module; the counter calls the whole model by its class, and all others below it."""
    name = type(model).__name__
    counts = counter.get_flop_counts()
    return {
        "" if path == "Global" else path.removeprefix(f"{name}."): sum(ops.values())
        for path, ops in counts.items()
        if path != name
    }


def shown(value: float) -> str:
    """A number with its unit, three digits.

    >>> shown(23508032), shown(850)
    ('23.5 M', '850')
    """
    if value == math.inf:
        return "all"
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:g}"
