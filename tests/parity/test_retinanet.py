"""RetinaNet made of torso's parts against torchvision's, with the same weights, in float64."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

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
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.structures import Batch, Targets

CLASSES, SIZE = 7, 128
SIZES = [[s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))] for s in (32, 64, 128, 256, 512)]


def torso_retinanet() -> Detector:
    body = Timm("resnet50")
    neck = FPN(body.channels, body.strides)
    anchors = Anchors(neck.strides, sizes=SIZES)
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta(), average="image")
    model = Detector(
        body,
        neck,
        Retina(neck.channels, CLASSES, anchors.per_cell),
        anchors,
        Delta(),
        criterion,
        BatchedNMS(),
        num_classes=CLASSES,
    )
    return model.double()


def torchvision_name(name: str) -> str:
    """The name in torchvision's model of a parameter of ours."""
    rules = [
        (r"^backbone\.body\.", "backbone.body."),
        (r"^neck\.lateral\.(\d)\.0\.", r"backbone.fpn.inner_blocks.\1.0."),
        (r"^neck\.smooth\.(\d)\.0\.", r"backbone.fpn.layer_blocks.\1.0."),
        (r"^neck\.down\.0\.0\.", "backbone.fpn.extra_blocks.p6."),
        (r"^neck\.down\.1\.0\.", "backbone.fpn.extra_blocks.p7."),
        (r"^head\.class_tower\.(\d)\.0\.", r"head.classification_head.conv.\1.0."),
        (r"^head\.box_tower\.(\d)\.0\.", r"head.regression_head.conv.\1.0."),
        (r"^head\.class_logits\.", "head.classification_head.cls_logits."),
        (r"^head\.box_deltas\.", "head.regression_head.bbox_reg."),
    ]
    for pattern, there in rules:
        if re.match(pattern, name):
            return re.sub(pattern, there, name)
    raise AssertionError(f"no rule for {name}")


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, nn.Module]:
    from torchvision.models.detection import retinanet_resnet50_fpn

    torch.manual_seed(0)
    theirs = retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=SIZE,
        max_size=SIZE,
    )
    # Random weights detect nothing: spread the scores so that suppression has work to do.
    nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.15)
    ours, theirs = torso_retinanet(), theirs.double()
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    # torchvision has frozen batch norm when weights are asked for; with none it has batch norm, as timm.
    state = theirs.state_dict()
    mapped = {name: state[torchvision_name(name)] for name, _ in ours.named_parameters()}
    for name, _ in ours.backbone.named_buffers():
        if f"backbone.{name}" in state:
            mapped[f"backbone.{name}"] = state[f"backbone.{name}"]
    missing = set(ours.state_dict()) - set(mapped)
    assert not {name for name in missing if "num_batches" not in name}, missing
    ours.load_state_dict(mapped, strict=False)
    return ours, theirs


def pictures_and_boxes() -> tuple[Tensor, list[dict[str, Tensor]], Targets]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=generator)
    counts = [4, 0, 9]
    per_image, boxes = [], torch.zeros(3, 12, 4, dtype=torch.float64)
    labels, valid = torch.zeros(3, 12, dtype=torch.int64), torch.zeros(3, 12, dtype=torch.bool)
    for i, count in enumerate(counts):
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 80
        size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 44 + 4
        box = torch.cat([corner, corner + size], dim=1)
        label = torch.randint(0, CLASSES, (count,), generator=generator)
        per_image.append({"boxes": box, "labels": label})
        boxes[i, :count], labels[i, :count], valid[i, :count] = box, label, True
    return images, per_image, Targets(boxes, labels, valid, torch.zeros_like(valid))


@pytest.mark.part("recipe/retinanet", "criterion/dense", "head/retina", "neck/fpn", "prior/anchors", "coder/delta")
@pytest.mark.part("assigner/max_iou", "loss/focal", "loss/l1")
def test_losses_and_gradients_equal_torchvision(pair: tuple[Detector, nn.Module]) -> None:
    ours, theirs = pair
    images, per_image, targets = pictures_and_boxes()
    ours.train(), theirs.train()
    index = torch.arange(3)
    batch = Batch(images, targets, index, torch.eye(3).double().expand(3, 3, 3), torch.full((3, 2), SIZE))
    mine = ours.losses(batch)
    expected = theirs(list(images.double() / 255), per_image)
    torch.testing.assert_close(mine["class"], expected["classification"], rtol=1e-6, atol=0)
    torch.testing.assert_close(mine["box"], expected["bbox_regression"], rtol=1e-6, atol=0)
    sum(mine.values()).backward()
    sum(expected.values()).backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        there = their_gradients[torchvision_name(name)]
        assert parameter.grad is not None
        assert there is not None
        scale = float(there.abs().max())
        torch.testing.assert_close(parameter.grad, there, rtol=1e-6, atol=1e-6 * scale, msg=name)


@pytest.mark.part("recipe/retinanet", "suppress/batched_nms", "suppress/threshold")
def test_detections_equal_torchvision(pair: tuple[Detector, nn.Module]) -> None:
    ours, theirs = pair
    images, _, _ = pictures_and_boxes()
    ours.eval(), theirs.eval()
    with torch.no_grad():
        found = ours.predict(images)
        expected = theirs(list(images.double() / 255))
    assert sum(len(e["scores"]) for e in expected) > 50, "the case must have detections to compare"
    for i, there in enumerate(expected):
        count = int(found.valid[i].sum())
        assert count == len(there["scores"])
        torch.testing.assert_close(found.scores[i, :count], there["scores"], rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(found.boxes[i, :count], there["boxes"], rtol=1e-6, atol=1e-6)
        assert torch.equal(found.labels[i, :count], there["labels"])
