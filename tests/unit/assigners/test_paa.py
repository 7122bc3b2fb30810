"""PAA against plain loops with scikit-learn's mixtures, and the mixtures alone."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from tests.unit.assigners import cases
from tests.unit.parts import slow
from torso.assigners.mixture import fit
from torso.assigners.paa import PAA, ranks, separate

pytestmark = pytest.mark.part("assigner/paa")


def sklearn_mixture(points, means, steps):
    """Begun with these means, variance 1 and equal weights."""
    count, dimensions = np.shape(means)
    mixture = GaussianMixture(
        count,
        covariance_type="diag",
        weights_init=np.full(count, 1 / count),
        means_init=means,
        precisions_init=np.ones((count, dimensions)),
        max_iter=steps,
        tol=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped after a number of steps
        return mixture.fit(points)


def good_candidates(cost, steps):
    """Scheme (c): of the cheap component those up to the most likely one."""
    if len(cost) < 2:
        return [True] * len(cost)
    points = np.array(cost)[:, None]
    mixture = sklearn_mixture(points, [[min(cost)], [max(cost)]], steps)
    cheap = mixture.predict(points) == 0
    if not cheap.any():
        return [False] * len(cost)
    likely = np.where(cheap, mixture.score_samples(points), -np.inf).argmax()
    return [bool(mine) and value <= cost[likely] for mine, value in zip(cheap, cost, strict=True)]


def slow_paa(output, targets, image, positive, topk, power, steps):
    """For every prior of a picture: the object it learns or None; and how many candidates there were."""
    nearest, _ = slow.max_iou(output.priors, targets, image, (positive, positive))
    scores, guesses = output.class_scores()[image].tolist(), output.boxes[image].tolist()
    level = cases.level_of(output)
    learns: list[int | None] = [None] * len(nearest)
    total = 0
    for m, box in cases.objects(targets, image).items():
        cost = {}
        for p, other in enumerate(nearest):
            if other == m and slow.area(box) > 0:
                score = scores[p][int(targets.labels[image, m])]
                cost[p] = -math.log(score) - power * math.log(max(slow.iou(guesses[p], box), 1e-8))
        kept = []
        for each in range(len(output.counts)):
            kept += sorted((p for p in cost if level[p] == each), key=lambda p: cost[p])[:topk]
        for p, good in zip(kept, good_candidates([cost[p] for p in kept], steps), strict=True):
            learns[p] = m if good else None
        total += len(kept)
    return learns, total


@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize(("positive", "topk", "power", "steps"), [(0.1, 9, 1.0, 20), (0.2, 3, 0.5, 5)])
def test_equals_plain_loops_with_mixtures_of_scikit_learn(kind, positive, topk, power, steps):
    learned = candidates = 0
    for seed in range(2):
        output, targets = cases.scene(kind, seed)
        assigned = PAA(positive, topk, power, steps)(output, targets)
        for image in range(3):
            learns, count = slow_paa(output, targets, image, positive, topk, power, steps)
            neither = [cases.in_region(targets, image, prior, 0.5) for prior in output.priors.tolist()]
            cases.check_learns(assigned, image, learns, neither)
            candidates += count
        learned += int(assigned.positive.sum())
    assert 10 < learned < candidates


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_mixtures_equal_those_of_scikit_learn(steps):
    generator = torch.Generator().manual_seed(steps)
    for dimensions, components in ((1, 2), (2, 4), (3, 1)):
        points = torch.randn(5, 40, dimensions, generator=generator, dtype=torch.float64) * 2
        points[:, :15] += 4
        means = points[:, :components].clone()
        mixture = fit(points, torch.ones(5, 40).double(), means, steps)
        for i in range(5):
            other = sklearn_mixture(points[i].numpy(), means[i].numpy(), steps)
            torch.testing.assert_close(mixture.weights[i].numpy(), other.weights_, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(mixture.means[i].numpy(), other.means_, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(mixture.variances[i].numpy(), other.covariances_, rtol=1e-6, atol=1e-6)
            log = mixture.log_parts(points)[i].logsumexp(dim=-1)
            torch.testing.assert_close(log.numpy(), other.score_samples(points[i].numpy()), rtol=1e-6, atol=1e-6)


def test_a_point_counted_twice_is_two_points():
    points = torch.tensor([0.0, 1, 5, 7, 7, 9]).double()[:, None]
    counts = torch.tensor([2.0, 1, 3, 0, 1, 1]).double()
    means = torch.tensor([[0.0], [9.0]]).double()
    some, all_ = fit(points, counts, means, 10), torch.repeat_interleave(points, counts.long(), dim=0)
    many = fit(all_, torch.ones(len(all_)).double(), means, 10)
    for a, b in zip(some, many, strict=True):
        torch.testing.assert_close(a, b)


def test_an_empty_set_of_points_has_a_finite_mixture():
    mixture = fit(torch.zeros(3, 4, 1), torch.zeros(3, 4), torch.zeros(3, 2, 1), 10)
    assert all(x.isfinite().all() for x in mixture)
    assert not separate(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool), 10).any()


def test_two_heaps_of_costs_fall_apart():
    """Scheme (c) keeps the part of the cheap heap up to its most likely candidate, not all of it."""
    cost = torch.tensor([[0.1, 0.2, 0.2, 0.2, 0.4, 3.0, 3.1, 3.2]]).double()
    good = separate(cost, torch.ones(1, 8, dtype=torch.bool), 20)
    assert good.tolist() == [[True] * 4 + [False] * 4]
    assert good_candidates(cost[0].tolist(), 20) == good[0].tolist()


def test_candidates_that_all_cost_the_same_are_all_good():
    assert separate(torch.ones(1, 5).double(), torch.ones(1, 5, dtype=torch.bool), 20).all()


def test_ranks_are_places_within_groups():
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, 4, (3, 30), generator=generator)
    cost = torch.randint(0, 5, (3, 30), generator=generator).float()
    found = ranks(group, cost)
    for i in range(3):
        for g in range(4):
            mine = [p for p in range(30) if group[i, p] == g]
            ranked = sorted(mine, key=lambda p: float(cost[i, p]))
            assert [int(found[i, p]) for p in ranked] == list(range(len(mine)))


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="steps=0"):
        PAA(steps=0)
