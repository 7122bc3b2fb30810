"""What crowded pictures cost, and that chunks, padding and the compiler change nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, product
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.unit.assigners import cases
from tests.unit.parts.slow import NoWaiting
from torso.assigners import chunks
from torso.assigners.atss import ATSS
from torso.assigners.center import Center
from torso.assigners.fcos import FCOS
from torso.assigners.grid import Grid
from torso.assigners.scale import Scale
from torso.structures import Targets
from torso.testing import check_assigner, dense_case

part = pytest.mark.part
ASSIGNERS = [
    pytest.param(FCOS, {}, marks=part("assigner/fcos"), id="fcos"),
    pytest.param(FCOS, {"by": "sides", "relax": (0.8, 1.3)}, marks=part("assigner/fcos"), id="fcos by sides"),
    pytest.param(Center, {}, marks=part("assigner/center"), id="center"),
    pytest.param(
        Center,
        {"share": 0.6, "shape": "ellipse", "ring": 2.0, "outer": 0.8, "nearest": True},
        marks=part("assigner/center"),
        id="center with a ring",
    ),
    pytest.param(ATSS, {}, marks=part("assigner/atss"), id="atss"),
    pytest.param(Grid, {"match": "overlap"}, marks=part("assigner/grid"), id="grid by overlap"),
    pytest.param(Grid, {"fits_above": 0.2}, marks=part("assigner/grid"), id="grid by shape"),
    pytest.param(Grid, {"match": "ratio"}, marks=part("assigner/grid"), id="grid by ratio"),
    pytest.param(Grid, {"match": "ratio", "neighbours": 1}, marks=part("assigner/grid"), id="one neighbour"),
    pytest.param(Scale, {}, marks=part("assigner/scale"), id="scale"),
]
every_assigner = pytest.mark.parametrize(("make", "options"), ASSIGNERS)
# Tables of B x CHUNK x P numbers that live at one time, at most; a table of all objects would be 94 of them.
TABLES = 12


def peak(call: Callable[[], Any]) -> int:
    """The most bytes that a call has allocated at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_the_peak_is_what_lives_at_one_time():
    def some():
        for _ in range(4):
            torch.zeros(1000).add_(1)
        kept = torch.zeros(2000)
        return kept + 1

    assert 4 * 4000 <= peak(some) < 4 * 4000 + 100  # and a few numbers of one element


@every_assigner
def test_three_thousand_objects_within_a_stated_bound(make, options):
    output = cases.single(cases.detector_output("points", 1, side=512))
    table = chunks.CHUNK * len(output.priors) * 4
    assert table == 32 * 5376 * 4
    targets = cases.crowd(3000, side=512)
    assigner = make(**options)
    found = []
    assert peak(lambda: found.append(assigner(output, targets))) < TABLES * table
    (assigned,) = found
    assert assigned.positive.sum() > 500
    assert targets.valid[0][assigned.matched[0][assigned.positive[0]]].all()


@every_assigner
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_size_of_a_chunk_changes_nothing(make, options, size, monkeypatch):
    output, targets = cases.scene("anchors", 3, counts=(40, 3), regions=5)
    assigner = make(**options)
    expected = assigner(output, targets)
    assert expected.positive.sum() > 10
    monkeypatch.setattr(chunks, "CHUNK", size)
    cases.check_same(assigner(output, targets), expected)


@every_assigner
def test_padding_changes_nothing(make, options):
    output, targets = cases.scene("points", 4)
    rows = targets.boxes, targets.labels, targets.valid, targets.ignore
    wide = [torch.cat([x, torch.zeros(3, 70, *x.shape[2:], dtype=x.dtype)], 1) for x in rows]
    cases.check_same(make(**options)(output, Targets(*wide)), make(**options)(output, targets))


@every_assigner
def test_an_ignored_region_never_takes_a_prior_from_an_object(make, options):
    output, targets = cases.scene("anchors", 5, regions=3)
    alone = Targets(targets.boxes, targets.labels, targets.valid, torch.zeros_like(targets.ignore))
    with_regions, without = make(**options)(output, targets), make(**options)(output, alone)
    assert torch.equal(with_regions.positive, without.positive)
    assert torch.equal(with_regions.matched, without.matched)
    assert not (with_regions.negative & ~without.negative).any()
    assert with_regions.negative.sum() < without.negative.sum()


@every_assigner
def test_the_contract_of_assigners(make, options):
    check_assigner(make(**options))


@every_assigner
@pytest.mark.parametrize("count", [0, 1, 40])
def test_nothing_waits_for_the_device(make, options, count):
    output, targets = dense_case(count)
    with NoWaiting():
        make(**options)(output, targets)


@every_assigner
def test_one_graph_for_any_number_of_objects_in_a_chunk(make, options):
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("eager")(graph, inputs)

    assigner = make(**options)
    compiled = torch.compile(assigner, fullgraph=True, backend=counting)
    for count in (5, 2, 12, 32):
        output, targets = dense_case(count)
        cases.check_same(compiled(output, targets), assigner(output, targets))
    assert len(graphs) <= 2, "the first number of objects, and then any"


@every_assigner
def test_ignored_priors_of_points_without_area_go_by_their_centre(make, options):
    output, _ = cases.scene("points", 0, counts=(1,))
    middle = chunks.centres(output.priors)
    output = output._replace(priors=torch.cat([middle, middle], dim=1))
    region = Targets(
        torch.tensor([[[10.0, 10, 40, 40]]], dtype=torch.float64),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, 1, dtype=torch.bool),
        torch.ones(1, 1, dtype=torch.bool),
    )
    assigned = make(**options)(output, region)
    within = ((middle > 10) & (middle < 40)).all(dim=1)
    assert torch.equal(assigned.negative[0], ~within)
    assert 0 < int(within.sum()) < len(middle)


@pytest.mark.part("assigner/atss")
def test_the_lowest_of_equals_are_the_first():
    cost = torch.tensor([[3.0, 1, 2, 1, 2, 2], [5, 5, 5, 5, 5, 5], [1, 2, 3, 4, 5, 6]])
    expected = {
        1: [[1], [0], [0]],
        2: [[1, 3], [0, 1], [0, 1]],
        3: [[1, 2, 3], [0, 1, 2], [0, 1, 2]],
        6: [list(range(6))] * 3,
        9: [list(range(6))] * 3,
    }
    for k, rows in expected.items():
        found = chunks.lowest(cost, k)
        assert [row.nonzero().flatten().tolist() for row in found] == rows, k


def test_slices_are_all_rows_in_order():
    for count, batch, priors in product((1, 31, 32, 33, 64, 100), (1, 8), (10, 5_000, 10**6)):
        rows = list(range(count))
        cut = chunks.slices(torch.zeros(batch, count, 4), torch.zeros(1, 4).expand(priors, 4))
        parts = [rows[each] for each in cut]
        assert list(chain.from_iterable(parts)) == rows
        longest = max(len(each) for each in parts)
        assert longest <= chunks.CHUNK
        assert longest <= 4 or longest * batch * priors <= chunks.NUMBERS
