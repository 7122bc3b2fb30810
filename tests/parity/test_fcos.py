"""FCOS made of torso's parts against torchvision's, with the same weights, in float64."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from torso.assigners import ASSIGNERS
from torso.backbones import Timm
from torso.boxes.coders import LTRB
from torso.boxes.priors import Points
from torso.boxes.suppress import BatchedNMS
from torso.criteria import DenseCriterion
from torso.heads import FCOS
from torso.losses import Focal, GIoU
from torso.models import Detector
from torso.necks import FPN
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.structures import Targets

CLASSES, SIZE = 7, 128
close = torch.testing.assert_close
Pair = tuple[Detector, nn.Module]


def torso_fcos() -> Detector:
    body = Timm("resnet50")
    neck = FPN(body.channels, body.strides)
    prior = Points(neck.strides, offset=0.0)
    coder = LTRB(unit="prior", activation="relu")
    criterion = DenseCriterion(ASSIGNERS["fcos"](), Focal(), GIoU(), coder, quality="centerness")
    head = FCOS(neck.channels, CLASSES, prior.per_cell, branches=criterion.branches, scales=False)
    suppress = BatchedNMS(overlap=0.6, max_detections=100)
    model = Detector(
        body,
        neck,
        head,
        prior,
        coder,
        criterion,
        suppress,
        num_classes=CLASSES,
        threshold=0.2,
        topk=1000,
        score_powers=(0.5, 1.0, 0.5),
    )
    return model.double()


def torchvision_name(name: str) -> str:
    """The name in torchvision's model of a parameter of ours."""
    tower = re.match(r"head\.(class|box)_tower\.(\d)\.(\d)\.(.*)", name)
    if tower:
        part = {"class": "classification_head", "box": "regression_head"}[tower[1]]
        return f"head.{part}.conv.{3 * int(tower[2]) + int(tower[3])}.{tower[4]}"
    rules = [
        (r"^backbone\.body\.", "backbone.body."),
        (r"^neck\.lateral\.(\d)\.0\.", r"backbone.fpn.inner_blocks.\1.0."),
        (r"^neck\.smooth\.(\d)\.0\.", r"backbone.fpn.layer_blocks.\1.0."),
        (r"^neck\.down\.0\.0\.", "backbone.fpn.extra_blocks.p6."),
        (r"^neck\.down\.1\.0\.", "backbone.fpn.extra_blocks.p7."),
        (r"^head\.class_logits\.", "head.classification_head.cls_logits."),
        (r"^head\.box_deltas\.", "head.regression_head.bbox_reg."),
        (r"^head\.branches\.centerness\.", "head.regression_head.bbox_ctrness."),
    ]
    for pattern, there in rules:
        if re.match(pattern, name):
            return re.sub(pattern, there, name)
    raise AssertionError(f"no rule for {name}")


@pytest.fixture(scope="module")
def pair() -> Pair:
    from torchvision.models.detection import fcos_resnet50_fpn

    torch.manual_seed(0)
    theirs = fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=SIZE, max_size=SIZE, _skip_resize=True
    )
    # Random weights detect nothing: spread scores and boxes so that losses and suppression have work to do.
    for layer in (theirs.head.classification_head.cls_logits, theirs.head.regression_head.bbox_reg):
        nn.init.normal_(layer.weight, std=0.1)
    nn.init.constant_(theirs.head.classification_head.cls_logits.bias, -3.0)
    nn.init.constant_(theirs.head.regression_head.bbox_reg.bias, 2.0)
    ours, theirs = torso_fcos(), theirs.double()
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    state = theirs.state_dict()
    mapped = {name: state[torchvision_name(name)] for name, _ in ours.named_parameters()}
    parameters = dict(theirs.named_parameters())
    assert len({torchvision_name(name) for name in mapped}) == len(parameters), "every weight of theirs has its place"
    mapped |= {f"backbone.{name}": state[f"backbone.{name}"] for name, _ in ours.backbone.named_buffers()}
    ours.load_state_dict(mapped)
    return ours, theirs


def pictures_and_boxes() -> tuple[Tensor, list[dict[str, Tensor]], Targets]:
    """Objects of all sizes, some in another; of different areas, for torchvision compares areas in float32."""
    generator = torch.Generator().manual_seed(1)
    counts = [6, 0, 9]
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=generator)
    per_image, boxes = [], torch.zeros(3, 12, 4, dtype=torch.float64)
    labels, valid = torch.zeros(3, 12, dtype=torch.int64), torch.zeros(3, 12, dtype=torch.bool)
    for i, count in enumerate(counts):
        side = 2 ** (torch.linspace(2, 6.5, count)[:, None] + 0.5 * torch.rand(count, 2, generator=generator))
        corner = (torch.rand(count, 2, generator=generator) * (SIZE - side)).clamp(min=0)
        box = torch.cat([corner, (corner + side).clamp(max=SIZE)], dim=1).double()
        label = torch.randint(0, CLASSES, (count,), generator=generator)
        per_image.append({"boxes": box, "labels": label})
        boxes[i, :count], labels[i, :count], valid[i, :count] = box, label, True
    return images, per_image, Targets(boxes, labels, valid, torch.zeros_like(valid))


@pytest.mark.part(
    "recipe/fcos", "head/fcos", "assigner/fcos", "prior/points", "coder/ltrb", "loss/giou", "criterion/dense"
)
def test_losses_and_gradients_equal_torchvision(pair: Pair) -> None:
    ours, theirs = pair
    images, per_image, targets = pictures_and_boxes()
    ours.train(), theirs.train()
    output = ours(images)  # once: the statistics of batch norms move
    assert int(ours.criterion.assigner(output, targets).positive.sum()) > 20, "the case must have points that learn"
    mine = ours.criterion(output, targets)
    expected = theirs(list(images.double() / 255), per_image)
    close(mine["class"], expected["classification"], rtol=1e-6, atol=0)
    close(mine["box"], expected["bbox_regression"], rtol=1e-6, atol=0)
    close(mine["quality"], expected["bbox_ctrness"], rtol=1e-6, atol=0)
    sum(mine.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        there = gradients[torchvision_name(name)]
        assert parameter.grad is not None
        assert there is not None
        close(parameter.grad, there, rtol=1e-6, atol=1e-6 * float(there.abs().max()), msg=name)


@pytest.mark.part("recipe/fcos", "head/fcos", "suppress/batched_nms")
def test_outputs_and_detections_equal_torchvision(pair: Pair) -> None:
    ours, theirs = pair
    images, _, _ = pictures_and_boxes()
    ours.eval(), theirs.eval()
    said = {}
    hook = theirs.head.register_forward_hook(lambda _, __, output: said.update(output))
    with torch.no_grad():
        output, found = ours(images), ours.predict(images)
        expected = theirs(list(images.double() / 255))
    hook.remove()
    close(output.logits, said["cls_logits"], rtol=1e-8, atol=1e-8)
    close(output.deltas.relu(), said["bbox_regression"], rtol=1e-8, atol=1e-8)
    close(output.extra["centerness"], said["bbox_ctrness"].squeeze(-1), rtol=1e-8, atol=1e-8)
    assert sum(len(e["scores"]) for e in expected) > 50, "the case must have detections to compare"
    for i, there in enumerate(expected):
        count = int(found.valid[i].sum())
        assert count == len(there["scores"])
        close(found.scores[i, :count], there["scores"], rtol=1e-6, atol=1e-12)
        close(found.boxes[i, :count], there["boxes"], rtol=1e-6, atol=1e-6)
        assert torch.equal(found.labels[i, :count], there["labels"])
