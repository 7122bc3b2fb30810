"""FreeAnchor against the paper's equations in plain loops over pictures, objects and anchors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.unit.criteria.cases import Largest, check_equal, leaves, regions, silent, speaking
from tests.unit.parts import slow
from torso.boxes.coders import Delta
from torso.criteria import CRITERIA, FreeAnchor
from torso.losses import L1, LOSSES, Focal, GIoU, SmoothL1
from torso.structures import DenseOutput, Targets

pytestmark = pytest.mark.part("criterion/free_anchor")


def slow_bag(criterion: FreeAnchor, output: DenseOutput, targets: Targets, image: int, m: int) -> Tensor | None:
    """How likely an object is found: the mean-max over its bag (equations 6 and 7)."""
    box, label = targets.boxes[image, m], int(targets.labels[image, m])
    overlap = [slow.iou(box.tolist(), prior) for prior in output.priors.tolist()]
    ranked = sorted(range(len(overlap)), key=lambda p: -overlap[p])
    likelihoods = []
    for p in ranked[: criterion.topk]:
        if overlap[p] == 0:
            continue
        if criterion.box_loss.takes == "boxes":
            cost = criterion.box_loss(output.boxes[image, p][None], box[None]).sum()
        else:
            encoded = criterion.coder.encode(box[None], output.priors[p][None])
            cost = criterion.box_loss(output.deltas[image, p][None], encoded).sum()
        score = 1 / (1 + torch.exp(-output.logits[image, p, label]))
        likelihoods.append(score * torch.exp(-criterion.box_weight * cost))
    if not likelihoods:
        return None
    return sum(x / (1 - x) for x in likelihoods) / sum(1 / (1 - x) for x in likelihoods)


def slow_nothing(criterion: FreeAnchor, output: DenseOutput, targets: Targets, image: int) -> Tensor:
    """What it costs that priors say "something" (equations 8 and 9)."""
    boxes, found = targets.boxes[image].tolist(), torch.zeros((), dtype=torch.float64)
    excuses: dict[tuple[int, int], float] = {}
    for m in [m for m in range(len(boxes)) if targets.valid[image, m]]:
        label = int(targets.labels[image, m])
        said = [slow.iou(boxes[m], box) for box in output.boxes[image].tolist()]
        for p, overlap in enumerate(said):
            if overlap > criterion.overlap:
                share = (overlap - criterion.overlap) / (max(said) - criterion.overlap)
                excuses[p, label] = max(share, excuses.get((p, label), 0.0))
    ignored = [boxes[m] for m in range(len(boxes)) if targets.ignore[image, m]]
    for p, prior in enumerate(output.priors.tolist()):
        if any(slow.shared(region, prior) >= 0.5 * slow.area(prior) for region in ignored):
            continue
        for c in range(output.logits.shape[-1]):
            something = (1 - excuses.get((p, c), 0.0)) / (1 + torch.exp(-output.logits[image, p, c]))
            found = found - something**criterion.gamma * torch.log(1 - something)
    return found


def slow_losses(criterion: FreeAnchor, output: DenseOutput, targets: Targets) -> dict[str, Tensor]:
    """Picture by picture, object by object, anchor by anchor."""
    positive = negative = torch.zeros((), dtype=torch.float64)
    count = max(1, int(targets.valid.sum()))
    for image in range(len(targets.boxes)):
        for m in [m for m in range(targets.boxes.shape[1]) if targets.valid[image, m]]:
            bag = slow_bag(criterion, output, targets, image, m)
            weight = 1.0 if targets.weights is None else float(targets.weights[image, m])
            if bag is not None:
                positive = positive - weight * torch.log(bag)
        negative = negative + slow_nothing(criterion, output, targets, image)
    return {
        "positive": criterion.alpha * positive / count,
        "negative": (1 - criterion.alpha) * negative / (count * criterion.topk),
    }


@pytest.mark.parametrize("counts", [(5, 0, 9), (1,), (0, 0)])
@pytest.mark.parametrize(
    ("box_loss", "options"),
    [
        (SmoothL1(), {"topk": 5, "overlap": 0.3}),
        (L1(), {"topk": 60, "overlap": 0.0, "alpha": 0.3, "gamma": 1.5}),
        (GIoU(), {"topk": 9, "overlap": 0.5, "box_weight": 2.0, "gamma": 0.0}),
    ],
)
def test_equals_plain_loops(box_loss, options, counts):
    for seed in range(2):
        output, targets = speaking(seed, counts, weights=seed == 1)
        output, targets = without_ties(output, targets)
        criterion = FreeAnchor(box_loss, Delta(), **options)
        check_equal(criterion(output, targets), slow_losses(criterion, output, targets), output)


def without_ties(output: DenseOutput, targets: Targets) -> tuple[DenseOutput, Targets]:
    """Objects a little away from whole pixels, so that no two anchors overlap one equally."""
    generator = torch.Generator().manual_seed(9)
    moved = targets.boxes + torch.rand(targets.boxes.shape, generator=generator, dtype=torch.float64)
    moved[..., 2:] += 1
    priors = output.priors + torch.rand(output.priors.shape, generator=generator, dtype=torch.float64) * 0.5
    boxes = Delta().decode(output.deltas, priors)
    return output._replace(priors=priors, boxes=boxes), replace(targets, boxes=moved)


def test_the_mean_max_is_the_mean_of_poor_anchors_and_the_best_of_good_ones():
    """All anchors of a bag equally poor: their mean. One almost sure: that one."""
    output, targets = speaking(0, (1,), ignored=0)
    criterion = FreeAnchor(L1(), Delta(), topk=5, box_weight=1e-9, alpha=1.0)
    low = output._replace(logits=torch.full_like(output.logits, -9.0))
    torch.testing.assert_close(criterion(low, targets)["positive"], torch.tensor(9.0).double(), rtol=1e-3, atol=0)
    one = low.logits.clone()
    best = max(range(49), key=lambda p: slow.iou(targets.boxes[0, 0].tolist(), output.priors[p].tolist()))
    one[0, best] = 12.0
    assert criterion(low._replace(logits=one), targets)["positive"] < 1e-3


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_nothing_is_learned_in_an_ignored_region(box_loss):
    output, targets = speaking(1, (3, 0, 4), ignored=3)
    near, inside = regions(output, targets)
    assert int(inside.sum()) > 5
    losses = FreeAnchor(LOSSES[box_loss](), Delta(), overlap=0.1)(output, targets)
    gradients = torch.autograd.grad(sum(losses.values()), list(leaves(output).values()), allow_unused=True)
    for gradient in gradients[:2]:
        assert not gradient[inside].any()
    assert gradients[0][~near].any(dim=1).all()


@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_number_of_objects_is_finite_and_waits_for_nothing(count):
    output, targets = speaking(0, (count, count // 2))
    output = output._replace(logits=output.logits * 30)  # scores of 0 and 1
    criterion = FreeAnchor(SmoothL1(), Delta())
    with slow.NoWaiting():
        losses = criterion(output, targets)
        gradients = torch.autograd.grad(sum(losses.values()), [output.logits, output.deltas], allow_unused=True)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    if not count:
        assert losses["positive"] == 0
        assert losses["negative"] > 0


def test_a_sure_mistake_in_float32_keeps_its_gradient():
    """A logit of 40 where nothing is, and of -40 where an object is: their scores round to 1 and to 0."""
    output, targets = speaking(0, (1,), ignored=0)
    for logit in (40.0, -200.0):
        logits = torch.full(output.logits.shape, logit, requires_grad=True)
        single = output._replace(
            logits=logits, deltas=output.deltas.float(), boxes=output.boxes.float(), priors=output.priors.float()
        )
        losses = FreeAnchor(SmoothL1(), Delta())(single, targets)
        (gradient,) = torch.autograd.grad(losses["negative" if logit > 0 else "positive"], logits)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 1e-3


def test_one_graph_and_objects_in_chunks():
    """70 objects are three chunks; alone, compiled and in another order they cost the same."""
    output, targets = speaking(0, (70, 3))
    output = silent(output)
    criterion = FreeAnchor(SmoothL1(), Delta(), overlap=0.2)
    expected = criterion(output, targets)
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(0))
    fields = {name: getattr(targets, name)[:, order] for name in ("boxes", "labels", "valid", "ignore")}
    for found in (compiled(output, targets), criterion(output, replace(targets, **fields))):
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss, rtol=1e-10, atol=0)


def test_three_thousand_objects_stay_within_a_bound_of_memory():
    """No tensor is larger than a chunk of 32 objects with all priors, or all objects with their bags."""
    output, targets = speaking(0, (3000,))
    criterion = FreeAnchor(SmoothL1(), Delta(), topk=3)
    rows = targets.boxes.shape[1]
    most = max(32 * 49, rows * 3 * 4, rows * 4)
    with Largest() as seen:
        criterion(output, targets)
    assert seen.elements <= most < rows * 49


def test_losses_that_make_no_likelihood_are_refused():
    with pytest.raises(ValueError, match="free_anchor needs a box loss of deltas or boxes"):
        FreeAnchor(Focal(), Delta())
    assert CRITERIA["free_anchor"] is FreeAnchor
    assert not FreeAnchor.background
    assert FreeAnchor(L1(), Delta()).branches == []
