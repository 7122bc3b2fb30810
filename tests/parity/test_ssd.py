"""SSD made of torso's parts against torchvision's ssd300_vgg16, with the same weights, in float64."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from tests.unit.parts import slow
from torso.assigners import MaxIoU
from torso.assigners.mining import HardNegative
from torso.backbones.ssd_vgg import SSDVGG
from torso.boxes.coders import Delta
from torso.boxes.default_boxes import DefaultBoxes
from torso.boxes.suppress import BatchedNMS
from torso.criteria import DenseCriterion
from torso.heads import SSD
from torso.losses import CrossEntropy, SmoothL1
from torso.models import Detector
from torso.necks import SSDExtra
from torso.structures import Batch, Targets

CLASSES, SIZE = 5, 300
SIZES = [21, 45, 99, 153, 207, 261, 315]

close = torch.testing.assert_close
Pair = tuple[Detector, nn.Module]


def torso_ssd() -> Detector:
    body = SSDVGG()
    neck = SSDExtra(body.channels, body.strides, unpadded=[100, 300])
    prior = DefaultBoxes(neck.strides, sizes=SIZES, longest=SIZE)
    coder = Delta(weights=(10, 10, 5, 5))
    criterion = DenseCriterion(
        MaxIoU(0.5, 0.5, own=True), CrossEntropy(), SmoothL1(beta=1.0), coder, sample=HardNegative()
    )
    head = SSD(neck.channels, CLASSES + 1, prior.per_cell)
    suppress = BatchedNMS(overlap=0.45, max_detections=200)
    model = Detector(
        body,
        neck,
        head,
        prior,
        coder,
        criterion,
        suppress,
        num_classes=CLASSES,
        threshold=0.01,
        topk=400,
        topk_of="class",
    )
    return model.double()


def torchvision_name(name: str) -> str:
    """The name in torchvision's model of a parameter of ours."""
    found = re.match(r"backbone\.body\.features\.(\d+)\.(.*)", name)
    if found:  # its second part begins with the fourth pooling
        place = int(found[1])
        return f"backbone.features.{place}.{found[2]}" if place < 23 else f"backbone.extra.0.{place - 23}.{found[2]}"
    rules = [
        (r"^backbone\.full\.", "backbone.extra.0.7."),
        (r"^neck\.scales\.0$", "backbone.scale_weight"),
        (r"^head\.class_logits\.", "head.classification_head.module_list."),
        (r"^head\.box_deltas\.", "head.regression_head.module_list."),
    ]
    found = re.match(r"neck\.blocks\.(\d)\.(\d)\.0\.(.*)", name)
    if found:
        return f"backbone.extra.{int(found[1]) + 1}.{2 * int(found[2])}.{found[3]}"
    for pattern, there in rules:
        if re.match(pattern, name):
            return re.sub(pattern, there, name)
    raise AssertionError(f"no rule for {name}")


def background_last(name: str, values: Tensor) -> Tensor:
    """Torchvision's class 0 is the background, ours the last."""
    if "class_logits" not in name:
        return values
    return values.unflatten(0, (-1, CLASSES + 1)).roll(-1, dims=1).flatten(0, 1)


@pytest.fixture(scope="module")
def pair() -> Pair:
    from torchvision.models.detection import ssd300_vgg16

    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1).double()
    for layer in theirs.head.regression_head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.02)
    ours = torso_ssd()
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (SSDVGG.mean, SSDVGG.std))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    state = theirs.state_dict()
    mapped = {name: background_last(name, state[torchvision_name(name)]) for name, _ in ours.named_parameters()}
    assert len({torchvision_name(name) for name in mapped}) == len(state), "every weight of theirs has its place"
    ours.load_state_dict(mapped)
    # Its default boxes are made in float32; ours stand in for them, once they are shown to be the same.
    there = theirs.anchor_generator
    there.forward = lambda images, features: [ours.prior([x.shape[-2:] for x in features]).boxes] * len(images.tensors)
    return ours, theirs


def pictures_and_boxes() -> tuple[Tensor, list[dict[str, Tensor]], Targets]:
    generator = torch.Generator().manual_seed(1)
    counts = [8, 0]
    images = torch.randint(0, 256, (len(counts), 3, SIZE, SIZE), generator=generator)
    per_image, boxes = [], torch.zeros(len(counts), 8, 4, dtype=torch.float64)
    labels, valid = torch.zeros(len(counts), 8, dtype=torch.int64), torch.zeros(len(counts), 8, dtype=torch.bool)
    for i, count in enumerate(counts):
        side = 2 ** (torch.linspace(3, 8, count)[:, None] + torch.rand(count, 2, generator=generator))  # all levels
        corner = (torch.rand(count, 2, generator=generator) * (SIZE - side)).clamp(min=0)
        box = torch.cat([corner, (corner + side).clamp(max=SIZE)], dim=1).double()
        label = torch.randint(0, CLASSES, (count,), generator=generator)
        per_image.append({"boxes": box, "labels": label + 1})
        boxes[i, :count], labels[i, :count], valid[i, :count] = box, label, True
    return images, per_image, Targets(boxes, labels, valid, torch.zeros_like(valid))


@pytest.mark.part("prior/default_boxes", "prior/hand_picked")
@pytest.mark.parametrize("longest", [300.0, None])
def test_default_boxes_equal_torchvision(longest: float | None) -> None:
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    theirs = DefaultBoxGenerator(ratios, scales=scales, steps=[8, 16, 32, 64, 100, 300], clip=longest is not None)
    sizes = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    (expected,) = theirs(ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)]), [torch.zeros(1, 1, *s) for s in sizes])
    prior = DefaultBoxes([8, 16, 32, 64, 100, 300], sizes=SIZES, longest=longest)
    found = prior(sizes)
    assert prior.per_cell == [4, 6, 6, 6, 4, 4]
    assert len(found.boxes) == 8732
    close(found.boxes, expected, rtol=0, atol=1e-4)
    assert found.strides[-1].tolist() == [300, 300]


@pytest.mark.part("assigner/max_iou")
def test_each_object_has_a_prior_of_its_own_as_in_torchvision() -> None:
    from torchvision.models.detection._utils import SSDMatcher
    from torchvision.ops import box_iou

    assigner, differ = MaxIoU(0.5, 0.5, own=True), 0
    for seed in range(8):
        output, targets = slow.grid_case(seed, counts=(5, 40, 9), regions=0)
        assigned, usual = assigner(output, targets), MaxIoU(0.5, 0.5)(output, targets)
        for image in range(3):
            boxes = targets.boxes[image][targets.valid[image]]
            expected = SSDMatcher(0.5)(box_iou(boxes, output.priors))
            assert torch.equal(assigned.positive[image], expected >= 0)
            assert torch.equal(assigned.matched[image], expected.clamp(min=0))
            assert torch.equal(assigned.negative[image], expected < 0)
        differ += int((usual.matched != assigned.matched).sum())
    assert differ, "the cases must have priors that overlap another object more"


@pytest.mark.part("recipe/ssd", "head/ssd", "neck/ssd_extra", "backbone/ssd_vgg", "prior/default_boxes")
@pytest.mark.part("sample/hard_negative", "loss/smooth_l1", "loss/cross_entropy")
def test_losses_and_gradients_equal_torchvision(pair: Pair) -> None:
    ours, theirs = pair
    images, per_image, targets = pictures_and_boxes()
    ours.train(), theirs.train()
    count = len(images)
    batch = Batch(images, targets, torch.arange(count), torch.eye(3).expand(count, 3, 3), torch.full((count, 2), SIZE))
    mine = ours.losses(batch)
    expected = theirs(list(images.double() / 255), per_image)
    close(mine["class"], expected["classification"], rtol=1e-6, atol=0)
    close(mine["box"], expected["bbox_regression"], rtol=1e-6, atol=0)
    sum(mine.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        there = gradients[torchvision_name(name)]
        assert parameter.grad is not None
        assert there is not None
        there = background_last(name, there)
        scale = float(there.abs().max())
        assert scale > 0, name
        close(parameter.grad, there, rtol=1e-6, atol=1e-6 * scale, msg=name)


@pytest.mark.part("recipe/ssd", "head/ssd", "suppress/batched_nms")
def test_outputs_and_detections_equal_torchvision(pair: Pair) -> None:
    ours, theirs = pair
    images = pictures_and_boxes()[0][:1]
    ours.eval(), theirs.eval()
    said = {}
    hook = theirs.head.register_forward_hook(lambda _, __, output: said.update(output))
    with torch.no_grad():
        output, found = ours(images), ours.predict(images)
        expected = theirs(list(images.double() / 255))
    hook.remove()
    close(output.logits.roll(1, dims=-1), said["cls_logits"], rtol=1e-8, atol=1e-8)
    close(output.deltas, said["bbox_regression"], rtol=1e-8, atol=1e-8)
    assert (said["cls_logits"].softmax(-1)[..., 1:] > 0.01).sum(dim=1).max() > 400, "a class has more than it may keep"
    for i, there in enumerate(expected):
        count = int(found.valid[i].sum())
        assert count == len(there["scores"]) > 50
        close(found.scores[i, :count], there["scores"], rtol=1e-6, atol=1e-12)
        close(found.boxes[i, :count], there["boxes"], rtol=1e-6, atol=1e-6)
        assert torch.equal(found.labels[i, :count] + 1, there["labels"])
