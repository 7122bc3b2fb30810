"""Suppression: against a loop a child can follow, and by what must hold for any boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torso.boxes.candidates import best, candidates, first
from torso.boxes.greedy import BLOCK
from torso.boxes.suppress import NMS, SUPPRESSORS, BatchedNMS, Threshold
from torso.structures import Detections


def greedy(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, per_class: bool) -> list[int]:
    """Greedy suppression of one picture as the paper tells it, in exact integers: boxes must be whole numbers."""
    order = sorted((i for i in range(len(scores)) if scores[i] > 0), key=lambda i: (-scores[i].item(), i))
    kept: list[int] = []
    for i in order:
        if all(
            (per_class and labels[i] != labels[j]) or not overlaps(boxes[i].tolist(), boxes[j].tolist(), overlap)
            for j in kept
        ):
            kept.append(i)
    return kept


def overlaps(a: list[float], b: list[float], overlap: float) -> bool:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return union > 0 and shared > overlap * union


@st.composite
def scenes(draw: st.DrawFn, most: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """[1, K] boxes on a coarse grid with few scores and classes: overlaps, duplicates and ties are the rule."""
    count = draw(st.integers(0, most))
    rows = []
    for _ in range(count):
        x, y, w, h = (draw(st.integers(low, high)) for low, high in ((0, 8), (0, 8), (1, 8), (1, 8)))
        rows.append([x, y, x + w, y + h])
    scores = [draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])) for _ in range(count)]
    labels = [draw(st.integers(0, 2)) for _ in range(count)]
    return (
        torch.tensor(rows, dtype=torch.float32).reshape(1, count, 4),
        torch.tensor(scores).reshape(1, count),
        torch.tensor(labels, dtype=torch.int64).reshape(1, count),
    )


def crowd(batch: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random boxes whose corners are whole and whose scores repeat."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 100, (batch, count, 2), generator=generator)
    side = torch.randint(1, 40, (batch, count, 2), generator=generator)
    scores = torch.randint(0, 50, (batch, count), generator=generator) / 50
    labels = torch.randint(0, 4, (batch, count), generator=generator)
    return torch.cat([low, low + side], dim=-1).float(), scores, labels


def rows(found: Detections, picture: int = 0) -> list[tuple[float, ...]]:
    """The detections of a picture as plain numbers."""
    n = int(found.valid[picture].sum())
    assert found.valid[picture, :n].all(), "detections come before padding"
    table = torch.cat([found.boxes[picture], found.scores[picture, :, None], found.labels[picture, :, None]], dim=1)
    assert not table[n:].any(), "padding is zeros"
    return [tuple(row) for row in table[:n].tolist()]


@pytest.mark.part("suppress/nms")
@pytest.mark.part("suppress/batched_nms")
@settings(max_examples=300, deadline=None)
@given(scene=scenes(), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), most=st.integers(1, 6), both=st.booleans())
def test_equals_the_plain_loop(scene, overlap, most, both):
    boxes, scores, labels = scene
    part = BatchedNMS if both else NMS
    expected = greedy(boxes[0], scores[0], labels[0], overlap, per_class=both)[:most]
    found = rows(part(overlap, most)(boxes, scores, labels))
    assert found == [(*boxes[0, i].tolist(), scores[0, i].item(), labels[0, i].item()) for i in expected]


@pytest.mark.part("suppress/nms")
@settings(max_examples=100, deadline=None)
@given(scene=scenes(), both=st.booleans())
def test_suppressing_the_answer_again_changes_nothing(scene, both):
    part = (BatchedNMS if both else NMS)(0.5, 20)
    once = part(*scene)
    assert rows(part(once.boxes, once.scores, once.labels)) == rows(once)


@pytest.mark.part("suppress/batched_nms")
@settings(max_examples=100, deadline=None)
@given(scene=scenes(), seed=st.integers(0, 1000), both=st.booleans())
def test_the_order_of_candidates_does_not_matter(scene, seed, both):
    boxes, scores, labels = scene
    count = scores.shape[1]
    scores = (scores > 0) * (scores + torch.arange(count) / 1000)  # ties are decided by the order, so no ties here
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    part = (BatchedNMS if both else NMS)(0.5, 20)
    assert rows(part(boxes, scores, labels)) == rows(part(boxes[:, order], scores[:, order], labels[:, order]))


@pytest.mark.part("suppress/nms")
@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("most", [50, 1500])
@pytest.mark.parametrize("part", [NMS, BatchedNMS])
def test_blocks_do_not_show(count, most, part, monkeypatch):
    boxes, scores, labels = crowd(2, count)
    boxes[0, : count // 2], scores[0, : count // 2] = boxes[0, 0], 2.0  # the first picture fills its answer late
    in_blocks = part(0.6, most)(boxes, scores, labels)
    monkeypatch.setattr("torso.boxes.greedy.BLOCK", 10 * BLOCK)
    for one, other in zip(in_blocks, part(0.6, most)(boxes, scores, labels), strict=True):
        assert torch.equal(one, other)


@pytest.mark.part("suppress/nms")
def test_a_long_chain_is_settled():
    # Each box overlaps only its neighbours, so every second one stays: the fixed point needs as many rounds as boxes.
    left = torch.arange(100.0) * 4
    boxes = torch.stack([left, torch.zeros(100), left + 10, torch.ones(100)], dim=1)[None]
    found = NMS(0.4, 100)(boxes, torch.linspace(1, 0.5, 100)[None], torch.zeros(1, 100, dtype=torch.int64))
    assert [row[0] for row in rows(found)] == left[::2].tolist()


@pytest.mark.part("suppress/nms")
@pytest.mark.parametrize("name", list(SUPPRESSORS))
def test_nothing_one_and_padding(name):
    part = SUPPRESSORS[name](max_detections=5)
    empty = part(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64))
    padding = part(torch.rand(2, 7, 4), torch.zeros(2, 7), torch.ones(2, 7, dtype=torch.int64))
    for found in (empty, padding):
        assert found.boxes.shape == (2, 5, 4)
        assert not any(tensor.any() for tensor in found)
    one = part(torch.tensor([[[1.0, 2, 3, 4]]]), torch.tensor([[0.5]]), torch.tensor([[3]]))
    assert rows(one) == [(1, 2, 3, 4, 0.5, 3)]


@pytest.mark.part("suppress/batched_nms")
def test_classes_leave_each_other_alone():
    box = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]])
    scores, labels = torch.tensor([[0.3, 0.9, 0.6]]), torch.tensor([[1, 0, 0]])
    assert [row[4:] for row in rows(BatchedNMS(0.5, 5)(box, scores, labels))] == [
        (pytest.approx(0.9), 0),
        (pytest.approx(0.3), 1),
    ]
    assert len(rows(NMS(0.5, 5)(box, scores, labels))) == 1


@pytest.mark.part("suppress/nms")
def test_pictures_of_a_batch_leave_each_other_alone():
    scene = crowd(3, 200)
    whole = NMS(0.5, 50)(*scene)
    for picture in range(3):
        alone = NMS(0.5, 50)(*(tensor[picture : picture + 1] for tensor in scene))
        assert rows(whole, picture) == rows(alone)


@pytest.mark.part("suppress/nms")
def test_overlap_is_compared_as_the_number_that_was_typed():
    # IoU 3/10: in float32 that is above 0.3, and float32 rounds 0.3 up to just this number.
    boxes = torch.tensor([[[0.0, 0, 10, 1], [0, 0, 3, 1]]])
    scene = (boxes, torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, dtype=torch.int64))
    assert len(rows(NMS(0.3, 5)(*scene))) == 1
    assert len(rows(NMS(0.3000001, 5)(*scene))) == 2


@pytest.mark.part("suppress/threshold")
def test_threshold_keeps_the_best_above_it():
    boxes, scores, labels = crowd(1, 40)
    found = rows(Threshold(max_detections=10, score=0.5)(boxes, scores, labels))
    order = sorted((i for i in range(40) if scores[0, i] > 0.5), key=lambda i: (-scores[0, i].item(), i))[:10]
    assert found == [(*boxes[0, i].tolist(), scores[0, i].item(), labels[0, i].item()) for i in order]


@pytest.mark.parametrize(
    "arguments", [{"max_detections": 0}, {"overlap": 1.5}, {"overlap": -0.1}], ids=lambda a: next(iter(a))
)
def test_senseless_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        NMS(**arguments)


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
    found = candidates(scores, boxes, priors, threshold=0.25, topk=topk, total=total)
    length = min(topk * len(priors), total or topk * len(priors))
    assert [tuple(tensor.shape) for tensor in found] == [(2, length, 4), (2, length), (2, length)]
    for picture in range(2):
        points, expected, start = scores[picture], [], 0
        for count in priors:
            pairs = [(p, c) for p in range(start, start + count) for c in range(classes)]
            expected += best_of(pairs, points, topk, 0.25)
            start += count
        if total is not None:
            expected = best_of(expected, points, total, 0.25)
        said = [
            (*box, score, label)
            for box, score, label in zip(*(tensor[picture].tolist() for tensor in found), strict=True)
            if score > 0
        ]
        assert said == [(*boxes[picture, p].tolist(), scores[picture, p, c].item(), c) for p, c in expected]


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


def test_first_and_best():
    assert first(torch.tensor([[False, True, True, False, True]]), 2).tolist() == [[1, 2]]
    assert first(torch.tensor([[False, True, False]]), 2).tolist() == [[1, 3]]
    assert best(torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.1]]), 3).tolist() == [[0, 1, 2]]


class Answer(torch.nn.Module):
    """Candidates of two levels and what a suppressor makes of them."""

    def __init__(self, suppress: torch.nn.Module) -> None:
        super().__init__()
        self.suppress = suppress

    def forward(self, scores: Tensor, boxes: Tensor) -> Detections:
        counts = (scores.shape[1] - 16, 16)
        return self.suppress(*candidates(scores, boxes, counts, topk=40))


def dense(batch: int, priors: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(priors)
    scores = torch.randint(0, 20, (batch, priors, classes), generator=generator) / 20
    return scores, crowd(batch, priors)[0]


@pytest.mark.part("suppress/nms")
@pytest.mark.part("suppress/batched_nms")
@pytest.mark.part("suppress/threshold")
@pytest.mark.parametrize("block", [BLOCK, 32], ids=["one", "blocks"])
@pytest.mark.parametrize("name", list(SUPPRESSORS))
def test_exports_for_any_batch_and_size(name, block, monkeypatch):
    monkeypatch.setattr("torso.boxes.greedy.BLOCK", block)
    part = Answer(SUPPRESSORS[name](max_detections=30))
    batch, priors = torch.export.Dim("batch", min=1), torch.export.Dim("priors", min=18)
    shapes = ({0: batch, 1: priors}, {0: batch, 1: priors})
    exported = torch.export.export(part, dense(2, 90), dynamic_shapes=shapes).module()
    for inputs in (dense(2, 90), dense(1, 20), dense(3, 333)):
        for one, other in zip(exported(*inputs), part(*inputs), strict=True):
            assert torch.equal(one, other)


@pytest.mark.part("suppress/nms")
@pytest.mark.parametrize("block", [BLOCK, 32], ids=["one", "blocks"])
@pytest.mark.parametrize("name", list(SUPPRESSORS))
def test_compiles_as_one_graph(name, block, monkeypatch):
    monkeypatch.setattr("torso.boxes.greedy.BLOCK", block)
    torch.compiler.reset()  # one function is compiled eight times at most
    part, inputs = Answer(SUPPRESSORS[name](max_detections=30)), dense(2, 90)
    compiled = torch.compile(part, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(*inputs), part(*inputs), strict=True):
        assert torch.equal(one, other)
