"""Adaptive assignment, against the paper's algorithm 1 in plain loops."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings

from tests.unit.assigners import cases
from tests.unit.parts.slow import iou
from torso.assigners.atss import ATSS
from torso.structures import DenseOutput, Targets

pytestmark = pytest.mark.part("assigner/atss")


def candidates(output, box, topk):
    """Of each level the priors nearest to the centre of a box, the first of equally near ones."""
    found, start = [], 0
    x, y = cases.middle(box)
    for count in output.counts:
        rows = range(start, start + count)
        away = {}
        for p in rows:
            px, py = cases.middle(output.priors[p].tolist())
            away[p] = (px - x) ** 2 + (py - y) ** 2
        found += sorted(rows, key=lambda p: (away[p], p))[:topk]
        start += count
    return found


def slow(output, targets, image, topk=9):
    """For every prior of a picture: the object it learns or None."""
    priors = output.priors.tolist()
    best: list[tuple[float, int] | None] = [None] * len(priors)
    for m, box in cases.objects(targets, image).items():
        chosen = candidates(output, box, topk)
        overlap = [iou(box, priors[p]) for p in chosen]
        threshold = statistics.fmean(overlap) + (statistics.stdev(overlap) if len(overlap) > 1 else 0.0)
        for p, value in zip(chosen, overlap, strict=True):
            inside = min(cases.distances(cases.middle(priors[p]), box)) > 0
            # Equal overlaps are as large as their mean, however it was rounded.
            if value >= threshold * (1 - 1e-13) and inside and (best[p] is None or value > best[p][0]):
                best[p] = (value, m)
    return [None if found is None else found[1] for found in best]


def compare(output, targets, topk=9):
    """One assignment and the loops; returns how many priors are positive."""
    assigned = ATSS(topk)(output, targets)
    for image in range(len(targets.boxes)):
        neither = [cases.in_region(targets, image, prior, 0.5) for prior in output.priors.tolist()]
        cases.check_learns(assigned, image, slow(output, targets, image, topk), neither)
    return int(assigned.positive.sum())


@pytest.mark.parametrize("offset", [0.5, 0.0])
@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize("topk", [1, 9, 20])
def test_equals_plain_loops(topk, kind, offset):
    """With 20 candidates the levels of 4 and 16 points have fewer than that."""
    assert sum(compare(*cases.scene(kind, seed, offset=offset), topk) for seed in range(2)) > 5


@settings(max_examples=40, deadline=None)
@given(cases.drawn_targets())
def test_equals_plain_loops_for_any_objects(targets):
    compare(cases.detector_output("points", 1), targets)
    compare(cases.detector_output("one level of anchors", 1), targets, topk=4)


def test_a_prior_two_objects_take_learns_the_one_it_overlaps_more():
    output = cases.detector_output("one level", 1)
    boxes = torch.tensor([[[14.0, 14, 26, 26], [15.0, 15, 25, 25], [15.0, 15, 25, 25]]]).double()
    yes = torch.ones(1, 3, dtype=torch.bool)
    assigned = ATSS(topk=1)(output, Targets(boxes, torch.zeros(1, 3, dtype=torch.int64), yes, ~yes))
    assert assigned.positive.sum() == 1
    assert assigned.matched[assigned.positive].tolist() == [1]  # of equals the first


def test_candidates_that_overlap_equally_are_all_positive():
    """All cells inside an object overlap it equally, and their mean, rounded, may lie above them."""
    output = cases.detector_output("one level", 1)
    yes = torch.ones(1, 1, dtype=torch.bool)
    for side in range(25, 40):
        for dtype in (torch.float32, torch.float64):
            half = side / 2
            box = torch.tensor([[[36 - half, 36 - half, 36 + half, 36 + half]]], dtype=torch.float64)
            targets = Targets(box, torch.zeros(1, 1, dtype=torch.int64), yes, ~yes)
            said = output if dtype == torch.float64 else cases.single(output)
            assert ATSS()(said, targets).positive.sum() == 9, side


def test_a_level_of_its_own_statistics_for_each_object():
    """A small object takes small priors and a large object large ones, though the threshold is written nowhere."""
    output: DenseOutput = cases.detector_output("points", 1)
    boxes = torch.tensor([[[8.0, 8, 16, 16], [30.0, 30, 64, 64]]]).double()
    yes = torch.ones(1, 2, dtype=torch.bool)
    assigned = ATSS()(output, Targets(boxes, torch.zeros(1, 2, dtype=torch.int64), yes, ~yes))
    level = torch.tensor(cases.level_of(output))
    taken = {m: set(level[assigned.positive[0] & (assigned.matched[0] == m)].tolist()) for m in (0, 1)}
    assert taken == {0: {0}, 1: {2}}


def test_no_candidates_are_an_error():
    with pytest.raises(ValueError, match="topk is 1 or more, got 0"):
        ATSS(topk=0)
