"""Candidates: against sorting all pairs."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.suppress.scenes import without_numbers
from torso.boxes.candidates import best, candidates, candidates_of_classes, first
from torso.boxes.suppress import NMS


@settings(max_examples=200, deadline=None)
@given(
    priors=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    classes=st.integers(1, 4),
    topk=st.integers(1, 12),
    total=st.none() | st.integers(1, 20),
    seed=st.integers(0, 10_000),
)
def test_candidates_are_the_best_pairs_of_each_level(priors, classes, topk, total, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 8, (2, sum(priors), classes), generator=generator) / 8  # many ties
    boxes = torch.rand(2, sum(priors), 4, generator=generator)
    given_to = partial(candidates, threshold=0.25, topk=topk, total=total)
    for found in (given_to(scores, boxes, priors), without_numbers(given_to, (scores, boxes, priors))):
        check_best_pairs(found, scores, boxes, priors, topk, total)


def check_best_pairs(found, scores, boxes, priors, topk, total):
    length = min(topk * len(priors), total or topk * len(priors))
    assert [tuple(tensor.shape) for tensor in found] == [(2, length, 4), (2, length), (2, length)]
    for picture in range(2):
        points, expected, start = scores[picture], [], 0
        for count in priors:
            pairs = [(p, c) for p in range(start, start + count) for c in range(scores.shape[-1])]
            expected += best_of(pairs, points, topk, 0.25)
            start += count
        if total is not None:
            expected = best_of(expected, points, total, 0.25)
        assert told(found, picture) == [
            (*boxes[picture, p].tolist(), scores[picture, p, c].item(), c) for p, c in expected
        ]


def told(found, picture):
    """The candidates of a picture that are not padding, as plain numbers."""
    table = zip(*(tensor[picture].tolist() for tensor in found), strict=True)
    return [(*box, score, label) for box, score, label in table if score > 0]


def best_of(pairs, scores, count, threshold):
    """The ``count`` best (prior, class) above the threshold, of equals the first, in their own order."""
    chosen = (pair for pair in pairs if scores[pair] > threshold)
    return sorted(sorted(chosen, key=lambda pair: (-scores[pair].item(), pair))[:count])


def test_scores_that_are_no_numbers_are_no_candidates():
    scores = torch.full((1, 6, 2), torch.nan)
    scores[0, 3, 1] = 0.7
    boxes = torch.rand(1, 6, 4)
    found = NMS()(*candidates(scores, boxes, [6], topk=4))
    assert int(found.valid.sum()) <= 1
    assert not torch.isnan(found.scores).any()


@settings(max_examples=100, deadline=None)
@given(priors=st.integers(1, 12), classes=st.integers(1, 4), topk=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_candidates_of_classes_are_the_best_priors_of_each_class(priors, classes, topk, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 8, (2, priors, classes), generator=generator) / 8  # many ties
    boxes = torch.rand(2, priors, 4, generator=generator)
    given_to = partial(candidates_of_classes, threshold=0.25, topk=topk)
    for found in (given_to(scores, boxes), without_numbers(given_to, (scores, boxes))):
        assert [tuple(tensor.shape) for tensor in found] == [(2, classes * topk, 4)] + [(2, classes * topk)] * 2
        for picture in range(2):
            expected = []
            for label in range(classes):
                expected += best_of([(p, label) for p in range(priors)], scores[picture], topk, 0.25)
            assert told(found, picture) == [
                (*boxes[picture, p].tolist(), scores[picture, p, c].item(), c) for p, c in expected
            ]


def test_first_and_best():
    assert first(torch.tensor([[False, True, True, False, True]]), 2).tolist() == [[1, 2]]
    assert first(torch.tensor([[False, True, False]]), 2).tolist() == [[1, 3]]
    assert best(torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.1]]), 3).tolist() == [[0, 1, 2]]
