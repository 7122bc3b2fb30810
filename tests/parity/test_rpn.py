"""A region proposal network of torso's parts against torchvision's, with the same weights, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torso.assigners import MaxIoU
from torso.assigners.sampled import Sampled
from torso.boxes.coders import Delta
from torso.boxes.level_nms import LevelNMS
from torso.boxes.priors import Anchors
from torso.boxes.suppress import BatchedNMS
from torso.criteria import DenseCriterion
from torso.heads import RPN
from torso.losses import BinaryCrossEntropy, SmoothL1
from torso.models import Detector
from torso.structures import Features, Targets

SIZE, CHANNELS, STRIDES = 256, 12, [4, 8, 16, 32, 64]
SIZES = [[16], [32], [64], [128], [256]]
RATIOS = (0.5, 1.0, 2.0)
TOP, KEPT, OVERLAP = 60, 80, 0.3  # 0.3, not 0.7: so boxes of different levels would meet

close = torch.testing.assert_close


class Fixed(nn.Module):
    """A sampler that both sides can follow: every second positive, every fiftieth negative."""

    def forward(self, assigned: object, *_: object) -> Sampled:
        return Sampled(every(assigned.positive, 2), every(assigned.negative, 50))


def every(mask: Tensor, step: int) -> Tensor:
    """The first of ``mask [B, P]`` and each ``step``-th after it."""
    return mask & ((mask.cumsum(dim=1) - 1) % step == 0)


class Given(nn.Module):
    """Features that were made before stand in for backbone and neck."""

    def __init__(self, features: Features):
        super().__init__()
        self.features = features
        self.channels, self.strides = [CHANNELS] * len(STRIDES), STRIDES
        self.mean, self.std = (0.0,) * 3, (1.0,) * 3

    def forward(self, _: object) -> Features:
        return self.features


def torso_rpn(features: Features) -> Detector:
    prior = Anchors(STRIDES, ratios=RATIOS, sizes=SIZES)
    criterion = DenseCriterion(
        MaxIoU(0.7, 0.3), BinaryCrossEntropy(), SmoothL1(beta=1 / 9), Delta(), average="samples", sample=Fixed()
    )
    head = RPN([CHANNELS] * len(STRIDES), 1, prior.per_cell)
    suppress = LevelNMS(OVERLAP, KEPT)
    body = Given(features)
    return Detector(
        body, nn.Identity(), head, prior, Delta(), criterion, suppress, num_classes=1, threshold=0.0, topk=TOP
    ).double()


def torchvision_rpn() -> nn.Module:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    anchors = AnchorGenerator(tuple(tuple(s) for s in SIZES), (RATIOS,) * len(SIZES))
    head = RPNHead(CHANNELS, 3)
    top, kept = {"training": TOP, "testing": TOP}, {"training": KEPT, "testing": KEPT}
    network = RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, top, kept, OVERLAP)
    for layer in (head.cls_logits, head.bbox_pred):
        nn.init.normal_(layer.weight, std=0.1)

    def fixed(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        rows = torch.stack(labels)
        return list(every(rows == 1, 2)), list(every(rows == 0, 50))

    assign = network.assign_targets_to_anchors  # says float32, whatever the network is
    network.assign_targets_to_anchors = lambda *given: [[x.double() for x in part] for part in assign(*given)]
    network.fg_bg_sampler = fixed
    return network.double()


@pytest.fixture(scope="module")
def case() -> tuple[Detector, nn.Module, Features, Targets]:
    torch.manual_seed(0)
    features = [torch.randn(2, CHANNELS, SIZE // s, SIZE // s, dtype=torch.float64) for s in STRIDES]
    ours, theirs = torso_rpn(features), torchvision_rpn()
    there = theirs.head.state_dict()
    for name, name_there in (("tower.0.0", "conv.0.0"), ("class_logits", "cls_logits"), ("box_deltas", "bbox_pred")):
        layer = ours.head.get_submodule(name)
        layer.load_state_dict({end: there[f"{name_there}.{end}"] for end in ("weight", "bias")})
    side = 2 ** (torch.linspace(3, 7.5, 10)[:, None] + 0.5 * torch.rand(2, 10, 2))
    corner = (torch.rand(2, 10, 2) * (SIZE - side)).clamp(min=0)
    boxes = torch.cat([corner, (corner + side).clamp(max=SIZE)], dim=-1).double()
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[1] = False  # the second picture shows nothing
    labels = torch.zeros(2, 10, dtype=torch.int64)
    return ours, theirs, features, Targets(boxes * valid[..., None], labels, valid, torch.zeros_like(valid))


def said_by(theirs: nn.Module, features: Features, targets: Targets) -> tuple[list[Tensor], dict[str, Tensor]]:
    from torchvision.models.detection.image_list import ImageList

    images = ImageList(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float64), [(SIZE, SIZE)] * 2)
    truth = [{"boxes": b[v]} for b, v in zip(targets.boxes, targets.valid, strict=True)]
    proposals, losses = theirs(images, {str(i): x for i, x in enumerate(features)}, truth)
    return proposals, losses


@pytest.mark.part("recipe/rpn", "head/rpn", "loss/binary_cross_entropy", "loss/smooth_l1", "assigner/max_iou")
def test_losses_and_gradients_equal_torchvision(case: tuple[Detector, nn.Module, Features, Targets]) -> None:
    ours, theirs, features, targets = case
    ours.train(), theirs.train()
    output = ours(torch.zeros(2, 3, SIZE, SIZE))
    assert int(every(ours.criterion.assigner(output, targets).positive, 2).sum()) > 5, "some positives are sampled"
    mine = ours.criterion(output, targets)
    _, expected = said_by(theirs, features, targets)
    close(mine["class"], expected["loss_objectness"], rtol=1e-10, atol=0)
    close(mine["box"], expected["loss_rpn_box_reg"], rtol=1e-10, atol=0)
    sum(mine.values()).backward()
    sum(expected.values()).backward()
    pairs = [(ours.head.tower[0][0], theirs.head.conv[0][0])]
    pairs += [(ours.head.class_logits, theirs.head.cls_logits), (ours.head.box_deltas, theirs.head.bbox_pred)]
    for a, b in pairs:
        close(a.weight.grad, b.weight.grad, rtol=1e-9, atol=1e-12)
        close(a.bias.grad, b.bias.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.part("recipe/rpn", "head/rpn", "suppress/level_nms")
def test_proposals_equal_torchvision(case: tuple[Detector, nn.Module, Features, Targets]) -> None:
    ours, theirs, features, targets = case
    ours.eval(), theirs.eval()
    scores = []
    there = theirs.filter_proposals
    theirs.filter_proposals = lambda *given: scores.append(there(*given)) or scores[0]
    with torch.no_grad():
        found = ours.predict(torch.zeros(2, 3, SIZE, SIZE))
        proposals, _ = said_by(theirs, features, targets)
        ours.suppress = BatchedNMS(OVERLAP, KEPT)
        across = ours.predict(torch.zeros(2, 3, SIZE, SIZE))
    for i, boxes in enumerate(proposals):
        count = int(found.valid[i].sum())
        assert count == len(boxes) > 40
        close(found.boxes[i, :count], boxes, rtol=1e-10, atol=1e-9)
        close(found.scores[i, :count], scores[0][1][i], rtol=1e-10, atol=0)
        assert not found.labels[i].any()
    assert not torch.equal(across.boxes, found.boxes), "levels matter in this case"
