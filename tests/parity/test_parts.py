"""Parts against torch, torchvision and timm: outputs and gradients in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import ops
from torchvision.models.detection import _utils as reference
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from tests.unit.parts.slow import grid_case
from torso.assigners import MaxIoU
from torso.boxes import convert
from torso.boxes.coders import Delta
from torso.boxes.overlap import giou, iou, pairwise_iou
from torso.boxes.priors import Anchors
from torso.heads import Classify
from torso.losses import L1, CrossEntropy, Focal, GIoU, SmoothL1
from torso.necks import FPN
from torso.nn.activations import ACTIVATIONS
from torso.nn.norms import NORMS


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(count: int, seed: int = 0) -> Tensor:
    """Boxes in 100 px, none without area."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60
    return torch.cat([low, low + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40 + 0.1], dim=1)


def check(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor, rtol: float = 1e-9) -> None:
    """Equal outputs, and equal gradients of a weighted sum of them."""
    results = []
    for function in (ours, theirs):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        output = function(*leaves)
        results.append((output, *torch.autograd.grad((output * normal(*output.shape, seed=9)).sum(), leaves)))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=1e-12)


TORCH = {"relu": "relu", "leaky_relu": "leaky_relu", "silu": "silu", "mish": "mish"}


@pytest.mark.part("activation/relu", "activation/leaky_relu", "activation/silu", "activation/mish")
@pytest.mark.parametrize("name", sorted(TORCH))
def test_activations(name):
    check(ACTIVATIONS[name](), getattr(nn.functional, TORCH[name]), normal(200) * 8)


@pytest.mark.part("norm/batch", "norm/group")
def test_norms():
    x, weight, bias = normal(3, 32, 5, 4) * 2 + 1, normal(32, seed=1), normal(32, seed=2)
    state = {"weight": weight, "bias": bias}
    group, batch = NORMS["group"](32).double(), NORMS["batch"](32).double()
    group.load_state_dict(state)
    batch.load_state_dict(state, strict=False)
    check(group, lambda x: nn.functional.group_norm(x, 2, weight, bias, 1e-5), x)
    check(batch, lambda x: nn.functional.batch_norm(x, None, None, weight, bias, training=True), x)


@pytest.mark.part("loss/focal")
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("alpha", [0.25, 0.6, -1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_focal(gamma, alpha, soft):
    x = normal(3, 40, 7) * 4
    target = torch.sigmoid(normal(3, 40, 7, seed=1) * 3)
    target = target if soft else target.round()
    ours, theirs = Focal(alpha, gamma), ops.sigmoid_focal_loss
    check(lambda x: ours(x, target), lambda x: theirs(x, target, alpha, gamma), x, rtol=1e-7)
    extreme = torch.tensor([-50.0, 50.0], dtype=torch.float64).repeat(2)
    answer = torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(ours(extreme, answer), theirs(extreme, answer, alpha, gamma), rtol=1e-9, atol=1e-9)


WEIGHT = torch.sigmoid(normal(12, seed=5))


@pytest.mark.part("loss/focal")
def test_focal_reduced():
    x, target = normal(12, 4), (normal(12, 4, seed=1) > 0).double()
    plain = ops.sigmoid_focal_loss(x, target)
    weight = WEIGHT[:, None]
    close = torch.testing.assert_close
    close(Focal()(x, target, reduction="mean"), ops.sigmoid_focal_loss(x, target, reduction="mean"))
    close(Focal()(x, target, reduction="sum"), ops.sigmoid_focal_loss(x, target, reduction="sum"))
    close(Focal()(x, target, weight=weight, reduction="mean", avg_factor=5), (plain * weight).sum() / 5)


@pytest.mark.part("loss/giou")
def test_giou():
    first, second = boxes(300), boxes(300, seed=1)
    first[:20] = second[:20] + 200  # disjoint
    first[20:30, 0], first[20:30, 2] = second[20:30, 2], second[20:30, 2] + 7  # touching
    check(GIoU(), lambda a, b: ops.generalized_box_iou_loss(a, b, eps=0), first, second)
    flat = torch.tensor([[5.0, 5, 5, 9], [5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]], dtype=torch.float64)
    other = torch.tensor([[5.0, 5, 5, 9], [5, 5, 5, 5], [7, 8, 7, 8], [4, 4, 4, 4]], dtype=torch.float64)
    torch.testing.assert_close(GIoU()(flat, other), ops.generalized_box_iou_loss(flat, other), rtol=1e-6, atol=1e-6)
    weighted = GIoU()(first, second, weight=torch.ones(300), reduction="mean", avg_factor=300)
    torch.testing.assert_close(weighted, ops.generalized_box_iou_loss(first, second, reduction="mean", eps=0))


@pytest.mark.part("loss/l1", "loss/smooth_l1")
@pytest.mark.parametrize("beta", [0.05, 1.0 / 9, 1.0])
def test_losses_of_deltas(beta):
    guess, target = normal(12, 4), normal(12, 4, seed=1)
    functional = nn.functional
    check(L1(), lambda a, b: functional.l1_loss(a, b, reduction="none").sum(1), guess, target)
    check(
        SmoothL1(beta), lambda a, b: functional.smooth_l1_loss(a, b, reduction="none", beta=beta).sum(1), guess, target
    )
    for ours, theirs in (
        (L1(), nn.L1Loss(reduction="sum")),
        (SmoothL1(beta), nn.SmoothL1Loss(reduction="sum", beta=beta)),
    ):
        check(lambda a, ours=ours: ours(a, target, reduction="sum"), lambda a, theirs=theirs: theirs(a, target), guess)
        mean = ours(guess, target, weight=WEIGHT, reduction="mean", avg_factor=torch.tensor(7.0))
        rows = torch.stack([theirs(a, b) for a, b in zip(guess, target, strict=True)])
        torch.testing.assert_close(mean, (rows * WEIGHT).sum() / 7)


@pytest.mark.part("loss/cross_entropy")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(), (3, 5)], ids=["pictures", "pixels"])
def test_cross_entropy(shape, smoothing):
    logits = normal(12, 6, *shape) * 3
    target = torch.randint(0, 6, (12, *shape), generator=torch.Generator().manual_seed(0))
    target[1] = target[7] = 255
    ours = CrossEntropy(smoothing)
    for reduction in ("none", "sum", "mean"):
        theirs = nn.CrossEntropyLoss(ignore_index=255, label_smoothing=smoothing, reduction=reduction)
        check(
            lambda x, reduction=reduction: ours(x, target, reduction=reduction),
            lambda x, theirs=theirs: theirs(x, target),
            logits,
        )
    rows = nn.functional.cross_entropy(
        logits, target, ignore_index=255, label_smoothing=smoothing, reduction="none"
    ).reshape(12, -1)
    weight = WEIGHT.reshape(12, *[1] * len(shape))
    weighted = ours(logits, target, weight=weight, reduction="mean", avg_factor=4.0)
    torch.testing.assert_close(weighted, (rows.sum(1) * WEIGHT).sum() / 4)


@pytest.mark.part("loss/cross_entropy")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(), (3, 5)], ids=["pictures", "pixels"])
def test_cross_entropy_of_probabilities(shape, smoothing):
    logits = normal(12, 6, *shape) * 3
    target = normal(12, 6, *shape, seed=1).softmax(1)
    for reduction in ("none", "sum", "mean"):
        theirs = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction=reduction)
        check(
            lambda x, reduction=reduction: CrossEntropy(smoothing)(x, target, reduction=reduction),
            lambda x, theirs=theirs: theirs(x, target),
            logits,
        )


@pytest.mark.part("metric/iou")
def test_overlap():
    first, second = boxes(40), boxes(30, seed=1)
    check(pairwise_iou, ops.box_iou, first, second)
    rows = boxes(40, seed=2)
    check(iou, lambda a, b: ops.box_iou(a, b).diagonal(), first, rows)
    check(giou, lambda a, b: ops.generalized_box_iou(a, b).diagonal(), first, rows)
    assert torch.equal(pairwise_iou(first.float(), second.float()), ops.box_iou(first.float(), second.float()))


@pytest.mark.part("box/convert")
@pytest.mark.parametrize("pair", [("xyxy", "cxcywh"), ("cxcywh", "xyxy"), ("xyxy", "xywh"), ("xywh", "xyxy")])
def test_conversions(pair):
    here, there = pair
    rows = ops.box_convert(boxes(50), "xyxy", here)
    ours = getattr(convert, f"{here}_to_{there}")
    check(ours, lambda x: ops.box_convert(x, here, there), rows)
    assert ours(rows.reshape(5, 10, 4)).shape == (5, 10, 4)


@pytest.mark.part("box/convert")
def test_area_and_clip():
    check(convert.area, ops.box_area, boxes(50))
    wide = boxes(50) * 2 - 40
    check(lambda x: convert.clip(x, 70, 90), lambda x: ops.clip_boxes_to_image(x, (70, 90)), wide)
    found = convert.clip(wide, torch.tensor(70), torch.tensor(90))
    assert torch.equal(found, ops.clip_boxes_to_image(wide, (70, 90)))


@pytest.mark.part("coder/delta")
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)])
def test_delta_coder(weights):
    ours, theirs = Delta(weights), reference.BoxCoder(weights)
    priors, truth = boxes(60), boxes(60, seed=1)
    check(lambda x: ours.encode(x, priors), lambda x: theirs.encode_single(x, priors), truth)
    deltas = normal(60, 4) * 8  # beyond the limit of the exponent too
    assert (deltas[:, 3] / weights[3] > 62.5**0.5).any() or weights[3] > 1
    check(lambda x: ours.decode(x, priors), lambda x: theirs.decode_single(x, priors), deltas)
    together = ours.decode(deltas.reshape(1, 60, 4).expand(3, 60, 4), priors)
    torch.testing.assert_close(together[2], theirs.decode_single(deltas, priors))


@pytest.mark.part("prior/anchors")
@pytest.mark.parametrize("cells", [(8, 8), (13, 5), (1, 7)])
def test_anchors(cells):
    # torchvision takes the stride from the sizes of picture and map: the picture must be a multiple of the stride.
    strides, sizes = [8, 16, 32], [[17.0, 23.0], [33.0, 47.0], [101.0, 130.0]]
    ratios = (0.5, 1.0, 2.0, 3.0)
    picture = (cells[0] * 32, cells[1] * 32)
    shapes = [(picture[0] // s, picture[1] // s) for s in strides]
    theirs = AnchorGenerator(tuple(map(tuple, sizes)), (ratios,) * 3)
    images = ImageList(torch.zeros(1, 3, *picture), [picture])
    (expected,) = theirs(images, [torch.zeros(1, 1, *shape) for shape in shapes])
    ours = Anchors(strides, ratios=ratios, sizes=sizes)
    assert ours.per_cell == theirs.num_anchors_per_location()
    assert torch.equal(ours(shapes).boxes, expected)


def matched(table: Tensor, matcher: reference.Matcher) -> tuple[Tensor, Tensor, Tensor]:
    rows = matcher(table)
    return rows.clamp(min=0) * (rows >= 0), rows >= 0, rows == -1


@pytest.mark.part("assigner/max_iou")
@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5), (0.3, 0.1)])
def test_max_iou_is_torchvisions_matcher(thresholds, low_quality):
    """25 batches of 3 pictures for each of 8 settings, ties everywhere."""
    assigner = MaxIoU(*thresholds, low_quality=low_quality)
    matcher = reference.Matcher(*thresholds, allow_low_quality_matches=low_quality)
    ties = 0
    for seed in range(25):
        counts = (1 + seed % 7, 40 + seed, 3)
        output, targets = grid_case(100 + seed, counts, regions=0)
        found = assigner(output, targets)
        for image, count in enumerate(counts):
            table = ops.box_iou(targets.boxes[image, :count], output.priors)
            assert (table.amax(1) > 0).all(), "what nothing touches is matched differently, on purpose"
            expected = matched(table, matcher)
            best = table.amax(0)
            ties += int((((table == best).sum(0) > 1) & (best > 0)).sum())
            for mine, other in zip(found[:3], expected, strict=True):
                assert torch.equal(mine[image], other), (seed, image)
    assert ties > 200


def transferred(neck: FPN, theirs: ops.FeaturePyramidNetwork) -> list[tuple[nn.Module, nn.Module]]:
    """Layers of the two that belong together, with equal weights."""
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    extra = theirs.extra_blocks
    pairs = [*zip(neck.lateral, theirs.inner_blocks, strict=True), *zip(neck.smooth, theirs.layer_blocks, strict=True)]
    pairs += zip(neck.down, [[extra.p6], [extra.p7]], strict=True) if neck.down else []
    layers = [(mine, other) for row, block in pairs for mine, other in zip(row, block, strict=True)]
    for mine, other in layers:
        mine.load_state_dict(other.state_dict())
    return layers


@pytest.mark.part("neck/fpn")
@pytest.mark.parametrize(
    ("options", "make_extra"),
    [
        ({"extra": 2, "extra_from": "output"}, lambda: LastLevelP6P7(8, 8)),
        ({"extra": 2, "extra_from": "input"}, lambda: LastLevelP6P7(10, 8)),
        ({"extra": 1, "extra_from": "pool"}, LastLevelMaxPool),
        ({"extra": 0}, lambda: None),
        ({"extra": 0, "norm": nn.BatchNorm2d}, lambda: None),
    ],
    ids=["output", "input", "pool", "none", "norm"],
)
@pytest.mark.parametrize("size", [(64, 96), (75, 53)])
def test_fpn(size, options, make_extra):
    channels, strides = [4, 6, 10], [8, 16, 32]
    ours = FPN(channels, strides, channels=8, **options).double()
    theirs = ops.FeaturePyramidNetwork(channels, 8, make_extra(), norm_layer=options.get("norm")).double()
    layers = transferred(ours, theirs)
    levels = [normal(2, c, -(-size[0] // s), -(-size[1] // s), seed=s) for c, s in zip(channels, strides, strict=True)]

    def flat(outputs) -> Tensor:
        assert len(outputs) == len(ours.channels)
        return torch.cat([x.flatten() for x in outputs])

    def named(*features: Tensor) -> Tensor:
        return flat(list(theirs({str(i): x for i, x in enumerate(features)}).values()))

    check(lambda *features: flat(ours(list(features))), named, *levels)
    for level, stride in zip(ours(levels), ours.strides, strict=True):
        assert level.shape[-2:] == (-(-size[0] // stride), -(-size[1] // stride))
    ours.zero_grad(), theirs.zero_grad()
    flat(ours(levels)).square().sum().backward()
    named(*levels).square().sum().backward()
    assert sum(len(list(mine.parameters())) for mine, _ in layers) == len(list(ours.parameters()))
    for mine, other in layers:
        for a, b in zip(mine.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9 * float(b.grad.abs().max()))


@pytest.mark.part("head/classify")
def test_classify_is_timms_classifier_head():
    from timm.layers import ClassifierHead

    torch.manual_seed(0)
    theirs = ClassifierHead(16, 5, pool_type="avg").double()
    ours = Classify([8, 16], 5).double()
    ours.linear.load_state_dict(theirs.fc.state_dict())
    low = normal(2, 8, 8, 8)
    check(lambda x: ours([low, x]), theirs, normal(2, 16, 5, 7))
    ours.dropout.p = 0.5
    ours.train()
    assert not torch.equal(ours([low, normal(2, 16, 5, 7)]), ours([low, normal(2, 16, 5, 7)]))
    ours.eval()
    check(lambda x: ours([low, x]), theirs.eval(), normal(2, 16, 5, 7))
