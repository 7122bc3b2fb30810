"""The shipped recipe of Faster R-CNN against torchvision's, with the same weights, in float64."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from torso.assigners.sampled import Sampled
from torso.models import TwoStage
from torso.models.inside import go_on
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

CLASSES, SIZE, TOP, KEPT, WIDTH = 5, 128, 150, 120, 32
OVERRIDES = [
    "model.backbone={name: timm, model: resnet18, levels: [2, 3, 4, 5]}",
    f"model.head.channels={WIDTH}",
    f"model.propose.topk={TOP}",
    f"model.propose.suppress.max_detections={KEPT}",
    f"model.topk={KEPT * CLASSES}",
]

close = torch.testing.assert_close


class Fixed(nn.Module):
    """A sampler that both sides can follow: every ``positive``-th positive, every ``negative``-th negative."""

    by_priors = True
    count = 10_000

    def __init__(self, positive: int, negative: int):
        super().__init__()
        self.steps = positive, negative

    def forward(self, assigned: object, *_: object) -> Sampled:
        return Sampled(every(assigned.positive, self.steps[0]), every(assigned.negative, self.steps[1]))

    def theirs(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The same, as torchvision asks: one vector a picture, above 0 positive, 0 negative."""
        taken = [(every(x[None] > 0, self.steps[0])[0], every(x[None] == 0, self.steps[1])[0]) for x in labels]
        return [positive for positive, _ in taken], [negative for _, negative in taken]


def every(mask: Tensor, step: int) -> Tensor:
    """The first of ``mask [B, P]`` and each ``step``-th after it."""
    return mask & ((mask.cumsum(dim=1) - 1) % step == 0)


OF_PRIORS, OF_REGIONS = Fixed(2, 50), Fixed(2, 3)


def torchvision_model() -> nn.Module:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    counts = {f"rpn_{when}_nms_top_n_{mode}": n for when, n in (("pre", TOP), ("post", KEPT)) for mode in MODES}
    model = FasterRCNN(body, num_classes=CLASSES + 1, min_size=SIZE, max_size=SIZE, **counts)
    model.roi_heads.box_head = type(model.roi_heads.box_head)(256 * 49, WIDTH)
    model.roi_heads.box_predictor = type(model.roi_heads.box_predictor)(WIDTH, CLASSES + 1)
    # Random weights propose and detect next to nothing: spread what they say, so that suppression has work to do.
    for layer, std in (
        (model.rpn.head.cls_logits, 0.1),
        (model.rpn.head.bbox_pred, 0.02),
        (model.roi_heads.box_predictor.cls_score, 1.0),
        (model.roi_heads.box_predictor.bbox_pred, 0.3),
    ):
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=0.1)
    assign = model.rpn.assign_targets_to_anchors  # says float32, whatever the network is
    model.rpn.assign_targets_to_anchors = lambda *given: [[x.double() for x in part] for part in assign(*given)]
    model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler = OF_PRIORS.theirs, OF_REGIONS.theirs
    return model.double()


MODES = ("train", "test")
RULES = [
    (r"^backbone\.body\.", "backbone.body."),
    (r"^neck\.lateral\.(\d)\.0\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"^neck\.smooth\.(\d)\.0\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"^propose\.head\.tower\.0\.0\.", "rpn.head.conv.0.0."),
    (r"^propose\.head\.class_logits\.", "rpn.head.cls_logits."),
    (r"^propose\.head\.box_deltas\.", "rpn.head.bbox_pred."),
    (r"^stages\.0\.head\.layers\.0\.", "roi_heads.box_head.fc6."),
    (r"^stages\.0\.head\.layers\.2\.", "roi_heads.box_head.fc7."),
    (r"^stages\.0\.head\.class_logits\.", "roi_heads.box_predictor.cls_score."),
    (r"^stages\.0\.head\.box_deltas\.", "roi_heads.box_predictor.bbox_pred."),
]


def torchvision_name(name: str) -> str:
    """The name in torchvision's model of a parameter of ours."""
    for pattern, there in RULES:
        if re.match(pattern, name):
            return re.sub(pattern, there, name)
    raise AssertionError(f"no rule for {name}")


def ours_of(name: str, there: Tensor) -> Tensor:
    """Its numbers, or their gradient, as ours: our background is the last class, and has no box."""
    if ".head.class_logits." in name and name.startswith("stages"):
        return there.roll(-1, 0)
    return there[4:] if ".head.box_deltas." in name and name.startswith("stages") else there


@pytest.fixture(scope="module")
def pair() -> tuple[TwoStage, nn.Module]:
    torch.manual_seed(0)
    theirs = torchvision_model()
    ours: TwoStage = Recipe.load("faster_rcnn", OVERRIDES, without_data=True).model.build(num_classes=CLASSES).double()
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    ours.propose.criterion.sample, ours.each[0].draw.sample = OF_PRIORS, OF_REGIONS
    state = theirs.state_dict()
    mapped = {name: ours_of(name, state[torchvision_name(name)]) for name, _ in ours.named_parameters()}
    mapped |= {f"backbone.{name}": state[f"backbone.{name}"] for name, _ in ours.backbone.named_buffers()}
    assert set(mapped) == {name for name in ours.state_dict() if "normalize" not in name}
    ours.load_state_dict(mapped, strict=False)
    return ours, theirs


def case() -> tuple[Tensor, list[dict[str, Tensor]], Batch]:
    """Three pictures: of many objects, of none, and of one."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    per_image, boxes = [], torch.zeros(3, 12, 4, dtype=torch.float64)
    labels, valid = torch.zeros(3, 12, dtype=torch.int64), torch.zeros(3, 12, dtype=torch.bool)
    for i, count in enumerate([11, 0, 1]):
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 70
        box = torch.cat(
            [corner, corner + 12 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 46], dim=1
        )
        label = torch.randint(0, CLASSES, (count,), generator=generator)
        per_image.append({"boxes": box, "labels": label + 1})
        boxes[i, :count], labels[i, :count], valid[i, :count] = box, label, True
    targets = Targets(boxes, labels, valid, torch.zeros_like(valid))
    index, way = torch.arange(3), torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    return images, per_image, Batch(images, targets, index, way, torch.full((3, 2), SIZE))


@pytest.fixture
def calls(pair: tuple[TwoStage, nn.Module]) -> Iterator[dict[str, list[object]]]:
    """What torchvision's second stage gets and says in a call."""
    _, theirs = pair
    heard: dict[str, list[object]] = {"regions": [], "said": []}
    hooks = [
        theirs.roi_heads.box_roi_pool.register_forward_pre_hook(lambda _, given: heard["regions"].append(given[1])),
        theirs.roi_heads.box_predictor.register_forward_hook(lambda _, __, found: heard["said"].append(found)),
    ]
    yield heard
    for hook in hooks:
        hook.remove()


@pytest.mark.part("recipe/faster_rcnn", "propose/rpn", "head/roi_box", "roi/align", "criterion/dense", "loss/smooth_l1")
@pytest.mark.part("loss/cross_entropy", "coder/delta", "assigner/max_iou")
def test_losses_and_gradients_equal_torchvision(
    pair: tuple[TwoStage, nn.Module], calls: dict[str, list[object]]
) -> None:
    ours, theirs = pair
    images, per_image, batch = case()
    ours.train(), theirs.train()
    mine, expected = ours.losses(batch), theirs(list(images.double() / 255), per_image)
    assert [len(x) > 20 for x in calls["regions"][0]] == [True, True, True], "regions of every picture are drawn"
    names = {
        "proposal_class": "loss_objectness",
        "proposal_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
    }
    assert set(mine) == set(names)
    for name, there in names.items():
        assert expected[there] > 0.01
        close(mine[name], expected[there], rtol=1e-9, atol=0)
    sum(mine.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        there = ours_of(name, gradients[torchvision_name(name)])
        scale = float(there.abs().max())
        assert scale > 0, name
        close(parameter.grad, there, rtol=1e-6, atol=1e-6 * scale, msg=name)


@pytest.mark.part("recipe/faster_rcnn", "propose/rpn", "head/roi_box", "suppress/level_nms")
def test_proposals_and_what_is_said_of_them_equal_torchvision(
    pair: tuple[TwoStage, nn.Module], calls: dict[str, list[object]]
) -> None:
    ours, theirs = pair
    images, _, _ = case()
    ours.eval(), theirs.eval()
    with torch.no_grad():
        (said,) = ours(images).stages
        theirs(list(images.double() / 255))
    (regions,), ((logits, deltas),) = calls["regions"], calls["said"]
    start = 0
    for i, boxes in enumerate(regions):
        count = len(boxes)
        assert int(said.valid[i].sum()) == count > 40
        close(said.priors[i, :count], boxes, rtol=1e-9, atol=1e-9)
        rows = slice(start, start + count)
        close(said.logits[i, :count], logits[rows].roll(-1, 1), rtol=1e-8, atol=1e-9)
        close(said.deltas[i, :count], deltas[rows, 4:], rtol=1e-8, atol=1e-9)
        start += count
    assert start == len(logits)


@pytest.mark.part("recipe/faster_rcnn", "suppress/batched_nms")
def test_detections_equal_torchvision(pair: tuple[TwoStage, nn.Module]) -> None:
    ours, theirs = pair
    images, _, _ = case()
    ours.eval(), theirs.eval()
    with torch.no_grad():
        found = ours.answer(images, go_on)
        expected = theirs(list(images.double() / 255))
    assert max(len(there["scores"]) for there in expected) == 100, "the case fills an answer"
    for i, there in enumerate(expected):
        count = int(found.valid[i].sum())
        assert count == len(there["scores"]) > 20
        close(found.scores[i, :count], there["scores"], rtol=1e-8, atol=1e-12)
        close(found.boxes[i, :count], there["boxes"], rtol=1e-8, atol=1e-7)
        assert torch.equal(found.labels[i, :count] + 1, there["labels"])
