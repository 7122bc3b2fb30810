"""A whole training step of RetinaNet with a ResNet-50 (two pictures of 320x320, 10 objects each, SGD).

torso in fp32 and in the preset bf16 (autocast, channels-last), and torchvision in fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from criteria_peers import CLASSES, SIDE, objects
from measure import milliseconds, ratio, rounds, write
from torch import Tensor

from torso.assigners import MaxIoU
from torso.backbones import Timm
from torso.boxes.coders import Delta
from torso.boxes.priors import Anchors
from torso.boxes.suppress import BatchedNMS
from torso.criteria import DenseCriterion
from torso.heads import Retina
from torso.losses import L1, Focal
from torso.models import Detector
from torso.necks import FPN
from torso.structures import Batch, Targets
from torso.train.precision import Precision, choose

ROUNDS, BATCH = 5, 2


def retinanet() -> Detector:
    body = Timm("resnet50")
    neck = FPN(body.channels, body.strides)
    anchors = Anchors(neck.strides)
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta(), average="image")
    head = Retina(neck.channels, CLASSES, anchors.per_cell)
    return Detector(body, neck, head, anchors, Delta(), criterion, BatchedNMS(), num_classes=CLASSES)


def torsos(images: Tensor, targets: Targets, precision: Precision) -> Callable[[], object]:
    model = precision.prepare(retinanet()).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    images = images.contiguous(memory_format=torch.channels_last)
    size = torch.full((BATCH, 2), SIDE)
    batch = Batch(images, targets, torch.arange(BATCH), torch.eye(3).double().expand(BATCH, 3, 3), size)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            losses = model.losses(batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def torchvisions(images: Tensor, targets: list[dict[str, Tensor]]) -> Callable[[], object]:
    from torchvision.models.detection import retinanet_resnet50_fpn

    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=SIDE, max_size=SIDE
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    pictures = list(images / 255)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(model(pictures, targets).values()).backward()
        optimizer.step()

    return step


def main() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    there, targets = objects(BATCH, 10, CLASSES)
    tasks = {
        "torchvision fp32": torchvisions(images, there),
        "torso fp32": torsos(images, targets, choose("fp32")),
        "torso bf16": torsos(images, targets, choose("bf16")),
    }
    seconds = rounds(tasks, ROUNDS)
    write(
        "train_step",
        rounds=ROUNDS,
        milliseconds={name: milliseconds(values) for name, values in seconds.items()},
        ratios={
            "torso fp32 / torchvision fp32": ratio(seconds, "torso fp32", "torchvision fp32"),
            "torso bf16 / torso fp32": ratio(seconds, "torso bf16", "torso fp32"),
            "torso bf16 / torchvision fp32": ratio(seconds, "torso bf16", "torchvision fp32"),
        },
    )


if __name__ == "__main__":
    main()
