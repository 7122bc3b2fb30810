"""AutoAssign against the paper's equations in plain loops over pictures, objects and locations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.unit.criteria.cases import Largest, check_equal, leaves, regions, silent, speaking, within
from tests.unit.parts import slow
from torso.backbones import Tiny
from torso.boxes.coders import Delta
from torso.boxes.priors import Anchors
from torso.boxes.suppress import BatchedNMS
from torso.criteria import AutoAssign
from torso.heads import Retina
from torso.losses import L1, LOSSES, Focal, GIoU, SmoothL1
from torso.models import Detector
from torso.models.replace import replace_head
from torso.necks import FPN
from torso.structures import DenseOutput, Targets

pytestmark = pytest.mark.part("criterion/auto_assign")


def made(box_loss: torch.nn.Module, **options: float) -> AutoAssign:
    """The criterion with centre priors that have learned something."""
    criterion = AutoAssign(box_loss, Delta(), 3, **options).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        criterion.mean.copy_(torch.randn(3, 2, generator=generator) * 0.3)
        criterion.deviation.copy_(torch.rand(3, 2, generator=generator) + 0.5)
    return criterion


def slow_prior(criterion: AutoAssign, output: DenseOutput, targets: Targets, image: int, m: int, p: int) -> Tensor:
    """Equation 5: a Gaussian of the class, in strides from the middle of the box."""
    label = int(targets.labels[image, m])
    exponent = torch.zeros((), dtype=torch.float64)
    for axis in range(2):
        middle = (targets.boxes[image, m, axis] + targets.boxes[image, m, axis + 2]) / 2
        point = (output.priors[p, axis] + output.priors[p, axis + 2]) / 2
        distance = (point - middle) / output.strides[p, axis] - criterion.mean[label, axis]
        exponent = exponent + distance**2 / (2 * criterion.deviation[label, axis] ** 2)
    return torch.exp(-exponent)


def slow_score(output: DenseOutput, image: int, p: int, c: int) -> Tensor:
    """Class times implicit objectness."""
    return 1 / (1 + torch.exp(-output.logits[image, p, c])) / (1 + torch.exp(-output.extra["objectness"][image, p]))


def slow_object(criterion: AutoAssign, output: DenseOutput, targets: Targets, image: int, m: int) -> Tensor:
    """Equations 6 and 7: the weighted likelihood of an object; 0 where it holds no location."""
    box, label = targets.boxes[image, m], int(targets.labels[image, m])
    weights, likelihoods = [], []
    for p, prior in enumerate(output.priors.tolist()):
        if not within(prior, box.tolist()):
            continue
        if criterion.box_loss.takes == "boxes":
            cost = criterion.box_loss(output.boxes[image, p][None], box[None]).sum()
        else:
            wanted = criterion.coder.encode(box[None], output.priors[p][None])
            cost = criterion.box_loss(output.deltas[image, p][None], wanted).sum()
        likelihood = slow_score(output, image, p, label) * torch.exp(-criterion.box_weight * cost)
        prior_weight = slow_prior(criterion, output, targets, image, m, p)
        weights.append(torch.exp(criterion.confidence * likelihood) * prior_weight)
        likelihoods.append(likelihood)
    total = sum(weights)
    return sum((w / total * x for w, x in zip(weights, likelihoods, strict=True)), torch.zeros(()).double())


def slow_nothing(criterion: AutoAssign, output: DenseOutput, targets: Targets, image: int) -> Tensor:
    """Equation 8: every location by its negative weight."""
    boxes, found = targets.boxes[image].tolist(), torch.zeros((), dtype=torch.float64)
    weights: dict[tuple[int, int], float] = {}
    for m in [m for m in range(len(boxes)) if targets.valid[image, m]]:
        label, value = int(targets.labels[image, m]), {}
        for p, prior in enumerate(output.priors.tolist()):
            if within(prior, boxes[m]):
                value[p] = 1 / max(1 - slow.iou(boxes[m], output.boxes[image, p].tolist()), 1e-12)
        for p, x in value.items():
            spread = max(value.values()) - min(value.values())
            share = (x - min(value.values()) + 1e-12) / (spread + 1e-12)
            weights[p, label] = min(1 - share, weights.get((p, label), 1.0))
    ignored = [boxes[m] for m in range(len(boxes)) if targets.ignore[image, m]]
    for p, prior in enumerate(output.priors.tolist()):
        if any(within(prior, region) for region in ignored):
            continue
        for c in range(output.logits.shape[-1]):
            something = slow_score(output, image, p, c) * weights.get((p, c), 1.0)
            found = found - something**criterion.gamma * torch.log(1 - something)
    return found


def slow_losses(criterion: AutoAssign, output: DenseOutput, targets: Targets) -> dict[str, Tensor]:
    """Picture by picture, object by object."""
    zero = torch.zeros((), dtype=torch.float64)
    positive, negative, total, centers = zero, zero, 0.0, []
    for image in range(len(targets.boxes)):
        held, objects = zero, [m for m in range(targets.boxes.shape[1]) if targets.valid[image, m]]
        for m in objects:
            likelihood = slow_object(criterion, output, targets, image, m)
            weight = 1.0 if targets.weights is None else float(targets.weights[image, m])
            if likelihood.detach() > 0:
                positive = positive - weight * torch.log(likelihood)
            for p, prior in enumerate(output.priors.tolist()):
                if within(prior, targets.boxes[image, m].tolist()):
                    held = held + slow_prior(criterion, output, targets, image, m, p)
        centers.append(len(objects) / held if held.detach() > 0 else zero)
        total += float(held.detach())
        negative = negative + slow_nothing(criterion, output, targets, image)
    return {
        "positive": criterion.positive_weight * positive / max(1, int(targets.valid.sum())),
        "negative": criterion.negative_weight * negative / max(1.0, total),
        "center": criterion.center_weight * sum(centers) / len(centers),
    }


@pytest.mark.parametrize("counts", [(5, 0, 9), (1,), (0, 0)])
@pytest.mark.parametrize(
    ("box_loss", "options"),
    [
        (GIoU(), {}),
        (SmoothL1(), {"confidence": 1.0, "gamma": 1.5, "box_weight": 0.7, "center_weight": 0.1}),
        (L1(), {"gamma": 0.0, "box_weight": 0.2, "positive_weight": 1.0, "negative_weight": 0.5}),
    ],
)
def test_equals_plain_loops(box_loss, options, counts):
    for seed in range(2):
        output, targets = speaking(seed, counts, weights=seed == 1)
        criterion = made(box_loss, **options)
        expected = slow_losses(criterion, output, targets)
        check_equal(criterion(output, targets), expected, output, criterion.mean, criterion.deviation)


def test_only_the_locations_of_the_highest_prior_learn_an_object():
    """With ``topk`` below the locations in a box the rest of the loss is that of the nearest ones."""
    output, targets = speaking(0, (1,), ignored=0)
    targets = replace(targets, boxes=targets.boxes * 0 + torch.tensor([1.0, 1, 37, 35]))
    criterion = AutoAssign(GIoU(), Delta(), 3, topk=4).double()
    found = torch.autograd.grad(criterion(output, targets)["positive"], output.logits)[0]
    middle = torch.tensor([19.0, 18]).double()
    point = (output.priors[:, :2] + output.priors[:, 2:]) / 2
    nearest = ((point - middle) ** 2).sum(dim=1).argsort()[:4]
    assert set(found[0].any(dim=1).nonzero().flatten().tolist()) == set(nearest.tolist())


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_nothing_is_learned_in_an_ignored_region(box_loss):
    output, targets = speaking(1, (3, 0, 4), ignored=3)
    near, inside = regions(output, targets)
    assert int(inside.sum()) > 5
    losses = made(LOSSES[box_loss]())(output, targets)
    said = leaves(output)
    gradients = torch.autograd.grad(sum(losses.values()), list(said.values()), allow_unused=True)
    for name, gradient in zip(said, gradients, strict=True):
        if name in ("logits", "deltas", "objectness"):
            assert not gradient[inside].any(), name
    assert gradients[0][~near].any(dim=1).all()


@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_number_of_objects_is_finite_and_waits_for_nothing(count):
    output, targets = speaking(0, (count, count // 2))
    output = output._replace(logits=output.logits * 30)  # scores of 0 and 1
    criterion = made(GIoU())
    learns = [output.logits, output.deltas, output.extra["objectness"], criterion.mean, criterion.deviation]
    with slow.NoWaiting():
        losses = criterion(output, targets)
        gradients = torch.autograd.grad(sum(losses.values()), learns, allow_unused=True)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    if not count:
        assert losses["positive"] == losses["center"] == 0
        assert losses["negative"] > 0


def test_an_object_far_from_its_prior_in_float32_keeps_its_gradient():
    """A deviation so small that every Gaussian rounds to 0: shares of 0 / 0 in the paper's form."""
    output, targets = speaking(0, (3,), ignored=0)
    single = silent(output)._replace(
        **{name: getattr(output, name).detach().float() for name in ("logits", "deltas", "boxes", "priors", "strides")},
        extra={"objectness": output.extra["objectness"].detach().float()},
    )
    logits = single.logits.requires_grad_()
    criterion = AutoAssign(SmoothL1(), Delta(), 3)
    with torch.no_grad():
        criterion.deviation.fill_(1e-9)
        criterion.mean.fill_(0.37)
    losses = criterion(single, targets)
    (gradient,) = torch.autograd.grad(losses["positive"], logits)
    assert losses["positive"].isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-3


def test_one_graph_and_objects_in_chunks():
    """70 objects are three chunks; alone, compiled and in another order they cost the same."""
    output, targets = speaking(0, (70, 3))
    output = silent(output)
    criterion = made(GIoU())
    expected = criterion(output, targets)
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(0))
    fields = {name: getattr(targets, name)[:, order] for name in ("boxes", "labels", "valid", "ignore")}
    for found in (compiled(output, targets), criterion(output, replace(targets, **fields))):
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss, rtol=1e-10, atol=0)


def test_three_thousand_objects_stay_within_a_bound_of_memory():
    """No tensor is larger than a chunk of 32 objects with all locations, or all objects with ``topk`` of them."""
    output, targets = speaking(0, (3000,))
    rows = targets.boxes.shape[1]
    most = max(32 * 49 * 2, rows * 3 * 4, rows * 4)
    with Largest() as seen:
        made(GIoU(), topk=3)(output, targets)
    assert seen.elements <= most < rows * 49


def test_the_centre_prior_learns_where_objects_are_found():
    """Objects are found a stride right of their middle: the mean of their class moves there, others stay."""
    output, targets = speaking(0, (6, 6), ignored=0)
    output = silent(output)
    targets = replace(targets, boxes=torch.tensor([4.0, 4, 36, 36]).double().expand(2, 6, 4))
    targets = replace(targets, labels=torch.ones_like(targets.labels))
    point = (output.priors[:, :2] + output.priors[:, 2:]) / 2
    near = ((point - torch.tensor([28.0, 20])) ** 2).sum(dim=1)
    logits = (4 - near / 16)[None, :, None].expand(2, -1, 3)
    output = output._replace(logits=logits, extra={"objectness": torch.full_like(logits[..., 0], 4.0)})
    criterion = AutoAssign(GIoU(), Delta(), 3, box_weight=0.01).double()
    optimizer = torch.optim.SGD(criterion.parameters(), lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        sum(criterion(output, targets).values()).backward()
        optimizer.step()
    mean = criterion.mean.detach()
    assert 0.5 < float(mean[1, 0]) < 1.5
    assert math.isclose(float(mean[1, 1]), 0.0, abs_tol=0.3)
    assert not mean[[0, 2]].any()


def test_a_model_with_another_head_has_centre_priors_of_its_classes():
    body = Tiny(widths=(4, 8), levels=(2,))
    neck = FPN(body.channels, body.strides, channels=8, extra=0)
    anchors = Anchors(neck.strides, octaves=1, ratios=(1.0,))
    criterion = AutoAssign(GIoU(), Delta(), 3)
    head = Retina(neck.channels, 3, anchors.per_cell, branches=criterion.branches, depth=1)
    model = Detector(body, neck, head, anchors, Delta(), criterion, BatchedNMS(), num_classes=3)
    replace_head(model, 5)
    assert len(criterion.mean) == len(criterion.deviation) == 5
    boxes = torch.tensor([[[4.0, 4, 40, 40]]])
    row = torch.ones(1, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.full((1, 1), 4), row, ~row)
    losses = criterion(model(torch.rand(1, 3, 64, 64)), targets)
    sum(losses.values()).backward()
    assert criterion.mean.grad is not None
    assert criterion.mean.grad[4].any()


def test_other_classes_begin_with_priors_in_the_middle():
    criterion = made(GIoU())
    criterion.reset_classes(5)
    assert torch.equal(criterion.mean, torch.zeros(5, 2).double())
    assert torch.equal(criterion.deviation, torch.ones(5, 2).double())
    assert criterion.branches == ["objectness"]
    assert not criterion.background
    with pytest.raises(ValueError, match="auto_assign needs a box loss of deltas or boxes"):
        AutoAssign(Focal(), Delta(), 3)
