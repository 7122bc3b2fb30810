"""Assignment and losses of RetinaNet, forward and backward, on fixed outputs of the head, against torchvision.

Two pictures of 320x320, 91 classes, 19,206 anchors. torso's time includes decoding the boxes, which it does in forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from measure import milliseconds, ratio, rounds, write
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torso.assigners import MaxIoU
from torso.boxes.coders import Delta
from torso.criteria import DenseCriterion
from torso.losses import L1, Focal
from torso.structures import DenseOutput, Targets

ROUNDS, SIDE, CLASSES, BATCH = 15, 320, 91, 2
# What makes a host wait for a device: a number, or a size that depends on values.
SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"}


class Calls(TorchDispatchMode):
    """Counts calls of aten operators, and those among them for which a host waits for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.syncs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        self.names[name] += 1
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.syncs += name in SYNCS or by_mask
        return func(*args, **(kwargs or {}))


def torchvisions() -> tuple[Any, Tensor, tuple[int, ...]]:
    """Torchvision's model, its anchors for one picture, and their number on each level."""
    from torchvision.models.detection import retinanet_resnet50_fpn
    from torchvision.models.detection.image_list import ImageList

    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    sides = [-(-SIDE // stride) for stride in (8, 16, 32, 64, 128)]
    maps = [torch.zeros(1, 1, side, side) for side in sides]
    images = ImageList(torch.zeros(1, 3, SIDE, SIDE), [(SIDE, SIDE)])
    return model, model.anchor_generator(images, maps)[0], tuple(9 * side * side for side in sides)


def objects(count: int) -> tuple[list[dict[str, Tensor]], Targets]:
    """The same objects for both."""
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(BATCH, count, 2, generator=generator) * 240
    boxes = torch.cat([corner, corner + 8 + torch.rand(BATCH, count, 2, generator=generator) * 72], dim=-1)
    labels = torch.randint(0, CLASSES, (BATCH, count), generator=generator)
    there = [{"boxes": boxes[i], "labels": labels[i]} for i in range(BATCH)]
    valid = torch.ones(BATCH, count, dtype=torch.bool)
    return there, Targets(boxes, labels, valid, torch.zeros_like(valid))


def tasks(model: Any, anchors: Tensor, counts: tuple[int, ...], count: int) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(BATCH, len(anchors), CLASSES, generator=generator) - 4.6).requires_grad_()
    deltas = (torch.randn(BATCH, len(anchors), 4, generator=generator) * 0.2).requires_grad_()
    there, targets = objects(count)
    coder = Delta()
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), coder, average="image")

    def ours(logits: Tensor, deltas: Tensor, targets: Targets) -> Tensor:
        boxes = coder.decode(deltas, anchors)
        output = DenseOutput(logits, deltas, boxes, anchors, counts, {}, anchors[:, :2], (SIDE, SIDE))
        losses = criterion(output, targets)
        return losses["class"] + losses["box"]

    def theirs() -> Tensor:
        losses = model.compute_loss(there, {"cls_logits": logits, "bbox_regression": deltas}, [anchors] * BATCH)
        return losses["classification"] + losses["bbox_regression"]

    compiled = torch.compile(ours, fullgraph=True, dynamic=False)

    def whole(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            logits.grad = deltas.grad = None
            value = loss()
            value.backward()
            return value.detach()

        return run

    return {
        "torchvision": whole(theirs),
        "torso eager": whole(lambda: ours(logits, deltas, targets)),
        "torso compiled": whole(lambda: compiled(logits, deltas, targets)),
    }


def calls(task: Callable[[], Tensor]) -> dict[str, int]:
    with Calls() as counted:
        task()
    return {"aten calls": counted.names.total(), "host syncs": counted.syncs}


def main() -> None:
    model, anchors, counts = torchvisions()
    results: dict[int, Any] = {}
    seconds: dict[int, dict[str, list[float]]] = {}
    for count in (10, 100, 300):
        three = tasks(model, anchors, counts, count)
        values = [task() for task in three.values()]
        torch.testing.assert_close(values[1:], [values[0]] * 2, rtol=1e-5, atol=0)
        seconds[count] = rounds(three, ROUNDS, warm=2)
        results[count] = {
            "milliseconds": {name: milliseconds(each) for name, each in seconds[count].items()},
            "ratio eager": ratio(seconds[count], "torso eager", "torchvision"),
            "ratio compiled": ratio(seconds[count], "torso compiled", "torchvision"),
            "torchvision": calls(three["torchvision"]),
            "torso": calls(three["torso eager"]),
        }
    growth = {
        name: round(results[300]["milliseconds"][name] / results[10]["milliseconds"][name], 2) for name in seconds[10]
    }
    write("detection_loss", rounds=ROUNDS, boxes=results, growth_from_10_to_300_boxes=growth)


if __name__ == "__main__":
    main()
