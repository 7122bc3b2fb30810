"""The systems whose criteria are timed: what the peer computes, and the same of torso's parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torso.assigners import ASSIGNERS, MaxIoU
from torso.assigners.sample import SAMPLES
from torso.boxes.coders import CODERS, Delta
from torso.criteria import DenseCriterion
from torso.losses import L1, LOSSES, Focal
from torso.structures import Targets

SIDE, CLASSES = 320, 91
BATCHES, BOXES = (2, 8), (1, 10, 100, 300)


@dataclass(frozen=True)
class Case:
    """A peer's loss and torso's criterion on the same priors."""

    peer_name: str
    peer: Callable[[Sequence[dict[str, Tensor]], list[Tensor]], Tensor]
    criterion: DenseCriterion
    priors: Tensor  # [P, 4]
    strides: Tensor  # [P, 2]
    counts: tuple[int, ...]
    widths: tuple[int, ...]  # numbers a prior of each output of the head: logits, deltas, branches
    classes: int = CLASSES
    size: tuple[int, int] = (SIDE, SIDE)
    equal: bool = True

    def leaves(self, batch: int) -> list[Tensor]:
        """What a head might say: nothing much anywhere."""
        generator = torch.Generator().manual_seed(0)
        found = []
        for number, width in enumerate(self.widths):
            shape = (batch, len(self.priors), *((width,) if number < 2 or width > 1 else ()))
            x = torch.randn(shape, generator=generator) * (1.0 if number == 0 else 0.2)
            found.append((x - 4.6 if number == 0 and not self.criterion.background else x).requires_grad_())
        return found


def objects(batch: int, count: int, classes: int) -> tuple[list[dict[str, Tensor]], Targets]:
    """The same objects in the form of torchvision and padded."""
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(batch, count, 2, generator=generator) * 240
    boxes = torch.cat([corner, corner + 8 + torch.rand(batch, count, 2, generator=generator) * 72], dim=-1)
    labels = torch.randint(0, classes, (batch, count), generator=generator)
    there = [{"boxes": boxes[i], "labels": labels[i]} for i in range(batch)]
    valid = torch.ones(batch, count, dtype=torch.bool)
    return there, Targets(boxes, labels, valid, torch.zeros_like(valid))


def anchors_of(model: Any, side: int, strides: Sequence[int]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Torchvision's anchors for one picture, the strides at each, and their number on each level."""
    from torchvision.models.detection.image_list import ImageList

    sides = [-(-side // stride) for stride in strides]
    maps = [torch.zeros(1, 1, each, each) for each in sides]
    anchors: Tensor = model.anchor_generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), maps)[0]
    cells = sum(each * each for each in sides)
    per_cell = model.anchor_generator.num_anchors_per_location()
    assert cells * per_cell[0] == len(anchors)
    counts = tuple(per_cell[0] * each * each for each in sides)
    steps = torch.cat([torch.full((n, 2), float(s)) for n, s in zip(counts, strides, strict=True)])
    return anchors, steps, counts


def retinanet() -> Case:
    """Focal loss and L1 on 19,206 anchors."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    anchors, strides, counts = anchors_of(model, SIDE, (8, 16, 32, 64, 128))

    def peer(there: Sequence[dict[str, Tensor]], leaves: list[Tensor]) -> Tensor:
        outputs = {"cls_logits": leaves[0], "bbox_regression": leaves[1]}
        losses = model.compute_loss(there, outputs, [anchors] * len(there))
        return losses["classification"] + losses["bbox_regression"]

    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta(), average="image")
    return Case("torchvision RetinaNet", peer, criterion, anchors, strides, counts, (CLASSES, 4))


def fcos() -> Case:
    """Focal loss, GIoU and centerness on 2,134 points."""
    from torchvision.models.detection import fcos_resnet50_fpn

    model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    anchors, strides, counts = anchors_of(model, SIDE, (8, 16, 32, 64, 128))

    def peer(there: Sequence[dict[str, Tensor]], leaves: list[Tensor]) -> Tensor:
        # Its head has clipped the distances and scaled them already.
        outputs = {
            "cls_logits": leaves[0],
            "bbox_regression": leaves[1].relu(),
            "bbox_ctrness": leaves[2].unsqueeze(-1),
        }
        losses = model.compute_loss(there, outputs, [anchors] * len(there), list(counts))
        return torch.stack(list(losses.values())).sum()

    coder = CODERS["ltrb"](unit="prior", activation="relu")
    criterion = DenseCriterion(ASSIGNERS["fcos"](), Focal(), LOSSES["giou"](), coder, quality="centerness")
    return Case("torchvision FCOS", peer, criterion, anchors, strides, counts, (CLASSES, 4, 1))


def ssd() -> Case:
    """Softmax, smooth L1 and hard negatives on 8,732 default boxes."""
    from torchvision.models.detection import ssd300_vgg16
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou

    side, sides = 300, (38, 19, 10, 5, 3, 1)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    images = ImageList(torch.zeros(1, 3, side, side), [(side, side)])
    boxes = model.anchor_generator(images, [torch.zeros(1, 1, each, each) for each in sides])[0]
    counts = tuple(n * s * s for n, s in zip(model.anchor_generator.num_anchors_per_location(), sides, strict=True))
    steps = torch.cat([torch.full((n, 2), side / s) for n, s in zip(counts, sides, strict=True)])

    def peer(there: Sequence[dict[str, Tensor]], leaves: list[Tensor]) -> Tensor:
        # Its background is class 0; the last of ours.
        outputs = {"cls_logits": leaves[0].roll(1, dims=-1), "bbox_regression": leaves[1]}
        targets = [{"boxes": each["boxes"], "labels": each["labels"] + 1} for each in there]
        matched = [model.proposal_matcher(box_iou(each["boxes"], boxes)) for each in there]
        losses = model.compute_loss(targets, outputs, [boxes] * len(there), matched)
        return losses["classification"] + losses["bbox_regression"]

    criterion = DenseCriterion(
        MaxIoU(0.5, 0.5, own=True),
        LOSSES["cross_entropy"](),
        LOSSES["smooth_l1"](beta=1.0),
        Delta((10, 10, 5, 5)),
        sample=SAMPLES["hard_negative"](),
    )
    return Case("torchvision SSD300", peer, criterion, boxes, steps, counts, (CLASSES + 1, 4), CLASSES, (side, side))


def yolov8() -> Case:
    """Task-aligned assignment, binary cross entropy, CIoU and distributions on 2,100 points, 80 classes."""
    from ultralytics import YOLO
    from ultralytics.cfg import get_cfg

    classes, bins = 80, 15
    model = YOLO("yolov8n.yaml", verbose=False).model
    model.args = get_cfg()
    sides = [SIDE // stride for stride in (8, 16, 32)]
    counts = tuple(side * side for side in sides)
    with torch.no_grad():
        like = model.train()(torch.zeros(1, 3, SIDE, SIDE))

    def peer(there: Sequence[dict[str, Tensor]], leaves: list[Tensor]) -> Tensor:
        scores, boxes = leaves[0].transpose(1, 2), leaves[1].transpose(1, 2)
        said = {**like, "scores": scores, "boxes": boxes}
        said["feats"] = [torch.zeros(len(there), 1, side, side) for side in sides]
        rows = [torch.full((len(each["labels"]),), float(i)) for i, each in enumerate(there)]
        corners = torch.cat([each["boxes"] for each in there])
        centre = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1) / SIDE
        batch = {
            "img": torch.zeros(len(there), 3, SIDE, SIDE),
            "batch_idx": torch.cat(rows),
            "cls": torch.cat([each["labels"] for each in there])[:, None].float(),
            "bboxes": centre,
        }
        loss: Tensor = model.loss(batch, said)[0].sum()
        return loss

    steps = torch.cat([torch.full((n, 2), float(s)) for n, s in zip(counts, (8, 16, 32), strict=True)])
    cells = []
    for side, stride in zip(sides, (8, 16, 32), strict=True):
        at = (torch.arange(side) + 0.5) * stride
        y, x = torch.meshgrid(at, at, indexing="ij")
        centre = torch.stack([x, y], dim=-1).reshape(-1, 2)
        cells.append(torch.cat([centre - stride / 2, centre + stride / 2], dim=1))
    criterion = DenseCriterion(
        ASSIGNERS["task_aligned"](topk=10, alpha=0.5, beta=6.0),
        LOSSES["binary_cross_entropy"](),
        LOSSES["ciou"](),
        CODERS["distribution"](bins=bins),
        average="quality",
        box_by="quality",
        distribution_loss=LOSSES["distribution_focal"](),
    )
    widths = (classes, 4 * (bins + 1))
    return Case("Ultralytics YOLOv8n", peer, criterion, torch.cat(cells), steps, counts, widths, classes, equal=False)


SYSTEMS: dict[str, Callable[[], Case]] = {
    name: functools.cache(make)
    for name, make in {"retinanet": retinanet, "fcos": fcos, "ssd": ssd, "yolov8": yolov8}.items()
}
