"""SimOTA against plain loops over pictures, objects and priors."""

from __future__ import annotations

import math

import pytest
import torch

from tests.unit.assigners import cases
from tests.unit.parts import slow
from torso.assigners.sim_ota import SimOTA
from torso.structures import Targets

pytestmark = pytest.mark.part("assigner/sim_ota")


def cross_entropy(scores, label):
    """Of the roots of class scores against one class."""
    cost = 0.0
    for c, score in enumerate(scores):
        root = math.sqrt(score)
        cost -= math.log(root) if c == label else math.log(1 - root)
    return cost


def slow_sim_ota(output, targets, image, radius, topk, weight):
    """For every prior of a picture: the object it learns or None."""
    scores = output.class_scores()[image]
    if "objectness" in output.extra:
        scores = scores * output.extra["objectness"][image].sigmoid()[:, None]
    scores, guesses = scores.tolist(), output.boxes[image].tolist()
    found = {m: box for m, box in cases.objects(targets, image).items() if slow.area(box) > 0}
    within, near, overlap, cost = {}, {}, {}, {}
    for m, box in found.items():
        for p, prior in enumerate(output.priors.tolist()):
            point, stride = cases.middle(prior), output.strides[p].tolist()
            within[m, p] = min(cases.distances(point, box)) > 0
            away = [abs(a - b) for a, b in zip(point, cases.middle(box), strict=True)]
            near[m, p] = away[0] < radius * stride[0] and away[1] < radius * stride[1]
            overlap[m, p] = slow.iou(guesses[p], box)
            cost[m, p] = cross_entropy(scores[p], int(targets.labels[image, m]))
            cost[m, p] -= weight * math.log(max(overlap[m, p], 1e-8))
            cost[m, p] += 0 if within[m, p] and near[m, p] else 1e5
    candidates = [p for p in range(len(output.priors)) if any(within[m, p] or near[m, p] for m in found)]
    takers: dict[int, list[int]] = {p: [] for p in range(len(output.priors))}
    for m in found:
        good = sorted((overlap[m, p] for p in candidates), reverse=True)[:topk]
        for p in sorted(candidates, key=lambda p: cost[m, p])[: max(int(sum(good)), 1)]:
            takers[p].append(m)
    learns: list[int | None] = []
    for p, who in takers.items():
        learns.append(min(found, key=lambda m: cost[m, p]) if len(who) > 1 else who[0] if who else None)
    return learns, sum(len(who) > 1 for who in takers.values())


def compare(output, targets, radius=2.5, topk=10, weight=3.0):
    """One assignment and the loops; returns how many priors are positive, and how many were taken twice."""
    assigned = SimOTA(radius, topk, weight)(output, targets)
    twice = 0
    for image in range(len(targets.boxes)):
        learns, more = slow_sim_ota(output, targets, image, radius, topk, weight)
        neither = [cases.in_region(targets, image, prior, 0.5) for prior in output.priors.tolist()]
        cases.check_learns(assigned, image, learns, neither)
        twice += more
    return int(assigned.positive.sum()), twice


@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize(("radius", "topk", "weight"), [(2.5, 10, 3.0), (0.6, 4, 1.0)])
def test_equals_plain_loops(kind, radius, topk, weight):
    found = [compare(*cases.scene(kind, seed), radius, topk, weight) for seed in range(3)]
    assert sum(positive for positive, _ in found) > 20
    assert sum(twice for _, twice in found) > 3


def test_objectness_is_half_of_what_a_class_score_is():
    output, targets = cases.scene("points", 0)
    generator = torch.Generator().manual_seed(1)
    extra = {"objectness": torch.randn(output.logits.shape[:2], generator=generator, dtype=torch.float64) * 3}
    assert compare(output._replace(extra=extra), targets)[0] > 5
    assert not torch.equal(SimOTA()(output, targets).positive, SimOTA()(output._replace(extra=extra), targets).positive)


def test_of_equal_priors_and_objects_the_first_wins():
    output, targets = cases.scene("anchors", 2)
    same = output._replace(logits=torch.zeros_like(output.logits), boxes=output.priors.expand(3, -1, -1))
    assert compare(same, targets)[0] > 10


def test_an_object_takes_one_prior_where_no_prediction_overlaps_it():
    output, _ = cases.scene("points", 0, counts=(1,), regions=0)
    box = torch.tensor([[[20.0, 20, 30, 30]]], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.bool)
    targets = Targets(box, torch.zeros(1, 1, dtype=torch.int64), one, ~one)
    assert compare(output._replace(boxes=output.boxes + 1000), targets)[0] == 1


def test_predictions_outside_of_all_objects_do_not_count():
    """One prior and its neighbours see the object badly; those far from everything, all of them, see it as it is."""
    output, _ = cases.scene("one level", 0, counts=(1,), regions=0)
    box = torch.tensor([[[0.0, 0, 24, 24]]], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.bool)
    targets = Targets(box, torch.zeros(1, 1, dtype=torch.int64), one, ~one)
    far = (output.priors[:, :2] > 40).any(dim=1)
    boxes = torch.where(far[:, None], box[0], torch.tensor([50.0, 50, 60, 60], dtype=torch.float64))[None]
    assert compare(output._replace(boxes=boxes), targets)[0] == 1


def test_good_predictions_give_an_object_more_priors():
    output, targets = cases.scene("one level", 0, counts=(1,), regions=0)
    targets = Targets(
        torch.tensor([[[8.0, 8, 56, 56]]]).double(), targets.labels[:, :1], targets.valid[:, :1], targets.ignore[:, :1]
    )
    for share, count in ((1.0, 10), (0.55, 5), (0.05, 1)):
        boxes = targets.boxes.expand(1, len(output.priors), 4).clone()
        boxes[..., 2] = 8 + 48 * share
        assert int(SimOTA()(output._replace(boxes=boxes), targets).positive.sum()) == count


def test_a_region_of_no_size_is_refused():
    with pytest.raises(ValueError, match="radius=0"):
        SimOTA(radius=0)
