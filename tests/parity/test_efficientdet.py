"""EfficientDet-D0 made of torso's parts against effdet's, with the same weights, in float64.

effdet's loss and its answer turn what the network says into float32: there numbers agree to six digits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from effdet.anchors import AnchorLabeler, Anchors, generate_detections
from effdet.bench import _post_process
from effdet.config import get_efficientdet_config
from effdet.efficientdet import EfficientDet as Theirs
from effdet.loss import loss_fn
from torch import Tensor, nn

from tests.unit.necks.pyramids import randomise
from tests.unit.necks.test_bifpn import transfer
from torso.assigners import MaxIoU
from torso.backbones import Timm
from torso.boxes.coders import Delta
from torso.boxes.default_boxes import HandPicked
from torso.boxes.suppress import BatchedNMS
from torso.criteria import DenseCriterion
from torso.heads import EfficientDet
from torso.heads.efficientdet import NORM
from torso.losses import Focal, SmoothL1
from torso.models import Detector
from torso.necks import BiFPN
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.structures import Targets

CLASSES, SIZE = 4, 128
YX = [1, 0, 3, 2]  # effdet writes y before x

close = torch.testing.assert_close
Pair = tuple[Detector, Theirs]


def torso_d0() -> Detector:
    body = Timm("efficientnet_b0")
    neck = BiFPN(body.channels, body.strides, 64, 2, repeats=3, norm=NORM)
    aspects = [(1.0, 1.0), (1.4, 0.7), (0.7, 1.4)]
    sides = [[4 * stride * 2 ** (octave / 3) for octave in range(3)] for stride in neck.strides]
    prior = HandPicked(neck.strides, [[(s * x, s * y) for s in level for x, y in aspects] for level in sides])
    # Huber's loss with delta 0.1 is 0.1 times the smooth L1; the authors weigh its mean over four numbers by 50.
    criterion = DenseCriterion(
        MaxIoU(0.5, 0.5, own=True), Focal(gamma=1.5), SmoothL1(beta=0.1), Delta(), box_weight=50 * 0.1 / 4
    )
    head = EfficientDet(neck.channels, CLASSES, prior.per_cell)
    suppress = BatchedNMS(0.5, max_detections=100)
    model = Detector(
        body,
        neck,
        head,
        prior,
        Delta(),
        criterion,
        suppress,
        num_classes=CLASSES,
        threshold=0.0,
        topk=5000,
    )
    return model.double()


def head_state(theirs: Theirs) -> dict[str, Tensor]:
    """The state of our head in effdet's numbers."""
    state = {}
    for kind, net in (("class", theirs.class_net), ("box", theirs.box_net)):
        for name, value in net.state_dict().items():
            part, *place, last = name.split(".")
            if part == "conv_rep":
                state[f"{kind}_tower.convs.{place[0]}.{'conv_pw' in place:d}.{last}"] = value
            elif part == "bn_rep":
                state[f"{kind}_tower.norms.{place[0]}.{place[1]}.{last}"] = value
            elif kind == "class":
                state[f"class_{'depthwise' if 'conv_dw' in place else 'logits'}.{last}"] = value
            elif "conv_dw" in place:
                state[f"box_deltas.0.{last}"] = value
            else:
                state[f"box_deltas.1.{last}"] = value.unflatten(0, (-1, 4))[:, YX].flatten(0, 1)
    return state


@pytest.fixture(scope="module")
def pair() -> Pair:
    config = get_efficientdet_config("efficientdet_d0")
    config.num_classes, config.image_size, config.backbone_args = CLASSES, (SIZE, SIZE), {}
    torch.manual_seed(0)
    theirs, ours = Theirs(config, pretrained_backbone=False).double(), torso_d0()
    for part in (theirs.class_net, theirs.box_net):
        randomise(part, seed=3)
        nn.init.normal_(part.predict.conv_pw.weight, std=0.05)
    nn.init.constant_(theirs.class_net.predict.conv_pw.bias, -3.0)
    nn.init.zeros_(theirs.box_net.predict.conv_pw.bias)
    missing, extra = ours.backbone.body.load_state_dict(theirs.backbone.state_dict(), strict=False)
    assert not missing
    assert all("conv_head" in name or "bn2" in name for name in extra), extra
    transfer(theirs.fpn, ours.neck.pyramid)
    ours.head.load_state_dict(head_state(theirs))
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    return ours, theirs


def pictures() -> tuple[Tensor, Tensor]:
    """As torso takes them, and as effdet does."""
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return images, (images.double() / 255 - mean) / std


def objects() -> Targets:
    generator = torch.Generator().manual_seed(2)
    side = 2 ** (torch.linspace(4, 6.5, 6)[:, None] + 0.5 * torch.rand(2, 6, 2, generator=generator))
    corner = (torch.rand(2, 6, 2, generator=generator) * (SIZE - side)).clamp(min=0)
    boxes = torch.cat([corner, (corner + side).clamp(max=SIZE)], dim=-1).double()
    labels = torch.randint(0, CLASSES, (2, 6), generator=generator)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    return Targets(boxes * valid[..., None], labels * valid, valid, torch.zeros_like(valid))


def their_anchors(theirs: Theirs) -> Anchors:
    return Anchors.from_config(theirs.config)  # float32


@pytest.mark.part("prior/hand_picked")
def test_anchors_equal_effdet(pair: Pair) -> None:
    ours, theirs = pair
    sizes = [(SIZE // s, SIZE // s) for s in ours.neck.strides]
    found = ours.prior(sizes)
    assert ours.prior.per_cell == [9] * 5
    close(found.boxes, their_anchors(theirs).boxes[:, YX].double(), rtol=0, atol=1e-4)


def gradients(theirs: Theirs) -> Theirs:
    """A network whose weights are the gradients of another: they find their places as weights do."""
    network = copy.deepcopy(theirs)
    with torch.no_grad():
        for mine, other in zip(network.parameters(), theirs.parameters(), strict=True):
            mine.copy_(other.grad)
    return network


def compare_gradients(ours: Iterable[nn.Parameter], theirs: Iterable[Tensor]) -> None:
    for mine, there in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        close(mine.grad, there.detach(), rtol=1e-4, atol=1e-5 * float(there.detach().abs().max()))


def in_rows(levels: list[Tensor], size: int) -> Tensor:
    """effdet's maps ``[B, A * size, H, W]`` as ``[B, P, size]``."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, size) for x in levels], dim=1)


@pytest.mark.part("recipe/efficientdet", "head/efficientdet", "neck/bifpn")
@pytest.mark.parametrize("training", [False, True])
def test_outputs_equal_effdet(pair: Pair, training: bool) -> None:
    ours, theirs = pair
    ours.train(training), theirs.train(training)
    images, normalised = pictures()
    before = [copy.deepcopy(part.state_dict()) for part in pair]
    with torch.no_grad():
        output = ours(images)
        classes, boxes = theirs(normalised)
    close(output.logits, in_rows(classes, CLASSES), rtol=1e-8, atol=1e-8)
    close(output.deltas, in_rows(boxes, 4)[..., YX], rtol=1e-8, atol=1e-8)
    for part, state in zip(pair, before, strict=True):
        part.load_state_dict(state)  # the statistics of batch norms moved


@pytest.mark.part("recipe/efficientdet", "assigner/max_iou", "loss/focal", "loss/smooth_l1", "criterion/dense")
def test_losses_and_gradients_equal_effdet(pair: Pair) -> None:
    ours, theirs = pair
    ours.eval(), theirs.eval()
    images, normalised = pictures()
    targets = objects()
    labeler = AnchorLabeler(their_anchors(theirs), CLASSES)
    yx = [boxes[valid][:, YX].float() for boxes, valid in zip(targets.boxes, targets.valid, strict=True)]
    labels = [label[valid] + 1 for label, valid in zip(targets.labels, targets.valid, strict=True)]
    wanted_classes, wanted_boxes, count = labeler.batch_label_anchors(yx, labels)
    output = ours(images)
    positives = ours.criterion.assigner(output, targets).positive.sum(dim=1)
    assert positives.tolist() == count.tolist()
    mine = ours.criterion(output, targets)
    config = theirs.config
    total, of_class, of_box = loss_fn(
        *theirs(normalised), wanted_classes, wanted_boxes, count, CLASSES, config.alpha, config.gamma, config.delta,
        config.box_loss_weight,
    )  # fmt: skip
    share = float(count.sum() / (count.sum() + 1))  # effdet divides by one more than there are positives
    close(mine["class"] * share, of_class.double(), rtol=1e-5, atol=0)
    close(mine["box"] * share, of_box.double() * config.box_loss_weight, rtol=1e-5, atol=0)
    (sum(mine.values()) * share).backward()
    total.backward()
    slopes = gradients(theirs)
    of_body = dict(slopes.backbone.named_parameters())
    compare_gradients(ours.backbone.parameters(), [of_body[name] for name, _ in ours.backbone.body.named_parameters()])
    blank = copy.deepcopy(ours.neck)
    transfer(slopes.fpn, blank.pyramid)
    compare_gradients(ours.neck.parameters(), blank.parameters())
    of_head = head_state(slopes)
    compare_gradients(ours.head.parameters(), [of_head[name] for name, _ in ours.head.named_parameters()])


@pytest.mark.part("recipe/efficientdet", "coder/delta", "suppress/batched_nms")
def test_boxes_and_detections_equal_effdet(pair: Pair) -> None:
    ours, theirs = pair
    ours.eval(), theirs.eval()
    images, normalised = pictures()
    with torch.no_grad():
        found = ours.predict(images)
        classes, boxes, rows, labels = _post_process(*theirs(normalised), 5, CLASSES, 5000)
    anchors = their_anchors(theirs).boxes
    for i in range(2):
        expected = generate_detections(
            classes[i], boxes[i], anchors, rows[i], labels[i], torch.ones(()), torch.tensor([SIZE, SIZE])
        )
        assert found.valid[i].all()
        close(found.scores[i], expected[:, 4].double(), rtol=1e-5, atol=1e-7)
        close(found.boxes[i], expected[:, :4].double(), rtol=1e-4, atol=1e-3)
        assert (found.labels[i] + 1).tolist() == expected[:, 5].tolist()
