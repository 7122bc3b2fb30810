"""Prime samples, against rankings, clusters and weights in plain loops over the paper's equations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.unit.parts import slow
from tests.unit.sample.cases import Case, case, listed
from torso.assigners.prime import PISA, clusters, hierarchical_rank
from torso.boxes.coders import Delta
from torso.criteria import DenseCriterion
from torso.losses import CrossEntropy, Focal, SmoothL1
from torso.structures import Targets

pytestmark = pytest.mark.part("sample/pisa")
Sample = tuple[int, int]  # picture, prior


def slow_hierarchy(scores: dict[Sample, float], groups: dict[Sample, object]) -> list[Sample]:
    """All best ones of the groups by score, then all second ones, ..."""
    rows: dict[object, list[Sample]] = {}
    for sample in sorted(scores, key=lambda s: -scores[s]):
        rows.setdefault(groups[sample], []).append(sample)
    ranked = []
    for place in range(max(map(len, rows.values()), default=0)):
        ranked += sorted((row[place] for row in rows.values() if place < len(row)), key=lambda s: -scores[s])
    return ranked


def slow_positive_weights(arguments: Case, power: float, bias: float) -> dict[Sample, float]:
    assigned, cost, _, output, targets = arguments
    positives = [(i, p) for i, row in enumerate(listed(assigned.positive)) for p in sorted(row)]
    objects = {s: (s[0], int(assigned.matched[s])) for s in positives}
    overlap = {s: slow.iou(output.boxes[s].tolist(), targets.boxes[objects[s]].tolist()) for s in positives}
    label = {s: int(targets.labels[objects[s]]) for s in positives}
    largest = max((list(label.values()).count(c) for c in label.values()), default=0)
    weights = {}
    for one in set(label.values()):
        members = {s: overlap[s] for s in positives if label[s] == one}
        for rank, s in enumerate(slow_hierarchy(members, objects)):
            importance = (largest - rank) / largest
            weights[s] = ((1 - bias) * importance + bias) ** power
    counts = {s: 1.0 if targets.weights is None else float(targets.weights[objects[s]]) for s in positives}
    before = sum(counts[s] * float(cost[s]) for s in positives)
    after = sum(counts[s] * float(cost[s]) * weights[s] for s in positives)
    return {s: weight * before / after for s, weight in weights.items()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("power", "bias"), [(2.0, 0.0), (0.5, 0.3), (0.0, 0.0)])
def test_positives_are_weighed_by_their_hierarchical_rank(power, bias, weighted):
    shared = 0
    for seed in range(4):
        arguments = case(seed, (9, 0, 14), background=seed % 2 == 1, weights=weighted)
        assigned = arguments[0]
        chosen = PISA(power, bias)(*arguments)
        assert torch.equal(chosen.positive, assigned.positive)
        assert torch.equal(chosen.negative, assigned.negative)
        wanted = slow_positive_weights(arguments, power, bias)
        expected = torch.ones_like(arguments[1])
        for sample, weight in wanted.items():
            expected[sample] = weight
        torch.testing.assert_close(chosen.class_weight, expected, rtol=1e-10, atol=1e-12)
        objects = [(i, int(assigned.matched[i, p])) for i, p in wanted]
        shared += len(objects) - len(set(objects))
    assert shared > 20, "the case must have objects with several positives"


def test_the_ranking_itself():
    """Groups a and b of one class: a's best, b's best, then the second ones; another class counts from 0 again."""
    score = torch.tensor([0.9, 0.8, 0.7, 0.85, 0.2, 0.6, 0.99])
    group = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    label = torch.tensor([0, 0, 0, 0, 0, 1, 2])
    rank = hierarchical_rank(score, group, label, groups=3, classes=2)
    assert rank[:6].tolist() == [0, 2, 4, 1, 3, 0]


@pytest.mark.parametrize("average", ["batch", "samples", "pictures"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_the_class_loss_of_all_positives_stays_what_it_was(background, weighted, average):
    for seed in range(3):
        assigned, _, _, output, targets = case(seed, (9, 0, 14), background, weighted)
        none = replace_negatives(assigned)
        loss = CrossEntropy() if background else Focal()
        plain, prime = (
            DenseCriterion(lambda *_, none=none: none, loss, SmoothL1(), Delta(), average=average, sample=sample)(
                output, targets
            )
            for sample in (None, PISA(carl=False))
        )
        torch.testing.assert_close(prime["class"], plain["class"], rtol=1e-10, atol=0)
        torch.testing.assert_close(prime["box"], plain["box"], rtol=1e-10, atol=0)


def replace_negatives(assigned):
    return assigned._replace(negative=torch.zeros_like(assigned.negative))


def slow_carl(logits: Tensor, arguments: Case, power: float, bias: float) -> Tensor:
    """The sum of c_i L_i with its gradient, sample by sample."""
    assigned, _, box_cost, output, targets = arguments
    values, losses = [], []
    for i, row in enumerate(listed(assigned.positive)):
        for p in sorted(row):
            label = int(targets.labels[i, int(assigned.matched[i, p])])
            score = logits[i, p].softmax(0)[label] if output.background else 1 / (1 + torch.exp(-logits[i, p, label]))
            values.append(((1 - bias) * score + bias) ** power)
            losses.append(box_cost[i, p])
    mean = torch.stack(values).sum() / len(values)
    return torch.stack([value / mean * loss for value, loss in zip(values, losses, strict=True)]).sum()


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("power", "bias"), [(1.0, 0.2), (2.0, 0.0), (0.5, 0.1)])
def test_boxes_are_weighed_by_a_certainty_that_learns(power, bias, background):
    assigned, cost, box_cost, output, targets = case(1, (9, 0, 14), background)
    logits = output.logits.requires_grad_()
    arguments = assigned, cost, box_cost, output, targets
    chosen = PISA(carl_power=power, carl_bias=bias)(*arguments)
    assert chosen.box_weight is not None
    ours, theirs = (chosen.box_weight * box_cost).sum(), slow_carl(logits, arguments, power, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    mine, other = (torch.autograd.grad(x, logits)[0] for x in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-14)
    assert mine[assigned.positive].any(dim=1).all()
    assert not mine[~assigned.positive].any()
    mean = chosen.box_weight[assigned.positive].mean()
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=1e-12, atol=0)
    assert PISA(carl=False)(*arguments).box_weight is None


def slow_clusters(boxes: list[list[float]], overlap: float) -> list[int]:
    """Greedy suppression, best first: each box names the kept box that takes it."""
    leader: dict[int, int] = {}
    for i in range(len(boxes)):
        if i in leader:
            continue
        for j in range(i, len(boxes)):
            if j not in leader and (i == j or slow.iou(boxes[i], boxes[j]) > overlap):
                leader[j] = i
    return [leader[i] for i in range(len(boxes))]


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.5])
def test_clusters_are_those_of_greedy_suppression(overlap):
    sizes = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(2, 60, 2, generator=generator, dtype=torch.float64) * 30
        boxes = torch.cat([low, low + 4 + torch.rand(2, 60, 2, generator=generator) * 20], dim=-1)
        there = torch.arange(60).expand(2, 60) < torch.tensor([[60], [45]])
        found = clusters(boxes, there, overlap)
        for image, count in enumerate((60, 45)):
            expected = slow_clusters(boxes[image, :count].tolist(), overlap)
            assert found[image, :count].tolist() == expected
            sizes.append(count - len(set(expected)))
    assert min(sizes) > 2, "the case must have boxes that are suppressed"


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("number", "candidates"), [(5, 12), (12, 12), (30, 200)])
def test_negatives_are_chosen_and_weighed_by_the_rank_of_their_score(number, candidates, background):
    power, bias, overlap = 0.5, 0.1, 0.3
    for seed in range(3):
        arguments = case(seed, (5, 0, 9), background)
        assigned, cost, _, output, _ = arguments
        sampler = PISA(
            negatives=number,
            candidates=candidates,
            overlap=overlap,
            negative_power=power,
            negative_bias=bias,
        )
        chosen = sampler(*arguments)
        scores = (output.logits.softmax(2)[..., :-1] if background else output.logits.sigmoid()).amax(dim=2)
        for image, negatives in enumerate(listed(assigned.negative)):
            best = sorted(negatives, key=lambda p, i=image: -float(scores[i, p]))[:candidates]
            leaders = slow_clusters([output.boxes[image, p].tolist() for p in best], overlap)
            known = {(image, p): float(scores[image, p]) for p in best}
            ranked = slow_hierarchy(known, {(image, p): g for p, g in zip(best, leaders, strict=True)})
            taken = ranked[:number]
            weights = {s: ((1 - bias) * (len(ranked) - r) / len(ranked) + bias) ** power for r, s in enumerate(ranked)}
            before = sum(float(cost[s]) for s in taken)
            ratio = before / sum(float(cost[s]) * weights[s] for s in taken)
            assert listed(chosen.negative)[image] == {p for _, p in taken}
            for s in taken:
                assert float(chosen.class_weight[s]) == pytest.approx(weights[s] * ratio, rel=1e-10)
            after = (cost * chosen.class_weight)[image][chosen.negative[image]].sum()
            assert float(after) == pytest.approx(before, rel=1e-10)


def test_prime_samples_of_hundreds_of_objects_stay_one_ranking():
    """300 objects in each of two pictures: the ranks of a class are all different, 0, 1, 2, ..."""
    assigned, cost, box_cost, output, targets = case(0, (300, 300))
    weight = PISA(power=1.0)(assigned, torch.ones_like(cost), box_cost, output, targets).class_weight
    labels = targets.labels.gather(1, assigned.matched)
    for one in range(3):
        members = weight[assigned.positive & (labels == one)].sort().values
        steps = members.diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-6, atol=1e-9)


def test_a_picture_of_padding_alone_is_weighed_by_one():
    assigned, cost, box_cost, output, targets = case(0, (0,))
    assert not assigned.positive.any()
    chosen = PISA()(assigned, cost, box_cost, output, targets)
    assert torch.equal(chosen.class_weight, torch.ones_like(cost))
    assert not chosen.box_weight.any()


def test_weights_of_mixed_pictures_count_in_the_sum_that_stays():
    arguments = case(2, (9,), weights=True)
    targets = arguments[4]
    assert isinstance(targets, Targets)
    plain = (*arguments[:4], replace(targets, weights=None))
    assert not torch.equal(PISA()(*arguments).class_weight, PISA()(*plain).class_weight)
