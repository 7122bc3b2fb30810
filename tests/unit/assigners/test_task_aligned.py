"""Task-aligned assignment against plain loops over pictures, objects and priors."""

from __future__ import annotations

import pytest
import torch

from tests.unit.assigners import cases
from tests.unit.parts import slow
from torso.assigners.task_aligned import TaskAligned

pytestmark = pytest.mark.part("assigner/task_aligned")


def slow_task_aligned(output, targets, image, topk, alpha, beta):
    """For every prior of a picture: the object it learns or None, and the quality of its class score."""
    scores, guesses = output.class_scores()[image].tolist(), output.boxes[image].tolist()
    found = cases.objects(targets, image)
    takers: dict[int, list[int]] = {p: [] for p in range(len(output.priors))}
    aligned, overlap = {}, {}
    for m, box in found.items():
        inside = []
        for p, prior in enumerate(output.priors.tolist()):
            if min(cases.distances(cases.middle(prior), box)) > 0:
                inside.append(p)
                overlap[m, p] = slow.iou(guesses[p], box)
                aligned[m, p] = scores[p][int(targets.labels[image, m])] ** alpha * overlap[m, p] ** beta
        for p in sorted(inside, key=lambda p: -aligned[m, p])[:topk]:
            takers[p].append(m)
    learns = [max(who, key=lambda m: overlap[m, p]) if who else None for p, who in takers.items()]
    quality = []
    for p, m in enumerate(learns):
        mine = [q for q, other in enumerate(learns) if other == m]
        if m is None or max(aligned[m, q] for q in mine) == 0:
            quality.append(0.0)
            continue
        scale = max(overlap[m, q] for q in mine) / max(aligned[m, q] for q in mine)
        quality.append(aligned[m, p] * scale)
    return learns, quality, sum(len(who) > 1 for who in takers.values())


def compare(output, targets, topk=13, alpha=1.0, beta=6.0):
    """One assignment and the loops; returns how many priors are positive, and how many were taken twice."""
    assigned = TaskAligned(topk, alpha, beta)(output, targets)
    twice = 0
    for image in range(len(targets.boxes)):
        learns, quality, more = slow_task_aligned(output, targets, image, topk, alpha, beta)
        neither = [cases.in_region(targets, image, prior, 0.5) for prior in output.priors.tolist()]
        cases.check_learns(assigned, image, learns, neither)
        torch.testing.assert_close(assigned.quality[image], torch.tensor(quality, dtype=torch.float64))
        twice += more
    return int(assigned.positive.sum()), twice


@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize(("topk", "alpha", "beta"), [(13, 1.0, 6.0), (4, 0.5, 2.0)])
def test_equals_plain_loops(kind, topk, alpha, beta):
    found = [compare(*cases.scene(kind, seed), topk, alpha, beta) for seed in range(3)]
    assert sum(positive for positive, _ in found) > 20
    assert sum(twice for _, twice in found) > 5


def test_of_equal_priors_and_objects_the_first_wins():
    output, targets = cases.scene("anchors", 2)
    same = output._replace(logits=torch.zeros_like(output.logits), boxes=output.priors.expand(3, -1, -1))
    assert compare(same, targets)[0] > 10


def test_predictions_that_overlap_nothing_still_learn_with_quality_0():
    output, targets = cases.scene("points", 0)
    positive, _ = compare(output._replace(boxes=output.boxes + 1000), targets)
    assert positive > 10


def test_the_best_prior_of_an_object_has_its_greatest_overlap_as_quality():
    output, targets = cases.scene("points", 3)
    assigned = TaskAligned()(output, targets)
    for image in range(3):
        for m, box in cases.objects(targets, image).items():
            mine = (assigned.positive[image] & (assigned.matched[image] == m)).tolist()
            overlap = [
                slow.iou(guess, box) for guess, ours in zip(output.boxes[image].tolist(), mine, strict=True) if ours
            ]
            if overlap:
                greatest = assigned.quality[image][torch.tensor(mine)].max()
                assert float(greatest) == pytest.approx(max(overlap))


def test_no_prior_is_refused():
    with pytest.raises(ValueError, match="topk=0"):
        TaskAligned(topk=0)
