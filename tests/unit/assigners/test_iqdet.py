"""IQDet against plain loops over pictures, objects, priors and components."""

from __future__ import annotations

import math

import pytest
import torch

from tests.unit.assigners import cases
from tests.unit.parts import slow
from torso.assigners.iqdet import IQDet
from torso.structures import Targets

pytestmark = pytest.mark.part("assigner/iqdet")


def normal(point, mean, variance):
    """The density of independent Gaussians."""
    density = 1.0
    for x, m, v in zip(point, mean, variance, strict=True):
        density *= math.exp(-((x - m) ** 2) / v / 2) / math.sqrt(2 * math.pi * v)
    return density


def mixture(points, weights, steps, spread):
    """The density at every point of four Gaussians fitted to weighted points."""
    share, means = [0.25] * 4, [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
    variances = [[1.0, 1.0] for _ in range(4)]
    tiny = 10 * torch.finfo(torch.float64).eps
    for _ in range(steps):
        belongs = []
        for point, weight in zip(points, weights, strict=True):
            parts = [s * normal(point, m, v) for s, m, v in zip(share, means, variances, strict=True)]
            belongs.append([weight * part / sum(parts) for part in parts])
        for k in range(4):
            size = sum(row[k] for row in belongs) + tiny
            share[k] = size
            for axis in (0, 1):
                means[k][axis] = sum(row[k] * p[axis] for row, p in zip(belongs, points, strict=True)) / size
                away = [row[k] * (p[axis] - means[k][axis]) ** 2 for row, p in zip(belongs, points, strict=True)]
                variances[k][axis] = sum(away) / size + spread**2
        share = [s / sum(share) for s in share]
    return [sum(s * normal(p, m, v) for s, m, v in zip(share, means, variances, strict=True)) for p in points]


def slow_iqdet(output, targets, image, topk, steps, spread):
    """For every prior of a picture: the object it learns or None, and its quality; and how many were wanted twice."""
    guesses, priors = output.boxes[image].tolist(), output.priors.tolist()
    wanted: dict[int, dict[int, tuple[float, float]]] = {p: {} for p in range(len(priors))}
    for m, box in cases.objects(targets, image).items():
        overlap = {
            p: slow.iou(guesses[p], box)
            for p, prior in enumerate(priors)
            if min(cases.distances(cases.middle(prior), box)) > 0
        }
        best = sorted(sorted(overlap, key=lambda p: -overlap[p])[:topk])
        if not best:
            continue
        (x, y), (width, height) = cases.middle(box), cases.size(box)
        points = []
        for p in best:
            at = cases.middle(priors[p])
            points.append([(at[0] - x) / (width / 2), (at[1] - y) / (height / 2)])
        density = mixture(points, [overlap[p] for p in best], steps, spread)
        share = {p: d / max(density) for p, d in zip(best, density, strict=True)}
        draw = {p: share[p] * max(overlap[p] for p in best) for p in best}
        count = max(round(sum(draw.values())), 1)
        # Priors in one place have equal densities: their order is that of their overlaps.
        order = sorted(sorted(best, key=lambda p: -overlap[p]), key=lambda p: -round(share[p], 9))
        for p in order[:count]:
            wanted[p][m] = (draw[p], share[p])
    learns = [max(who, key=lambda m: round(who[m][0], 9)) if who else None for who in wanted.values()]
    quality = [wanted[p][m][1] if m is not None else 0.0 for p, m in enumerate(learns)]
    return learns, quality, sum(len(who) > 1 for who in wanted.values())


def compare(output, targets, topk=32, steps=10, spread=0.2):
    """One assignment and the loops; returns how many priors are positive, and how many were wanted twice."""
    assigned = IQDet(topk, steps, spread)(output, targets)
    twice = 0
    for image in range(len(targets.boxes)):
        learns, quality, more = slow_iqdet(output, targets, image, topk, steps, spread)
        neither = [cases.in_region(targets, image, prior, 0.5) for prior in output.priors.tolist()]
        cases.check_learns(assigned, image, learns, neither)
        torch.testing.assert_close(assigned.quality[image], torch.tensor(quality, dtype=torch.float64))
        twice += more
    return int(assigned.positive.sum()), twice


@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize(("topk", "steps", "spread"), [(32, 10, 0.2), (9, 3, 0.05)])
def test_equals_plain_loops(kind, topk, steps, spread):
    found = [compare(*cases.scene(kind, seed), topk, steps, spread) for seed in range(2)]
    assert sum(positive for positive, _ in found) > 15
    assert sum(twice for _, twice in found) > 1


def whole(output, boxes):
    """One object, a box of the whole picture, and what is predicted."""
    yes = torch.ones(1, 1, dtype=torch.bool)
    box = torch.tensor([[[0.0, 0, 64, 64]]], dtype=torch.float64)
    return output._replace(boxes=boxes), Targets(box, torch.zeros(1, 1, dtype=torch.int64), yes, ~yes)


def test_samples_lie_where_the_predictions_are_good():
    """An eccentric object: only in its lower right quarter the boxes are right."""
    output, _ = cases.scene("one level", 0, counts=(1,))
    points = (output.priors[:, :2] + output.priors[:, 2:]) / 2
    good = (points > 32).all(dim=1)
    right = torch.tensor([0.0, 0, 64, 64], dtype=torch.float64)
    boxes = torch.where(good[:, None], right, output.priors)[None]
    assigned = IQDet()(*whole(output, boxes))
    assert assigned.positive[0, good].sum() >= 4
    assert not assigned.positive[0, ~good].any()
    densest = points[assigned.quality[0].argmax()]
    assert (densest > 40).all()


def test_better_predictions_are_more_samples():
    output, _ = cases.scene("one level", 0, counts=(1,))
    counts = []
    for share in (0.1, 0.5, 1.0):
        boxes = torch.tensor([0.0, 0, 64 * share, 64], dtype=torch.float64).expand(1, 64, 4)
        counts.append(int(IQDet()(*whole(output, boxes)).positive.sum()))
    assert 1 <= counts[0] < counts[1] < counts[2] <= 32


def test_one_noisy_prediction_does_not_take_the_samples():
    """The mixture is smooth: a single prediction off the heap has a lower quality than its IoU."""
    output, _ = cases.scene("one level", 0, counts=(1,))
    points = (output.priors[:, :2] + output.priors[:, 2:]) / 2
    good = (points > 32).all(dim=1)
    boxes = output.priors.clone()
    boxes[good] = torch.tensor([0.0, 0, 64, 60], dtype=torch.float64)
    boxes[0] = torch.tensor([0.0, 0, 64, 64], dtype=torch.float64)  # the best of all, in the far corner
    assigned = IQDet()(*whole(output, boxes[None]))
    assert assigned.quality[0].argmax() != 0
    assert assigned.quality[0, 0] < 0.5


def test_predictions_that_overlap_nothing_leave_each_object_one_sample():
    output, _ = cases.scene("points", 0, counts=(1,), regions=0)
    assigned = IQDet()(*whole(output, output.boxes + 1000))
    assert int(assigned.positive.sum()) == 1
    assert float(assigned.quality.max()) == 1


def test_no_spread_is_refused():
    with pytest.raises(ValueError, match=r"spread=0"):
        IQDet(spread=0)
