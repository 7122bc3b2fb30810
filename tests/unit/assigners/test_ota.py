"""OTA against plain loops, and its plans against marginals and against scipy's exact assignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.unit.assigners import cases
from tests.unit.parts import slow
from torso.assigners.ota import OTA
from torso.assigners.transport import sinkhorn

pytestmark = pytest.mark.part("assigner/ota")


def focal(scores, label):
    """Of class scores against one class, or none."""
    cost = 0.0
    for c, p in enumerate(scores):
        cost -= 0.25 * (1 - p) ** 2 * math.log(p) if c == label else 0.75 * p**2 * math.log(1 - p)
    return cost


def slow_plan(cost, supply, blur, steps):
    """Sinkhorn's plan of all suppliers and all demanders, in the log domain: rows, then columns."""
    kernel = -np.array(cost) / blur
    rows, columns = np.zeros(len(supply)), np.zeros(kernel.shape[1])
    for _ in range(steps):
        rows = np.log(supply) - np.logaddexp.reduce(kernel + columns, axis=1)
        columns = -np.logaddexp.reduce(kernel + rows[:, None], axis=0)
    return np.exp(kernel + rows[:, None] + columns)


def slow_ota(output, targets, image, nearest=25, topk=20, weight=1.5):
    """For every prior of a picture: the object it learns or None; and the supplies and the plan."""
    scores, guesses = output.class_scores()[image].tolist(), output.boxes[image].tolist()
    priors, level = output.priors.tolist(), cases.level_of(output)
    found = {m: box for m, box in cases.objects(targets, image).items() if slow.area(box) > 0}
    if not found:
        return [None] * len(priors), [], np.zeros((0, len(priors))), [True] * len(priors)
    cost, supply, reached = [], [], set()
    for m, box in found.items():
        reach = []
        for each in range(len(output.counts)):
            mine = [p for p in range(len(priors)) if level[p] == each]
            away = {p: math.dist(cases.middle(priors[p]), cases.middle(box)) ** 2 for p in mine}
            reach += sorted(mine, key=lambda p: round(away[p], 6))[:nearest]
        overlap = {p: slow.iou(guesses[p], box) for p in reach}
        supply.append(max(int(sum(sorted(overlap.values(), reverse=True)[:topk])), 1))
        row = [math.inf] * len(priors)
        for p in reach:
            row[p] = focal(scores[p], int(targets.labels[image, m])) - weight * math.log(max(overlap[p], 1e-8))
        cost.append(row)
        reached |= set(reach)
    assert len(reached) >= sum(supply), "a scene for the loops has a plan"
    cost.append([focal(score, None) for score in scores])
    plan = slow_plan(cost, [*supply, len(priors) - sum(supply)], 0.1, 2000)
    of_most = plan / plan.max(axis=1, keepdims=True)
    rows = list(found)
    learns = [rows[best] if best < len(rows) else None for best in of_most.argmax(axis=0)]
    first, second = np.sort(of_most, axis=0)[:-3:-1]
    sure = [a > b + 0.02 for a, b in zip(first, second, strict=True)]  # no matter how far the plan is from its limit
    return learns, supply, plan, sure


def dense(plan, prior, real, count):
    """Plans ``[B, M, K]`` as tables ``[B, M, P]``."""
    return torch.zeros(*plan.shape[:2], count, dtype=plan.dtype).scatter_add(2, prior, plan.where(real, 0))


@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize(("nearest", "topk", "weight"), [(9, 20, 1.5), (4, 5, 3.0)])
def test_equals_plain_loops(kind, nearest, topk, weight):
    positive = 0
    for seed in range(3):
        output, targets = cases.scene(kind, seed)
        assigner = OTA(nearest, topk, weight, steps=300)
        assigned, plan = assigner(output, targets), assigner.plan(output, targets)
        table = dense(plan[0], plan[2], plan[3], len(output.priors))
        for image in range(3):
            learns, supply, expected, sure = slow_ota(output, targets, image, nearest, topk, weight)
            rows = [m for m, box in cases.objects(targets, image).items() if slow.area(box) > 0]
            if supply:
                torch.testing.assert_close(table[image, rows].numpy(), expected[:-1], rtol=0, atol=5e-3)
                torch.testing.assert_close(plan[1][image].numpy(), expected[-1], rtol=0, atol=5e-3)
            neither = [cases.in_region(targets, image, prior, 0.5) for prior in output.priors.tolist()]
            found = zip(assigned.positive[image].tolist(), assigned.matched[image].tolist(), strict=True)
            found = [m if yes else None for yes, m in found]
            wrong = [p for p, m in enumerate(found) if m != learns[p]]
            assert not any(sure[p] for p in wrong)
            assert len(wrong) <= 0.03 * len(found)
            negative = [m is None and not n for m, n in zip(found, neither, strict=True)]
            assert assigned.negative[image].tolist() == negative
        positive += int(assigned.positive.sum())
    assert positive > 20


def test_marginals_of_the_plan():
    """After the default steps every prior has one label, and every supplier gave what it has, within 1e-3."""
    for kind in ("points", "anchors"):
        for seed in range(4):
            output, targets = cases.scene(kind, seed, counts=(3, 0, 5))
            plan, rest, prior, real = OTA().plan(output, targets)
            table = dense(plan, prior, real, len(output.priors))
            columns = table.sum(dim=1) + rest
            torch.testing.assert_close(columns, torch.ones_like(columns), rtol=0, atol=1e-9)
            for image in range(3):
                _, supply, _, _ = slow_ota(output, targets, image)
                rows = [m for m, box in cases.objects(targets, image).items() if slow.area(box) > 0]
                given = table[image, rows].sum(dim=1)
                torch.testing.assert_close(given, torch.tensor(supply).double(), rtol=0, atol=1e-3)


def second_best(table, rows, columns):
    """The least cost of all assignments that differ from this one where it matters: in a label of an object."""
    from scipy.optimize import linear_sum_assignment

    least = math.inf
    for row, column in zip(rows, columns, strict=True):
        other = table.copy()
        other[np.all(table == table[row], axis=1), column] = 1e6  # every label of its object
        least = min(least, other[linear_sum_assignment(other)].sum())
    return least


@pytest.mark.parametrize("supply", [1, 2])
def test_with_equal_supplies_it_is_the_best_assignment_of_all(supply):
    from scipy.optimize import linear_sum_assignment

    clear = 0
    for seed in range(14):
        generator = torch.Generator().manual_seed(seed)
        cost = torch.rand(1, 4, 12, generator=generator, dtype=torch.float64) * 5 - 2
        prior = torch.arange(12).expand(1, 4, 12)
        units = torch.full((1, 4), float(supply), dtype=torch.float64)
        table = np.concatenate([np.repeat(cost[0].numpy(), supply, axis=0), np.zeros((12 - 4 * supply, 12))])
        rows, columns = linear_sum_assignment(table)
        if second_best(table, rows, columns) < table[rows, columns].sum() + 0.05:
            continue  # two are about as good
        plan, rest = sinkhorn(cost, prior, prior >= 0, units, 12, blur=0.01, steps=1000)
        owners = np.repeat([0, 1, 2, 3, 4], [supply] * 4 + [12 - 4 * supply])
        assert torch.cat([plan[0], rest]).argmax(dim=0).tolist() == owners[rows[np.argsort(columns)]].tolist()
        clear += 1
    assert clear >= 3


def test_the_whole_assigner_finds_the_best_assignment():
    """Objects of one label each, apart from each other in cost: as scipy assigns them."""
    from scipy.optimize import linear_sum_assignment

    output, targets = cases.scene("one level", 1, counts=(5,), regions=0)
    assigned = OTA(nearest=64, topk=1, blur=0.01, steps=1000)(output, targets)
    scores, guesses = output.class_scores()[0].tolist(), output.boxes[0].tolist()
    found = {m: box for m, box in cases.objects(targets, 0).items() if slow.area(box) > 0}
    table = []
    for m, box in found.items():
        label = int(targets.labels[0, m])
        table.append(
            [
                focal(scores[p], label) - focal(scores[p], None) - 1.5 * math.log(max(slow.iou(guess, box), 1e-8))
                for p, guess in enumerate(guesses)
            ]
        )
    rows, columns = linear_sum_assignment(np.array(table + [[0.0] * 64] * (64 - len(table))))
    expected = {int(p): list(found)[m] for m, p in zip(rows, columns, strict=True) if m < len(found)}
    learned = {p: int(assigned.matched[0, p]) for p in range(64) if assigned.positive[0, p]}
    assert learned == expected


def test_more_labels_than_priors_within_reach():
    """Thirty objects around three priors each: all numbers stay finite and no prior has two labels."""
    output, _ = cases.scene("one level", 0, counts=(1,))
    targets = cases.crowd(200)
    plan, rest, prior, real = OTA(nearest=3).plan(output, targets)
    columns = dense(plan, prior, real, 64).sum(dim=1) + rest
    torch.testing.assert_close(columns, torch.ones_like(columns))
    assert OTA(nearest=3)(output, targets).positive.any()


def test_an_object_that_equal_priors_share_keeps_them():
    output, _ = cases.scene("one level", 0, counts=(1,))
    box = torch.tensor([[[16.0, 16, 32, 32]]], dtype=torch.float64)  # four cells; its label is split into quarters
    yes = torch.ones(1, 1, dtype=torch.bool)
    targets = cases.Targets(box, torch.zeros(1, 1, dtype=torch.int64), yes, ~yes)
    same = output._replace(logits=torch.zeros_like(output.logits), boxes=output.priors[None])
    assigned = OTA(nearest=4)(same, targets)
    cells = [p for p, prior in enumerate(output.priors.tolist()) if slow.shared(prior, [16, 16, 32, 32]) > 0]
    assert assigned.positive[0].nonzero().flatten().tolist() == cells


def test_of_equal_objects_the_first_wins():
    output, targets = cases.scene("points", 0, counts=(1,), regions=0)
    twice = cases.Targets(*(torch.cat([x[:, :1], x[:, :1]], dim=1) for x in vars(targets).values() if x is not None))
    assigned = OTA(nearest=4)(output, twice)
    assert assigned.positive.any()
    assert not assigned.matched.any()


def test_no_blur_is_refused():
    with pytest.raises(ValueError, match="blur=0"):
        OTA(blur=0)
