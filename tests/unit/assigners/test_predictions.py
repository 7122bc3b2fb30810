"""What all assigners that look at predictions promise: chunks, memory, graphs, devices, heads of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.assigners import cases
from tests.unit.parts import slow
from torso.assigners import ASSIGNERS, chunks
from torso.structures import DenseOutput, Targets
from torso.testing import check_assigner, dense_case

NAMES = ("sim_ota", "ota", "task_aligned", "paa", "iqdet")
every = pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.part(f"assigner/{n}")) for n in NAMES])


def check_equal(first, second):
    cases.check_same(first, second)
    if first.quality is not None:
        torch.testing.assert_close(first.quality, second.quality)


@every
def test_keeps_the_contract(name):
    check_assigner(ASSIGNERS[name]())


@every
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_the_size_of_a_chunk_changes_nothing(name, chunk, monkeypatch):
    for kind in ("points", "anchors"):
        output, targets = cases.scene(kind, 4)
        same = output._replace(logits=torch.zeros_like(output.logits), boxes=output.priors.expand(3, -1, -1))
        for case in (output, same):  # in the second, ties abound
            expected = ASSIGNERS[name]()(case, targets)
            monkeypatch.setattr(chunks, "CHUNK", chunk)
            check_equal(ASSIGNERS[name]()(case, targets), expected)
            monkeypatch.undo()


@every
def test_padding_changes_nothing(name):
    output, targets = cases.scene("points", 1)
    rows = (targets.boxes, targets.labels, targets.valid, targets.ignore)
    wide = Targets(*(torch.cat([x, x.new_zeros(3, 40, *x.shape[2:])], dim=1) for x in rows))
    check_equal(ASSIGNERS[name]()(output, wide), ASSIGNERS[name]()(output, targets))


def quick(name):
    """With few steps, which a graph holds one after the other: tracing takes as long as there are."""
    return ASSIGNERS[name](**({"steps": 3} if name in ("ota", "paa", "iqdet") else {}))


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest tensor has that any operation makes; a view counts as what it shows."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, list | tuple) else [found]:
            if isinstance(x, torch.Tensor):
                self.most = max(self.most, x.untyped_storage().nbytes() // x.element_size())
        return found


@every
def test_three_thousand_objects_stay_within_the_stated_memory(name):
    output = cases.single(cases.detector_output("points", 1, side=512))  # 5,376 priors
    few, many = (cases.crowd(count, side=512) for count in (chunks.CHUNK, 3000))
    priors = len(output.priors)
    kept = {"sim_ota": 10, "ota": 25 * 3, "task_aligned": 13, "paa": 9 * 3 * 2, "iqdet": 32 * 4 * 2}[name]
    for targets in (few, many):
        objects = targets.boxes.shape[1]
        with Largest() as watch:
            assigned = ASSIGNERS[name]()(output, _single(targets))
        # Room for a padded level beside a table of a chunk; what is kept of a candidate has up to four numbers.
        assert watch.most <= 1.1 * chunks.CHUNK * priors + 4 * objects * kept, watch.most
        assert assigned.positive.any()
        assert objects == chunks.CHUNK or watch.most < 0.1 * objects * priors


def _single(targets: Targets) -> Targets:
    return Targets(targets.boxes.float(), targets.labels, targets.valid, targets.ignore)


@every
@pytest.mark.parametrize("count", [0, 1, 40])
def test_nothing_waits_for_the_device(name, count):
    output, targets = dense_case(count)
    with slow.NoWaiting():
        ASSIGNERS[name]()(output, targets)


@every
def test_one_graph_for_any_number_of_objects_in_a_chunk(name):
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("eager")(graph, inputs)

    assigner = quick(name)
    compiled = torch.compile(assigner, fullgraph=True, backend=counting)
    for count in (5, 2, 18, 32):
        output, targets = dense_case(count)
        check_equal(compiled(output, targets), assigner(output, targets))
    assert len(graphs) <= 2, "the first number of objects, and then any"
    output, targets = dense_case(40)  # two chunks
    check_equal(compiled(output, targets), assigner(output, targets))


@every
def test_compiled_ahead_of_time_it_says_the_same(name):
    torch._dynamo.reset()
    output, targets = dense_case(6)
    assigner = quick(name)
    check_equal(
        torch.compile(assigner, fullgraph=True, backend="aot_eager")(output, targets), assigner(output, targets)
    )


@every
def test_a_softmax_with_background_is_read_without_it(name):
    """Of a class and the background a softmax says what a sigmoid says of their difference."""
    output, targets = cases.scene("points", 2)
    one = Targets(targets.boxes, torch.zeros_like(targets.labels), targets.valid, targets.ignore)
    logits = output.logits[..., :1]
    pair = torch.cat([logits + 0.5, torch.full_like(logits, 0.5)], dim=-1)
    check_equal(
        ASSIGNERS[name]()(output._replace(logits=pair, background=True), one),
        ASSIGNERS[name]()(output._replace(logits=logits), one),
    )


@every
def test_quality_is_a_share_and_nothing_where_nothing_is_learned(name):
    for seed in range(3):
        assigned = ASSIGNERS[name]()(*cases.scene("anchors", seed))
        if assigned.quality is None:
            continue
        assert ((assigned.quality >= 0) & (assigned.quality <= 1)).all()
        assert not assigned.quality[~assigned.positive].any()


@every
def test_extreme_predictions_leave_everything_defined(name):
    """Scores of 0 and 1, boxes without area and far away: every prior learns one thing, or none."""
    output, targets = cases.scene("points", 5)
    logits = torch.where(output.logits > 0, 1e3, -1e3)
    boxes = output.boxes.clone()
    boxes[:, ::3] = 0
    boxes[:, 1::3] *= 1e6
    for case in (
        output._replace(logits=logits),
        output._replace(boxes=boxes),
        cases.single(output._replace(boxes=boxes)),
    ):
        assigned = ASSIGNERS[name]()(case, targets)
        assert not (assigned.positive & assigned.negative).any()
        assert targets.valid.gather(1, assigned.matched)[assigned.positive].all()
        if assigned.quality is not None:
            assert ((assigned.quality >= 0) & (assigned.quality <= 1)).all()


@every
def test_objects_without_area_learn_nothing(name):
    output, _ = cases.scene("points", 0, counts=(1,))
    boxes = torch.tensor([[[20.0, 20, 20, 40], [30, 30, 30, 30]]], dtype=torch.float64)
    yes = torch.ones(1, 2, dtype=torch.bool)
    assigned = ASSIGNERS[name]()(output, Targets(boxes, torch.zeros(1, 2, dtype=torch.int64), yes, ~yes))
    assert not assigned.positive.any()
    assert assigned.negative.all()


@every
def test_a_level_with_fewer_priors_than_candidates(name):
    """A picture of 32 px has one prior on the last level."""
    output = cases.detector_output("points", 1, side=32)
    assert output.counts == (16, 4, 1)
    targets = cases.crowd(3, side=32)
    assigned = ASSIGNERS[name]()(output, targets)
    assert assigned.positive.any()


def test_a_watch_of_memory_sees_a_table():
    with Largest() as watch:
        torch.zeros(30, 1)[:, None] + torch.zeros(40, 1)
    assert watch.most == 1200
    assert isinstance(dense_case(1)[0], DenseOutput)
