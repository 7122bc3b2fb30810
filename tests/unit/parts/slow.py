"""Obvious, slow references in plain Python, and a watch for what a GPU would have to wait for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torso.structures import DenseOutput, Targets

Box = list[float]


def area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def shared(a: Box, b: Box) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def iou(a: Box, b: Box) -> float:
    union = area(a) + area(b) - shared(a, b)
    return shared(a, b) / union if union > 0 else 0.0


def max_iou(
    priors: Tensor, targets: Targets, image: int, thresholds: tuple[float, float] = (0.5, 0.4), low_quality: bool = True
) -> tuple[list[int | None], list[bool]]:
    """For every prior of one picture: the object it learns or ``None``, and whether it learns "nothing here"."""
    high, low = thresholds
    boxes = targets.boxes[image].tolist()
    objects = [m for m in range(len(boxes)) if targets.valid[image, m]]
    regions = [m for m in range(len(boxes)) if targets.ignore[image, m]]
    table = {m: [iou(boxes[m], prior) for prior in priors.tolist()] for m in objects}
    learns: list[int | None] = []
    negative: list[bool] = []
    for p, prior in enumerate(priors.tolist()):
        best = max(objects, key=lambda m: table[m][p], default=None)  # the first of equals
        overlap = table[best][p] if best is not None else -1.0
        forced = low_quality and any(table[m][p] == max(table[m]) > 0 for m in objects)
        taken = overlap >= high or forced
        covered = any(shared(boxes[m], prior) >= 0.5 * area(prior) for m in regions)
        learns.append(best if taken else None)
        negative.append(not taken and not covered and overlap < low)
    return learns, negative


def grid_case(seed: int, counts: tuple[int, ...] = (5, 0, 9), regions: int = 2) -> tuple[DenseOutput, Targets]:
    """Priors and objects with whole corners in a 32 px picture, so that ties abound; every object touches a prior."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int, smallest: int) -> Tensor:
        low = torch.randint(0, 24, (count, 2), generator=generator)
        size = torch.randint(smallest, 14, (count, 2), generator=generator)
        return torch.cat([low, low + size], dim=1).double()

    step = torch.arange(0, 40, 8)
    corner = torch.cartesian_prod(step, step)
    tiles = torch.cat([corner - 2, corner + 10], dim=1).double()
    some = draw(20, 3)
    priors = torch.cat([tiles, some, some[:4]])  # [49, 4], four of them twice
    rows = max(counts) + regions
    boxes = torch.zeros(len(counts), rows, 4, dtype=torch.float64)
    valid, ignore = torch.zeros(2, len(counts), rows, dtype=torch.bool)
    for image, count in enumerate(counts):
        boxes[image, :count] = draw(count, 1)
        if count > 2:
            boxes[image, 1] = boxes[image, 0]  # two objects in one place
            boxes[image, 2] = priors[30]  # and one that is a prior
        boxes[image, count : count + regions] = draw(regions, 8)
        valid[image, :count] = True
        ignore[image, count : count + regions] = True
    labels = torch.randint(0, 3, (len(counts), rows), generator=generator)
    shape = (len(counts), len(priors))
    logits = torch.randn(*shape, 3, generator=generator, dtype=torch.float64) * 2
    deltas = torch.randn(*shape, 4, generator=generator, dtype=torch.float64) * 0.3
    strides = torch.full((len(priors), 2), 8.0, dtype=torch.float64)
    everywhere = priors.expand(len(counts), -1, -1)
    output = DenseOutput(logits, deltas, everywhere, priors, (len(priors),), {}, strides, (64, 64))
    return output, Targets(boxes, labels, valid, ignore)


class NoWaiting(TorchDispatchMode):
    """Fails where the host would have to wait for the device: reading a value, or a shape that depends on data."""

    ops = ("_local_scalar_dense", "nonzero", "item", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.ops, f"aten.{name} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"aten.{name} with a mask waits for the device"
        return func(*args, **(kwargs or {}))
