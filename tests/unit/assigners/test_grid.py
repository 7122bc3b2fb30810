"""Assignment by the cell: YOLO's three ways, against plain loops from their papers and descriptions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from tests.unit.assigners import cases
from tests.unit.parts.slow import iou
from torso.assigners.grid import Grid
from torso.boxes.cells import around_cells
from torso.structures import Targets

pytestmark = pytest.mark.part("assigner/grid")


def cell_of(point, output, p, offset):
    """The cell (column, row) of a point on the level of a prior."""
    stride = output.strides[p].tolist()
    return tuple(math.floor(a / s - offset + 0.5) for a, s in zip(point, stride, strict=True))


def shape_iou(a, b):
    (width, height), (other_width, other_height) = cases.size(a), cases.size(b)
    shared = min(width, other_width) * min(height, other_height)
    return shared / (width * height + other_width * other_height - shared)


def real_objects(targets, image):
    return {m: box for m, box in cases.objects(targets, image).items() if min(cases.size(box)) > 0}


def slow_overlap(output, targets, image, offset):
    """YOLOv1: the first object of a cell, and one responsible predictor for it."""
    priors, decoded = output.priors.tolist(), output.boxes[image].tolist()
    cell = [cell_of(cases.middle(prior), output, p, offset) for p, prior in enumerate(priors)]
    found = real_objects(targets, image)
    owner = [
        next((m for m, box in found.items() if cell_of(cases.middle(box), output, p, offset) == cell[p]), None)
        for p in range(len(priors))
    ]
    learns: list[int | None] = [None] * len(priors)
    side = output.size[1], output.size[0]
    for m, box in found.items():
        mine = [p for p in range(len(priors)) if owner[p] == m]

        def off(p, box=box):
            of_centre = zip(cases.middle(box), cases.middle(decoded[p]), side, strict=True)
            of_size = zip(cases.size(box), cases.size(decoded[p]), side, strict=True)
            return math.sqrt(sum(((a - b) / s) ** 2 for a, b, s in (*of_centre, *of_size)))

        if mine:
            overlap = {p: iou(box, decoded[p]) for p in mine}
            best = max(mine, key=overlap.__getitem__)
            learns[best if overlap[best] > 0 else min(mine, key=off)] = m
    return learns


def slow_shape(output, targets, image, offset, fits_above=1.0):
    """YOLOv2, v3 and v4: the prior of the best shape, and with v4 others that fit well enough."""
    priors = output.priors.tolist()
    best: list[tuple[bool, float, int] | None] = [None] * len(priors)
    for m, box in real_objects(targets, image).items():
        middle = cases.middle(box)
        mine = [
            p
            for p, prior in enumerate(priors)
            if cell_of(middle, output, p, offset) == cell_of(cases.middle(prior), output, p, offset)
        ]
        if not mine:
            continue
        fit = {p: shape_iou(box, priors[p]) for p in mine}
        first = max(mine, key=fit.__getitem__)
        for p in mine:
            claim = (p == first, fit[p], m)
            if (p == first or fit[p] > fits_above) and (best[p] is None or claim[:2] > best[p][:2]):
                best[p] = claim
    return [None if claim is None else claim[2] for claim in best]


def neighbours_of(place, cell, count):
    """The cells beside one that are nearest to a place (in strides from the low end of cell 0) in it."""
    beside = []
    for axis in (0, 1):
        part = place[axis] - cell[axis]
        if part != 0.5:
            step = -1 if part < 0.5 else 1
            other = list(cell)
            other[axis] += step
            beside.append((-abs(part - 0.5), axis, tuple(other)))
    return [other for *_, other in sorted(beside)[:count]]


def slow_ratio(output, targets, image, offset, ratio, neighbours):
    """YOLOv5: all priors of a similar shape in the cell and its nearest neighbours, on every level."""
    priors = output.priors.tolist()
    best: list[tuple[bool, float, int] | None] = [None] * len(priors)
    for m, box in real_objects(targets, image).items():
        middle = cases.middle(box)
        for p, prior in enumerate(priors):
            stride = output.strides[p].tolist()
            cell = cell_of(middle, output, p, offset)
            place = [a / s - offset + 0.5 for a, s in zip(middle, stride, strict=True)]
            here = cell_of(cases.middle(prior), output, p, offset)
            if here != cell and here not in neighbours_of(place, cell, neighbours):
                continue
            factors = [a / b for a, b in zip(cases.size(box), cases.size(prior), strict=True)]
            if max(max(f, 1 / f) for f in factors) >= ratio:
                continue
            claim = (here == cell, shape_iou(box, prior), m)
            if best[p] is None or claim[:2] > best[p][:2]:
                best[p] = claim
    return [None if claim is None else claim[2] for claim in best]


def slow(output, targets, image, offset, match="shape", fits_above=1.0, ratio=4.0, neighbours=2):
    if match == "overlap":
        return slow_overlap(output, targets, image, offset)
    if match == "shape":
        return slow_shape(output, targets, image, offset, fits_above)
    return slow_ratio(output, targets, image, offset, ratio, neighbours)


def compare(output, targets, offset=0.5, ignore_above=0.7, **options):
    """One assignment and the loops; returns how many priors are positive."""
    assigned = Grid(ignore_above=ignore_above, **options)(output, targets)
    for image in range(len(targets.boxes)):
        found = real_objects(targets, image)
        neither = [
            cases.in_region(targets, image, prior, 0.5)
            or any(iou(box, decoded) > ignore_above for box in found.values())
            for prior, decoded in zip(output.priors.tolist(), output.boxes[image].tolist(), strict=True)
        ]
        cases.check_learns(assigned, image, slow(output, targets, image, offset, **options), neither)
    return int(assigned.positive.sum())


OPTIONS = {
    "YOLOv1": {"match": "overlap", "ignore_above": 1.0},
    "YOLOv3": {},
    "YOLOv4": {"fits_above": 0.213, "ignore_above": 0.5},
    "YOLOv5": {"match": "ratio", "ignore_above": 1.0},
    "one neighbour": {"match": "ratio", "neighbours": 1, "ratio": 3.0},
    "no neighbour": {"match": "ratio", "neighbours": 0},
}


@pytest.mark.parametrize("offset", [0.5, 0.0])
@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_plain_loops(name, kind, offset):
    scenes = [cases.scene(kind, seed, offset=offset) for seed in range(2)]
    assert sum(compare(*scene, offset, **OPTIONS[name]) for scene in scenes) > 3


@settings(max_examples=30, deadline=None)
@given(cases.drawn_targets())
def test_equals_plain_loops_for_any_objects(targets):
    output = cases.detector_output("one level of anchors", 1)
    for options in OPTIONS.values():
        compare(output, targets, **options)


def one_picture(boxes):
    yes = torch.ones(1, len(boxes), dtype=torch.bool)
    labels = torch.zeros(1, len(boxes), dtype=torch.int64)
    return Targets(torch.tensor([boxes], dtype=torch.float64), labels, yes, ~yes)


def positions(assigned):
    """{prior: object} of the only picture."""
    return {p: int(assigned.matched[0, p]) for p in assigned.positive[0].nonzero().flatten().tolist()}


def test_the_first_object_of_a_cell_and_the_predictor_that_overlaps_it_most():
    output = cases.detector_output("one level of anchors", 1)  # 4 x 4 cells of 16 px, 6 predictors each
    boxes = torch.zeros(1, 96, 4, dtype=torch.float64)
    boxes[0, 32] = torch.tensor([18.0, 18, 30, 30])  # the third predictor of cell 5, where both objects are
    boxes[0, 33] = torch.tensor([19.0, 19, 25, 25])
    boxes[0, 40] = torch.tensor([18.0, 18, 30, 30])  # of another cell
    output = output._replace(boxes=boxes)
    both = one_picture([[18.0, 18, 30, 30], [19.0, 19, 25, 25]])
    assert positions(Grid(match="overlap")(output, both)) == {32: 0}


def test_a_predictor_is_responsible_though_no_decoded_box_overlaps_the_object():
    """darknet's choice: the box least far off, in shares of the picture."""
    output = cases.detector_output("one level of anchors", 1)._replace(size=(64, 640))
    boxes = torch.full((1, 96, 4), 500.0, dtype=torch.float64)
    boxes[0, 31] = torch.tensor([18.0, 40, 30, 52])  # 20 of 64 px too low
    boxes[0, 33] = torch.tensor([68.0, 20, 80, 32])  # 50 of 640 px too far right
    found = Grid(match="overlap")(output._replace(boxes=boxes), one_picture([[18.0, 20, 30, 32]]))
    assert positions(found) == {33: 0}


def test_the_prior_of_the_best_shape_on_all_levels():
    """YOLOv3's nine anchors: an object takes one, on the level that has it."""
    output = cases.detector_output("anchors", 1)
    level = cases.level_of(output)
    for shape, expected in (((10, 14), 0), ((30, 62), 1), ((16, 30), 0)):
        box = [33 - shape[0] / 2, 33 - shape[1] / 2, 33 + shape[0] / 2, 33 + shape[1] / 2]
        (prior,) = positions(Grid()(output, one_picture([box])))
        assert level[prior] == expected
        assert cases.size(output.priors[prior].tolist())[0] == shape[0]


def test_two_neighbouring_cells_by_where_in_its_cell_a_centre_lies():
    output = cases.detector_output("one level", 1)
    grid = Grid(match="ratio", ignore_above=1.0)

    def cells(x, y, neighbours=2):
        grid.neighbours = neighbours
        return set(positions(grid(output, one_picture([[x - 4, y - 4, x + 4, y + 4]]))))

    assert cells(25, 26) == {27, 26, 19}  # the low left quarter of cell (3, 3): left and above
    assert cells(31, 30) == {27, 28, 35}
    assert cells(25, 26, 1) == {27, 26}
    assert cells(26, 25, 1) == {27, 19}
    assert cells(25, 26, 0) == {27}
    assert cells(28, 25) == {27, 19}  # in the middle along x: one neighbour
    assert cells(28, 28) == {27}
    assert cells(1, 2) == {0}  # there is nothing beside the first cell
    assert cells(32, 33) == {36, 35, 28}  # an edge belongs to the cell after it


def test_a_box_that_overlaps_an_object_enough_is_not_taught_that_there_is_nothing():
    output = cases.detector_output("one level", 1)
    boxes = torch.zeros(1, 64, 4, dtype=torch.float64)
    boxes[0, 5] = torch.tensor([24.0, 24, 40, 40])
    boxes[0, 6] = torch.tensor([24.0, 24, 40, 36])  # IoU 0.75
    output = output._replace(boxes=boxes)
    targets = one_picture([[24.0, 24, 40, 40]])
    for limit, spared in ((0.7, [5, 6]), (0.75, [5]), (0.8, [5]), (1.0, [])):
        assigned = Grid(ignore_above=limit)(output, targets)
        assert (~assigned.positive & ~assigned.negative)[0].nonzero().flatten().tolist() == spared


def test_cells_of_anchors_whose_centres_are_rounded():
    """In float32 the two corners of an anchor 33.7 px wide do not quite have the cell's centre between them."""
    shapes = 8 + torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 80
    priors, steps = around_cells([torch.cat([-shapes, shapes], dim=1) / 2], [(13, 13)], [(40, 40)], 0.5)
    cell = torch.arange(32000) // 20
    assert not torch.equal((priors[:, 0] + priors[:, 2]) / 2, (cell % 40 + 0.5) * 13)
    at = torch.arange(40) * 13.0  # on the edges of cells
    boxes = torch.stack([at - 4, at - 4, at + 4, at + 4], dim=1)[None]
    yes = torch.ones(1, 40, dtype=torch.bool)
    output = cases.detector_output("one level", 1)._replace(
        priors=priors, strides=steps, boxes=priors[None], counts=(32000,), logits=torch.zeros(1, 32000, 3)
    )
    grid = Grid(match="ratio", ratio=100.0, neighbours=0)  # every prior of the cell
    assigned = grid(output, Targets(boxes, torch.zeros(1, 40, dtype=torch.int64), yes, ~yes))
    assert torch.equal(assigned.positive[0], cell % 41 == 0)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="ratio is above 1, got 1"):
        Grid(ratio=1)
