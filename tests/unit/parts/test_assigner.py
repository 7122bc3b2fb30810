"""The max-IoU assigner against plain loops, with many objects, and as the compiler and a GPU see it."""

from __future__ import annotations

import pytest
import torch

from tests.unit.parts import slow
from torso.assigners import MaxIoU
from torso.structures import Targets
from torso.testing import dense_case

pytestmark = pytest.mark.part("assigner/max_iou")
FIELDS = ("matched", "positive", "negative")


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5)])
def test_equals_plain_loops(thresholds, low_quality):
    assigner = MaxIoU(*thresholds, low_quality=low_quality)
    covered = 0
    for seed in range(6):
        output, targets = slow.grid_case(seed)
        assigned = assigner(output, targets)
        for image in range(3):
            learns, negative = slow.max_iou(output.priors, targets, image, thresholds, low_quality)
            assert assigned.positive[image].tolist() == [m is not None for m in learns]
            assert assigned.negative[image].tolist() == negative
            assert assigned.matched[image].tolist() == [m or 0 for m in learns]
            covered += sum(m is None and not n for m, n in zip(learns, negative, strict=True))
    assert covered > 20, "the cases must have priors that are learned from by no loss"


def test_an_object_that_no_prior_touches_takes_none():
    """torchvision's Matcher would give it every prior: all overlap it "most", with 0."""
    output, targets = dense_case(2)
    far = Targets(targets.boxes + 1e4, targets.labels, targets.valid, targets.ignore)
    assigned = MaxIoU()(output, far)
    assert not assigned.positive.any()
    assert assigned.negative.all()


def test_an_ignored_region_never_takes_a_prior_from_an_object():
    output, targets = slow.grid_case(0, counts=(6,), regions=2)
    alone = Targets(targets.boxes, targets.labels, targets.valid, torch.zeros_like(targets.ignore))
    with_regions, without = MaxIoU()(output, targets), MaxIoU()(output, alone)
    assert torch.equal(with_regions.positive, without.positive)
    assert torch.equal(with_regions.matched, without.matched)
    assert (with_regions.negative & ~without.negative).sum() == 0
    assert with_regions.negative.sum() < without.negative.sum()


def test_how_much_of_a_prior_an_ignored_region_must_cover():
    output, targets = dense_case(1)
    region = torch.tensor([[[0.0, 0, 64, 64]]] * 2)
    nothing = torch.zeros(2, 1, dtype=torch.bool)
    targets = Targets(region, targets.labels, nothing, ~nothing)
    cut = output.priors.clamp(0, 64)
    share = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1])
    share = share / ((output.priors[:, 2] - output.priors[:, 0]) ** 2)
    for limit in (0.5, 0.7, 1.0):
        negative = MaxIoU(ignore_overlap=limit)(output, targets).negative[0]
        assert torch.equal(negative, share < limit)
        assert 0 < int(negative.sum()) < 80


def test_padding_changes_nothing():
    output, targets = slow.grid_case(3)
    wide = [
        torch.cat([x, torch.zeros(3, 70, *x.shape[2:], dtype=x.dtype)], 1)
        for x in (targets.boxes, targets.labels, targets.valid, targets.ignore)
    ]
    few, many = MaxIoU()(output, targets), MaxIoU()(output, Targets(*wide))
    assert all(torch.equal(getattr(few, field), getattr(many, field)) for field in FIELDS)


def test_order_of_chunks_keeps_the_first_of_equals():
    """40 equal objects lie in two chunks: the first of all is learned, as without chunks."""
    output, _ = dense_case(1)
    boxes = output.priors[:1].expand(2, 40, 4)
    rows = torch.ones(2, 40, dtype=torch.bool)
    assigned = MaxIoU()(output, Targets(boxes, torch.zeros(2, 40, dtype=torch.int64), rows, ~rows))
    assert assigned.positive[:, 0].all()
    assert not assigned.matched.any()


def test_three_thousand_objects():
    output, targets = dense_case(3000)
    assigned = MaxIoU()(output, targets)
    best = torch.where(targets.valid[0, :, None], _table(output, targets), -1).max(dim=0)
    positive = assigned.positive[0]
    assert torch.equal(assigned.matched[0][positive], best.indices[positive])
    assert torch.equal(assigned.negative[0] & (best.values >= 0.4), torch.zeros(80, dtype=torch.bool))


def _table(output, targets):
    from torchvision.ops import box_iou

    return box_iou(targets.boxes[0], output.priors)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_for_any_number_of_objects_in_a_chunk(backend):
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    assigner = MaxIoU()
    compiled = torch.compile(assigner, fullgraph=True, backend=counting)
    for count in (5, 2, 3, 7, 12, 18, 25, 32):
        output, targets = dense_case(count)
        expected, found = assigner(output, targets), compiled(output, targets)
        assert all(torch.equal(getattr(expected, field), getattr(found, field)) for field in FIELDS), count
    assert len(graphs) <= 2, "the first number of objects, and then any"
    for count in (40, 50, 63):
        output, targets = dense_case(count)
        assert torch.equal(assigner(output, targets).matched, compiled(output, targets).matched)
    assert len(graphs) <= 3


@pytest.mark.parametrize("count", [0, 1, 40])
def test_nothing_waits_for_the_device(count):
    output, targets = dense_case(count)
    with slow.NoWaiting():
        MaxIoU()(output, targets)


def test_the_watch_sees_waiting():
    x = torch.arange(3)
    for waits in (lambda: int(x[0]), x.nonzero, lambda: x[x > 1], lambda: bool(x.any())):
        with pytest.raises(AssertionError, match="waits for the device"), slow.NoWaiting():
            waits()


def test_thresholds_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"negative=0.6, positive=0.5"):
        MaxIoU(0.5, 0.6)
