"""The dense objective against a loop over pictures and priors, and what it must never do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from tests.unit.parts import slow
from torso.assigners import MaxIoU
from torso.backbones import Tiny
from torso.boxes.coders import CODERS, Delta
from torso.boxes.priors import Anchors
from torso.boxes.suppress import BatchedNMS
from torso.criteria import ClassifyCriterion, DenseCriterion
from torso.heads import Classify, Retina
from torso.losses import L1, LOSSES, CrossEntropy, Focal
from torso.models import Classifier, Detector
from torso.necks import FPN
from torso.structures import Assignment, Batch, DenseOutput, Targets
from torso.testing import dense_case

pytestmark = pytest.mark.part("criterion/dense")


def slow_losses(output: DenseOutput, targets: Targets, box_loss: str, average: str) -> dict[str, Tensor]:
    """Picture by picture and prior by prior, with torchvision's losses and coder."""
    classes, boxes, counts = [], [], []
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    for image in range(len(targets.boxes)):
        learns, negative = slow.max_iou(output.priors, targets, image)
        class_sum = box_sum = torch.zeros((), dtype=torch.float64)
        for p, m in enumerate(learns):
            if m is None and not negative[p]:
                continue
            wanted = torch.zeros(3, dtype=torch.float64)
            if m is not None:
                wanted[targets.labels[image, m]] = 1
                box, prior = targets.boxes[image, m][None], output.priors[p][None]
                if box_loss == "giou":
                    box_sum = box_sum + generalized_box_iou_loss(output.boxes[image, p][None], box, eps=0).sum()
                else:
                    delta = coder.encode_single(box, prior)[0]
                    difference = output.deltas[image, p] - delta
                    box_sum = box_sum + difference.abs().sum()
            class_sum = class_sum + sigmoid_focal_loss(output.logits[image, p], wanted).sum()
        counts.append(max(1, sum(m is not None for m in learns)))
        classes.append(class_sum)
        boxes.append(box_sum)
    found = sum(any(m is not None for m in slow.max_iou(output.priors, targets, i)[0]) for i in range(len(counts)))
    assert found, "the case must have positives"
    total = sum(count for i, count in enumerate(counts) if targets.valid[i].any())
    if average == "batch":
        return {"class": sum(classes) / total, "box": sum(boxes) / total}
    share = len(counts)
    return {
        "class": sum(x / n for x, n in zip(classes, counts, strict=True)) / share,
        "box": sum(x / n for x, n in zip(boxes, counts, strict=True)) / share,
    }


@pytest.mark.part("loss/focal", "loss/l1", "loss/giou", "coder/delta")
@pytest.mark.parametrize("average", ["batch", "image"])
@pytest.mark.parametrize("box_loss", ["l1", "giou"])
def test_equals_a_loop_over_pictures_and_priors(box_loss, average):
    output, targets = slow.grid_case(7)
    logits, deltas = output.logits.requires_grad_(), output.deltas.requires_grad_()
    output = output._replace(boxes=Delta().decode(deltas, output.priors))
    criterion = DenseCriterion(MaxIoU(), Focal(), LOSSES[box_loss](), Delta(), 0.7, 1.3, average)
    found, expected = criterion(output, targets), slow_losses(output, targets, box_loss, average)
    assert list(found) == ["class", "box"]
    torch.testing.assert_close(found["class"], 0.7 * expected["class"], rtol=1e-10, atol=0)
    torch.testing.assert_close(found["box"], 1.3 * expected["box"], rtol=1e-10, atol=0)
    ours = torch.autograd.grad(sum(found.values()), [logits, deltas], retain_graph=True)
    theirs = torch.autograd.grad(0.7 * expected["class"] + 1.3 * expected["box"], [logits, deltas])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_no_gradient_from_an_ignored_region(box_loss):
    output, targets = slow.grid_case(1)
    logits, deltas = output.logits.requires_grad_(), output.deltas.requires_grad_()
    output = output._replace(boxes=Delta().decode(deltas, output.priors))
    assigner = MaxIoU()
    losses = DenseCriterion(assigner, Focal(), LOSSES[box_loss](), Delta())(output, targets)
    sum(losses.values()).backward()
    assigned = assigner(output, targets)
    neither = ~(assigned.positive | assigned.negative)
    assert int(neither.sum()) > 5
    assert logits.grad is not None
    assert deltas.grad is not None
    assert not logits.grad[neither].any()
    assert not deltas.grad[~assigned.positive].any(), "only positive priors learn a box"
    assert logits.grad[~neither].all()
    assert deltas.grad[assigned.positive].any(dim=1).all()


def test_batch_and_image_averages_differ_as_said():
    """With equal counts they are equal; with one empty picture the batch's positives are shared by all."""
    output, targets = slow.grid_case(2, counts=(4,))
    twice = output._replace(**{f: getattr(output, f).repeat(2, 1, 1) for f in ("logits", "deltas", "boxes")})
    both = Targets(
        *(x.repeat(2, *[1] * (x.ndim - 1)) for x in (targets.boxes, targets.labels, targets.valid, targets.ignore))
    )
    batch, image = (DenseCriterion(MaxIoU(), Focal(), L1(), Delta(), average=a) for a in ("batch", "image"))
    for name in ("class", "box"):
        torch.testing.assert_close(batch(twice, both)[name], image(twice, both)[name], rtol=1e-12, atol=0)
    empty = Targets(both.boxes, both.labels, both.valid & torch.tensor([[True], [False]]), both.ignore)
    positives = MaxIoU()(twice, empty).positive.sum(dim=1)
    assert positives[0] > 0 == positives[1]
    torch.testing.assert_close(batch(twice, empty)["box"], 2 * image(twice, empty)["box"], rtol=1e-12, atol=0)


def test_quality_is_the_target_of_the_score():
    class Half(MaxIoU):
        def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
            assigned = super().forward(output, targets)
            return assigned._replace(quality=torch.full_like(assigned.positive, 0.25, dtype=torch.float32))

    output, targets = slow.grid_case(4)
    seen = {}

    class Seeing(Focal):
        def at_labels(self, logits, labels, score, weight):
            seen["score"], seen["labels"] = score, labels
            return super().at_labels(logits, labels, score, weight)

    DenseCriterion(Half(), Seeing(), L1(), Delta())(output, targets)
    assigned = MaxIoU()(output, targets)
    assert torch.equal(seen["score"], 0.25 * assigned.positive)
    assert torch.equal(seen["labels"], targets.labels.gather(1, assigned.matched))


@pytest.mark.part("transform/mixup_boxes")
def test_what_a_prior_costs_is_multiplied_by_the_weight_of_its_object():
    output, targets = slow.grid_case(5, regions=0)
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta())
    weights = torch.rand(targets.labels.shape, generator=torch.Generator().manual_seed(0))
    one = {name: torch.zeros((), dtype=torch.float64) for name in ("class", "box")}
    assigned = MaxIoU()(output, targets)
    count = assigned.positive.sum()
    for image, prior in torch.nonzero(assigned.positive | assigned.negative).tolist():
        alone = assigned._replace(
            positive=torch.zeros_like(assigned.positive), negative=torch.zeros_like(assigned.negative)
        )
        positive = bool(assigned.positive[image, prior])
        (alone.positive if positive else alone.negative)[image, prior] = True
        weight = weights[image, assigned.matched[image, prior]] if positive else 1.0
        losses = DenseCriterion(lambda *_, alone=alone: alone, Focal(), L1(), Delta())(output, targets)
        one = {name: one[name] + weight * losses[name] / count for name in one}
    found = criterion(output, replace(targets, weights=weights))
    for name, expected in one.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=0)
    ones = criterion(output, replace(targets, weights=torch.ones_like(weights)))
    assert {name: float(loss) for name, loss in ones.items()} == {
        name: float(loss) for name, loss in criterion(output, targets).items()
    }


def test_weighted_losses_are_one_graph_and_wait_for_nothing():
    output, targets = dense_case(7)
    weighted = replace(targets, weights=torch.rand(targets.labels.shape))
    output.logits.requires_grad_()
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta(weights=(10, 10, 5, 5)))
    with slow.NoWaiting():
        sum(criterion(output, weighted).values()).backward()
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    for name, loss in compiled(output, weighted).items():
        torch.testing.assert_close(loss, criterion(output, weighted)[name])


@pytest.mark.part("transform/mixup", "transform/cutmix")
def test_a_classifier_learns_from_the_shares_of_a_mixed_picture():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    shares = torch.tensor([[0.7, 0.3, 0.0]]).repeat(6, 1)
    targets = replace(Targets.of_classes(classes), probabilities=shares)
    for smoothing in (0.0, 0.1):
        found = ClassifyCriterion(CrossEntropy(smoothing))(logits, targets)["class"]
        each = [CrossEntropy(smoothing)(logits, torch.full((6,), c)).mean() for c in range(3)]
        torch.testing.assert_close(found, 0.7 * each[0] + 0.3 * each[1])
    plain = ClassifyCriterion(CrossEntropy())(logits, Targets.of_classes(classes))["class"]
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, classes))


@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_losses_wait_for_nothing(count):
    output, targets = dense_case(count)
    output.logits.requires_grad_()
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta(weights=(10, 10, 5, 5)))
    with slow.NoWaiting():
        sum(criterion(output, targets).values()).backward()


def test_losses_can_be_written_down_without_data():
    """On the meta device nothing that depends on values can run."""
    output, targets = dense_case(9)
    moved = output._replace(**{f: getattr(output, f).to("meta") for f in ("logits", "deltas", "boxes", "priors")})
    losses = DenseCriterion(MaxIoU(), Focal(), L1(), Delta())(moved, targets.to("meta"))
    assert all(loss.shape == () for loss in losses.values())


def detector() -> Detector:
    body = Tiny(widths=(4, 8, 8, 8))
    neck = FPN(body.channels, body.strides, channels=8, extra=0)
    prior = Anchors(neck.strides)
    criterion = DenseCriterion(MaxIoU(), Focal(), L1(), Delta())
    head = Retina(neck.channels, 3, prior.per_cell, depth=1)
    return Detector(body, neck, head, prior, Delta(), criterion, BatchedNMS(), num_classes=3)


def test_a_model_in_bfloat16_has_losses_in_float32():
    _, targets = dense_case(5)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    eye, size = torch.eye(3).double().expand(2, 3, 3), torch.full((2, 2), 64)
    targets = Targets(targets.boxes, targets.labels, targets.valid, targets.ignore, classes=torch.tensor([0, 2]))
    batch = Batch(images, targets, torch.arange(2), eye, size)
    body = Tiny(widths=(4, 8), levels=(2,))
    classifier = Classifier(body, Classify(body.channels, 3), ClassifyCriterion(CrossEntropy()), 3)
    for model in (detector(), classifier):
        expected = {name: float(loss.detach()) for name, loss in model.losses(batch).items()}
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.losses(batch)
        for name, loss in losses.items():
            assert loss.dtype == torch.float32
            assert float(loss.detach()) == pytest.approx(expected[name], rel=0.05)
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_coders_that_do_not_fit():
    spread = LOSSES["distribution_focal"]()
    with pytest.raises(ValueError, match="a coder of distributions needs a box loss of boxes such as giou"):
        DenseCriterion(MaxIoU(), Focal(), L1(), CODERS["distribution"](), distribution_loss=spread)
    with pytest.raises(ValueError, match="a distribution_loss needs a coder that has one"):
        DenseCriterion(MaxIoU(), Focal(), L1(), Delta(), distribution_loss=spread)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((L1(), L1()), "a dense detector needs a class loss of scores such as focal"),
        ((Focal(), Focal()), "a dense detector needs a box loss of deltas or boxes such as l1 or giou"),
    ],
)
def test_losses_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseCriterion(MaxIoU(), *arguments, Delta())
    with pytest.raises(ValueError, match="a classifier needs a loss of classes such as cross_entropy"):
        ClassifyCriterion(L1())
