"""Assignment by scale against loops over objects and cells, and what a crowded picture costs."""

from __future__ import annotations

import math

import pytest
import torch

from torso.assigners import Scale
from torso.boxes.points import Points
from torso.structures import DenseOutput, Targets
from torso.testing import check_assigner

pytestmark = pytest.mark.part("assigner/scale")
STRIDES, SIZES = (8, 16, 32), [(16, 16), (8, 8), (4, 4)]


def case(seed: int, rows: int = 12) -> tuple[DenseOutput, Targets]:
    """Objects of whole corners and all scales in two pictures of 128 px; some share a cell, some are empty."""
    generator = torch.Generator().manual_seed(seed)
    priors = Points(STRIDES)(SIZES)
    low = torch.randint(0, 100, (2, rows, 2), generator=generator).double()
    size = 2 ** (torch.rand(2, rows, 1, generator=generator, dtype=torch.float64) * 6 + 1)
    shape = torch.rand(2, rows, 2, generator=generator, dtype=torch.float64) + 0.6
    boxes = torch.cat([low, low + (size * shape).round()], dim=-1)
    boxes[:, 3] = boxes[:, 2]  # one twice
    boxes[:, 4] = torch.cat([boxes[:, 2, :2] + 1, boxes[:, 2, 2:] - 1], dim=-1)  # and one with the same centre
    boxes[:, 5, 2:] = boxes[:, 5, :2]  # without an area
    kind = torch.arange(rows).expand(2, rows)
    targets = Targets(boxes, kind % 3, valid=kind % 6 != 1, ignore=kind % 6 == 1)
    count = len(priors.boxes)
    output = DenseOutput(
        torch.zeros(2, count, 3),
        torch.zeros(2, count, 4),
        torch.zeros(2, count, 4),
        priors.boxes.double(),
        (256, 64, 16),
        {},
        priors.strides.double(),
        (128, 128),
    )
    return output, targets


def slowly(output: DenseOutput, targets: Targets, image: int, scale: float) -> list[int | None]:
    """Which object each prior learns, from the paper's two sentences."""
    learns: list[int | None] = [None] * len(output.priors)
    nearest = [math.inf] * len(output.priors)
    for m, box in enumerate(targets.boxes[image].tolist()):
        area = (box[2] - box[0]) * (box[3] - box[1])
        if not targets.valid[image, m] or area <= 0:
            continue
        level = min(max(math.floor(math.log2(math.sqrt(area) / scale / 8)), 0), 2)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        for p, (prior, stride) in enumerate(zip(output.priors.tolist(), output.strides.tolist(), strict=True)):
            if stride[0] != STRIDES[level]:
                continue
            px, py = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
            if math.floor(x / stride[0]) != px // stride[0] or math.floor(y / stride[1]) != py // stride[1]:
                continue
            far = (x - px) ** 2 + (y - py) ** 2
            if far < nearest[p]:
                nearest[p], learns[p] = far, m
    return learns


@pytest.mark.parametrize("scale", [4.0, 1.5])
def test_equals_the_level_and_the_cell_of_the_paper(scale):
    found, shared = 0, 0
    for seed in range(8):
        output, targets = case(seed)
        assigned = Scale(scale)(output, targets)
        for image in range(2):
            learns = slowly(output, targets, image, scale)
            assert assigned.positive[image].tolist() == [m is not None for m in learns]
            assert assigned.matched[image].tolist() == [m or 0 for m in learns]
            found += sum(m is not None for m in learns)
            shared += sum(m == 2 for m in learns)
    assert found > 80
    assert shared, "of equal objects in one cell the first is learned"


def test_of_objects_in_one_cell_the_one_nearest_to_its_middle_is_learned():
    output, _ = case(0)
    middle = torch.tensor([[1.0, 1.0], [3.5, 4.5], [6.0, 2.0]], dtype=torch.float64)  # of cell 0, which is 4, 4
    there = torch.ones(2, 3, dtype=torch.bool)
    boxes = torch.cat([middle - 5, middle + 5], dim=1).expand(2, -1, -1)
    assigned = Scale()(output, Targets(boxes, there.long(), there, ~there))
    assert assigned.positive[:, 0].all()
    assert assigned.positive.sum() == 2
    assert assigned.matched[:, 0].tolist() == [1, 1]


def test_priors_in_an_ignored_region_learn_nothing():
    output, targets = case(0)
    assigned = Scale()(output, targets)
    centre = (output.priors[:, :2] + output.priors[:, 2:]) / 2
    inside = torch.zeros_like(assigned.positive)
    for image, row in targets.ignore.nonzero().tolist():
        box = targets.boxes[image, row]
        inside[image] |= ((centre > box[:2]) & (centre < box[2:])).all(dim=1)
    assert inside.any()
    assert torch.equal(assigned.negative, ~assigned.positive & ~inside)


def test_it_keeps_the_contract_and_is_one_graph():
    check_assigner(Scale())
    report = torch._dynamo.explain(Scale())(*case(1))
    assert report.graph_break_count == 0, report.break_reasons


def test_a_scale_of_nothing_is_told():
    with pytest.raises(ValueError, match="above 0 strides, got 0"):
        Scale(0)
