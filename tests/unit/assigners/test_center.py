"""Assignment by the centre, against plain loops from the papers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from tests.unit.assigners import cases
from torso.assigners.center import Center
from torso.structures import Targets

pytestmark = pytest.mark.part("assigner/center")


def slow(output, targets, image, radius=1.5, share=None, shape="box", ring=0.0, outer=None, nearest=False):
    """For every prior of a picture: the object it learns or None, and whether it lies in a grey ring."""
    found = {m: box for m, box in cases.objects(targets, image).items() if min(cases.size(box)) > 0}
    points = [cases.middle(prior) for prior in output.priors.tolist()]

    def away(point, box):
        return [abs(a - b) for a, b in zip(point, cases.middle(box), strict=True)]

    def within(point, box, half):
        x, y = away(point, box)
        if shape == "ellipse":
            return (x / half[0]) ** 2 + (y / half[1]) ** 2 < 1
        return x < half[0] and y < half[1]

    closest = {m: min(sum(d * d for d in away(p, box)) for p in points) for m, box in found.items()}
    learns, grey = [], []
    for p, point in enumerate(points):
        stride = output.strides[p].tolist()
        takers, dim = [], False
        for m, box in found.items():
            size = cases.size(box)
            half = [radius * s for s in stride] if share is None else [share * s / 2 for s in size]
            mine = within(point, box, half) and min(cases.distances(point, box)) > 0
            x, y = away(point, box)
            if nearest and x * x + y * y == closest[m] and x <= stride[0] / 2 and y <= stride[1] / 2:
                mine = True
            if mine:
                takers.append((size[0] * size[1], m))
            dim |= ring > 0 and within(point, box, [h + ring * s for h, s in zip(half, stride, strict=True)])
            dim |= outer is not None and within(point, box, [outer * s / 2 for s in size])
        learns.append(min(takers)[1] if takers else None)
        grey.append(dim)
    return learns, grey


def compare(output, targets, **options):
    """One assignment and the loops; returns how many priors are positive and how many neither."""
    assigned = Center(**options)(output, targets)
    for image in range(len(targets.boxes)):
        learns, grey = slow(output, targets, image, **options)
        regions = [cases.in_region(targets, image, prior, None) for prior in output.priors.tolist()]
        cases.check_learns(assigned, image, learns, [a or b for a, b in zip(grey, regions, strict=True)])
    return int(assigned.positive.sum()), int((~assigned.positive & ~assigned.negative).sum())


OPTIONS = {
    "FCOS": {},
    "a circle in strides": {"radius": 2.0, "shape": "ellipse"},
    "DenseBox": {"share": 0.6, "shape": "ellipse", "ring": 2.0},
    "FSAF": {"share": 0.2, "outer": 0.5},
    "the whole object": {"share": 1.0},
    "CenterNet": {"radius": 0.5, "nearest": True},
    "a share, or at least one": {"share": 0.3, "nearest": True, "ring": 0.5},
}


@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_plain_loops(name, kind):
    found = [compare(*cases.scene(kind, seed, offset=seed % 2 / 2), **OPTIONS[name]) for seed in range(4)]
    assert sum(positive for positive, _ in found) > 10
    assert sum(neither for _, neither in found) > 10


@settings(max_examples=40, deadline=None)
@given(cases.drawn_targets())
def test_equals_plain_loops_for_any_objects(targets):
    output = cases.detector_output("one level", 1)
    for options in OPTIONS.values():
        compare(output, targets, **options)


def test_every_object_in_the_picture_has_a_prior_with_the_nearest():
    """Objects of 1 px, no two in one cell; the share of the box alone finds only those around the centre of a cell."""
    output = cases.detector_output("one level", 1)
    corner = torch.cartesian_prod(torch.arange(8), torch.arange(8)) * 8 + torch.randint(0, 7, (64, 2))
    boxes = torch.cat([corner, corner + 1], dim=1)[None].double()
    yes = torch.ones(1, 64, dtype=torch.bool)
    targets = Targets(boxes, torch.zeros(1, 64, dtype=torch.int64), yes, ~yes)
    assigned = Center(share=0.5, nearest=True)(output, targets)
    assert assigned.positive.all()
    assert sorted(assigned.matched[0].tolist()) == list(range(64))
    assert Center(share=0.5)(output, targets).positive.sum() < 8


def test_a_radius_of_half_a_stride_is_the_cell_of_the_centre():
    output = cases.detector_output("one level", 1)
    yes = torch.ones(1, 1, dtype=torch.bool)
    for x, y in ((1.0, 2.0), (30.5, 61.0), (9.0, 7.0)):
        box = torch.tensor([[[x - 20, y - 20, x + 20, y + 20]]]).double()
        assigned = Center(radius=0.5)(output, Targets(box, torch.zeros(1, 1, dtype=torch.int64), yes, ~yes))
        expected = math.floor(y / 8) * 8 + math.floor(x / 8)
        assert assigned.positive[0].nonzero().tolist() == [[expected]]


def test_the_ring_is_grey_on_no_side_of_the_middle():
    """DenseBox: inside the circle positive, two cells around it nothing, beyond negative."""
    output = cases.detector_output("one level", 1)
    box = torch.tensor([[[4.0, 4.0, 60.0, 60.0]]]).double()
    yes = torch.ones(1, 1, dtype=torch.bool)
    assigned = Center(share=0.6, shape="ellipse", ring=1.0)(
        output, Targets(box, torch.zeros(1, 1, dtype=torch.int64), yes, ~yes)
    )
    away = (output.priors[:, :2] + 4 - 32).square().sum(dim=1).sqrt()
    assert torch.equal(assigned.positive[0], away < 0.3 * 56)
    assert torch.equal(assigned.negative[0], away >= 0.3 * 56 + 8)
    assert 0 < int((~assigned.positive & ~assigned.negative).sum()) < 30


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="radius=0, ring=0"):
        Center(radius=0)
    with pytest.raises(ValueError, match=r"share is above 0 and at most 1, got 1\.5"):
        Center(share=1.5)
    with pytest.raises(ValueError, match="outer is above 0 and at most 1, got 0"):
        Center(outer=0)
