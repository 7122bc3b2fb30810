"""Assignment by scale: against plain loops, and against the matching inside torchvision's FCOS."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torchvision.models.detection import FCOS as TorchvisionFCOS  # noqa: N811

from tests.unit.assigners import cases
from torso.assigners.fcos import FCOS
from torso.structures import DenseOutput, Targets

pytestmark = pytest.mark.part("assigner/fcos")
EVERYWHERE = [(0.0, math.inf)] * 3
OVERLAPPING = [(0.0, 14.0), (10.0, 25.0), (20.0, math.inf)]


def slow_ranges(output: DenseOutput, by: str, reach, relax) -> list[list[tuple[float, float]]]:
    """(low, high) of widths and of heights, for each prior; open at the ends, as the paper's 0 and infinity are."""
    strides = output.strides.tolist()
    found = []
    for stride in strides:
        both = []
        for axis in (0, 1):
            one = stride[axis] if by == "sides" else max(stride)
            every = [s[axis] if by == "sides" else max(s) for s in strides]
            low = 0.0 if one == min(every) else one * reach[0] * relax[0]
            high = math.inf if one == max(every) else one * reach[1] * relax[1]
            both.append((low, high))
        found.append(both)
    return found


def slow(output, targets, image, radius, ranges, by):
    """For every prior of a picture: the object it learns or None."""
    learns = []
    found = cases.objects(targets, image)
    for p, prior in enumerate(output.priors.tolist()):
        point, stride = cases.middle(prior), output.strides[p].tolist()
        best = None
        for m, box in found.items():
            reach = cases.distances(point, box)
            if min(reach) <= 0:
                continue
            if radius is not None:
                away = [abs(a - b) for a, b in zip(point, cases.middle(box), strict=True)]
                if away[0] >= radius * stride[0] or away[1] >= radius * stride[1]:
                    continue
            width, height = cases.size(box)
            (low, high), (low_y, high_y) = ranges[p]
            if by == "max" and not low < max(reach) < high:
                continue
            if by == "sides" and not (low <= width <= high and low_y <= height <= high_y):
                continue
            if best is None or width * height < best[0]:
                best = (width * height, m)
        learns.append(None if best is None else best[1])
    return learns


def compare(output, targets, radius=1.5, reach=(4.0, 8.0), by="max", relax=(1.0, 1.0), ranges=None):
    """One assignment and the loops; returns how many priors are positive."""
    assigned = FCOS(radius, reach, ranges, by, relax)(output, targets)
    ends = slow_ranges(output, by, reach, relax)
    if ranges is not None:
        rows = [ranges[level] for level in cases.level_of(output)]
        below, above = relax
        ends = [[(row[0] * below, row[1] * above), (row[-2] * below, row[-1] * above)] for row in rows]
    for image in range(len(targets.boxes)):
        neither = [cases.in_region(targets, image, prior, None) for prior in output.priors.tolist()]
        cases.check_learns(assigned, image, slow(output, targets, image, radius, ends, by), neither)
    return int(assigned.positive.sum())


@pytest.mark.parametrize("offset", [0.5, 0.0])
@pytest.mark.parametrize("kind", sorted(cases.LEVELS))
@pytest.mark.parametrize("radius", [1.5, 0.5, None])
def test_equals_plain_loops(kind, radius, offset):
    # A small reach, so that every level of a picture of 64 px has objects of its own.
    positive = sum(
        compare(*cases.scene(kind, seed, offset=offset), radius=radius, reach=reach)
        for seed in range(2)
        for reach in ((4.0, 8.0), (1.0, 2.0))
    )
    assert positive > 10


@pytest.mark.parametrize("relax", [(1.0, 1.0), (0.75, 1.5)])
@pytest.mark.parametrize("ranges", [EVERYWHERE, OVERLAPPING])
def test_ranges_of_your_own(ranges, relax):
    for seed in range(2):
        assert compare(*cases.scene("anchors", seed), ranges=ranges, relax=relax) > 20


@pytest.mark.parametrize("relax", [(1.0, 1.0), (0.8, 1.3)])
def test_levels_for_both_sides_of_an_object(relax):
    for seed in range(4):
        assert compare(*cases.scene("sides", seed), reach=(1.0, 2.0), by="sides", relax=relax) > 5
    ranges = [(0, 20, 0, 20), (20, 64, 0, 20), (0, 20, 20, 64), (20, 64, 20, 64)]
    assert compare(*cases.scene("sides", 9), by="sides", ranges=ranges) > 5


def test_a_wide_object_belongs_to_the_level_of_wide_cells():
    """MatrixNet's layers: strides (height, width) (8, 8), (8, 16), (16, 8) and (16, 16)."""
    output = cases.detector_output("sides", 1)
    matrix = FCOS(by="sides", reach=(3.0, 6.0), relax=(0.8, 1.3))

    def levels(width, height):
        box = torch.tensor([[[32 - width / 2, 32 - height / 2, 32 + width / 2, 32 + height / 2]]])
        yes = torch.ones(1, 1, dtype=torch.bool)
        assigned = matrix(output, Targets(box.double(), torch.zeros(1, 1, dtype=torch.int64), yes, ~yes))
        return {level for level, taken in zip(cases.level_of(output), assigned.positive[0], strict=True) if taken}

    assert levels(30, 30) == {0}
    assert levels(70, 30) == {1}
    assert levels(30, 70) == {2}
    assert levels(70, 70) == {3}
    assert levels(50, 30) == {0, 1}  # from 0.8 x 48 to 1.3 x 48 px both levels learn it


@settings(max_examples=40, deadline=None)
@given(cases.drawn_targets())
def test_equals_plain_loops_for_any_objects(targets):
    compare(cases.detector_output("points", 1), targets, reach=(1.0, 2.0))
    compare(cases.detector_output("sides", 1), targets, radius=None, reach=(1.0, 2.0), by="sides")


class Pyramid(nn.Module):
    """The least backbone that torchvision's FCOS takes."""

    out_channels = 32

    def forward(self, x):
        first = nn.functional.avg_pool2d(x, 8)[:, :1].expand(-1, 32, -1, -1)
        maps = [first]
        for _ in range(4):
            maps.append(nn.functional.max_pool2d(maps[-1], 1, stride=2))
        return dict(enumerate(maps))


def torchvision_matches(boxes, radius, dtype):
    """The anchors, the objects and the matches (-1 none) that a torchvision FCOS hands to the losses of its head."""
    torch.manual_seed(0)
    model = TorchvisionFCOS(Pyramid(), 3, min_size=1024, max_size=1024, center_sampling_radius=radius).to(dtype).train()
    seen = {}

    def compute_loss(targets, head_outputs, anchors, matched):
        seen.update(boxes=[t["boxes"] for t in targets], anchors=anchors[0], matched=matched)
        return {}

    model.head.compute_loss = compute_loss
    labels = [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    model(
        [torch.rand(3, 1024, 1024, dtype=dtype)] * len(boxes),
        [{"boxes": b.to(dtype), "labels": n} for b, n in zip(boxes, labels, strict=True)],
    )
    return seen


@pytest.mark.parametrize("radius", [1.5, 0.7, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_what_torchvision_matches(dtype, radius):
    generator = torch.Generator().manual_seed(0)
    # Some reach out of the picture. Sides of multiples of 4 px make ties, and areas that torchvision's 1e8 less an
    # area tells apart in float32.
    low = torch.randint(0, 50, (3, 40, 2), generator=generator) * 16
    scale = 2 ** torch.randint(0, 4, (3, 40, 1), generator=generator)
    size = torch.randint(1, 60, (3, 40, 2), generator=generator) * 4 * scale
    boxes = torch.cat([low, low + size], dim=-1).double()
    boxes[:, 1] = boxes[:, 0]
    counts = (40, 1, 0)
    seen = torchvision_matches([b[:n] for b, n in zip(boxes, counts, strict=True)], radius, dtype)
    anchors = seen["anchors"]
    assert anchors.dtype == dtype
    steps = (anchors[:, 2:] - anchors[:, :2]).round()
    levels = tuple((1024 // s) ** 2 for s in (8, 16, 32, 64, 128))
    assert len(anchors) == sum(levels)
    shape = (3, len(anchors))
    empty = torch.zeros(*shape, 4, dtype=dtype)
    output = DenseOutput(empty[..., :3], empty, empty, anchors, levels, {}, steps, (1024, 1024))
    valid = torch.arange(40) < torch.tensor(counts)[:, None]
    padded = torch.where(valid[..., None], boxes, 0).to(dtype)
    targets = Targets(padded, torch.zeros(3, 40, dtype=torch.int64), valid, torch.zeros_like(valid))
    for image, count in enumerate(counts):
        assert torch.equal(seen["boxes"][image], padded[image, :count])  # nothing was resized
    assigned = FCOS(radius)(output, targets)
    expected = torch.stack(seen["matched"])
    assert torch.equal(assigned.positive, expected >= 0)
    assert torch.equal(assigned.matched, expected.clamp(min=0))
    assert torch.equal(assigned.negative, expected < 0)
    by_level = [int(x.sum()) for x in assigned.positive.split(levels, dim=1)]
    assert all(by_level), by_level


def test_the_smaller_of_two_tiny_objects_in_float32():
    """Where torchvision sees two equal areas, 9 and 4 px, and takes the first."""
    output = cases.single(cases.detector_output("one level", 1))
    boxes = torch.tensor([[[10.5, 10.5, 13.5, 13.5], [11.0, 11.0, 13.0, 13.0]]])
    yes = torch.ones(1, 2, dtype=torch.bool)
    assigned = FCOS()(output, Targets(boxes, torch.zeros(1, 2, dtype=torch.int64), yes, ~yes))
    assert assigned.matched[assigned.positive].tolist() == [1]


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="radius is above 0 strides, or None, got 0"):
        FCOS(radius=0)
    with pytest.raises(ValueError, match=r"a range is \[low, high\] with low < high, got \[8, 4\]"):
        FCOS(reach=(8, 4))
    with pytest.raises(ValueError, match=r"a range is .* got \[0, 8, 0, 8\]"):
        FCOS(ranges=[(0, 8, 0, 8)])
    with pytest.raises(ValueError, match="2 ranges for 3 levels: give one a level"):
        FCOS(ranges=[(0, 8), (8, 9)])(*cases.scene("points", 0))
