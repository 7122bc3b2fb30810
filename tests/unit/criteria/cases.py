"""What a detector says of a few pictures, with every branch, and the parts a criterion is tried with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.parts import slow
from torso.boxes.coders import Delta
from torso.structures import DenseOutput, Targets

BRANCHES = ("objectness", "centerness", "iou")


def leaves(output: DenseOutput) -> dict[str, Tensor]:
    """What a gradient may reach."""
    return {"logits": output.logits, "deltas": output.deltas, **output.extra}


def speaking(
    seed: int, counts: tuple[int, ...] = (5, 0, 9), *, background: bool = False, weights: bool = False, ignored: int = 2
) -> tuple[DenseOutput, Targets]:
    """Pictures of `slow.grid_case` with all branches, boxes decoded from the deltas, everything with a gradient."""
    output, targets = slow.grid_case(seed, counts, ignored)
    generator = torch.Generator().manual_seed(50 + seed)
    shape = output.logits.shape[:2]
    said = {name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for name in BRANCHES}
    said["variance"] = (torch.randn(*shape, 4, generator=generator, dtype=torch.float64) * 0.5).requires_grad_()
    logits = output.logits
    if background:
        logits = torch.randn(*shape, logits.shape[-1] + 1, generator=generator, dtype=torch.float64)
    logits, deltas = logits.requires_grad_(), output.deltas.requires_grad_()
    boxes = Delta().decode(deltas, output.priors)
    if weights:
        drawn = torch.rand(targets.labels.shape, generator=generator, dtype=torch.float64)
        targets = replace(targets, weights=drawn)
    output = output._replace(logits=logits, deltas=deltas, boxes=boxes, extra=said, background=background)
    return output, targets


def check_equal(
    found: dict[str, Tensor], expected: dict[str, Tensor], output: DenseOutput, *more: Tensor, rtol: float = 1e-9
) -> None:
    """The same losses by the same names, and the same gradients in all that the detector says (and in ``more``)."""
    assert list(found) == list(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=rtol, atol=0, msg=lambda m, name=name: f"{name}: {m}")
    wheres = {**leaves(output), **{f"parameter {i}": x for i, x in enumerate(more)}}
    names = list(wheres)
    gradients = [
        torch.autograd.grad(sum(each.values()), list(wheres.values()), retain_graph=True, allow_unused=True)
        for each in (found, expected)
    ]
    for name, *both in zip(names, *gradients, strict=True):
        mine, other = (torch.zeros_like(wheres[name]) if x is None else x for x in both)
        scale = float(other.abs().max())
        torch.testing.assert_close(
            mine, other, rtol=1e-7, atol=1e-9 * scale + 1e-15, msg=lambda m, name=name: f"gradient of {name}: {m}"
        )


def silent(output: DenseOutput) -> DenseOutput:
    """The same without a gradient, as the compiler is shown it."""
    extra = {name: x.detach() for name, x in output.extra.items()}
    boxes = output.boxes.detach()
    return output._replace(logits=output.logits.detach(), deltas=output.deltas.detach(), boxes=boxes, extra=extra)


def regions(output: DenseOutput, targets: Targets) -> tuple[Tensor, Tensor]:
    """Priors an ignored region has to do with, and those that lie in one and touch no object, each ``[B, P]``."""
    near, alone = [], []
    for image in range(len(targets.boxes)):
        objects = targets.boxes[image][targets.valid[image]].tolist()
        ignored = targets.boxes[image][targets.ignore[image]].tolist()
        for prior in output.priors.tolist():
            near.append(any(slow.shared(region, prior) for region in ignored))
            deep = [slow.shared(r, prior) >= 0.5 * slow.area(prior) and within(prior, r) for r in ignored]
            alone.append(any(deep) and not any(slow.shared(one, prior) for one in objects))
    shape = output.logits.shape[:2]
    return torch.tensor(near).view(shape), torch.tensor(alone).view(shape)


def within(prior: list[float], box: list[float]) -> bool:
    """Whether the centre of a prior lies in a box."""
    x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
    return box[0] < x < box[2] and box[1] < y < box[3]


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest tensor has that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            # A view takes no memory, an expanded one neither.
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return made
