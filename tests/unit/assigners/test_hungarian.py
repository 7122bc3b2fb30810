"""One query for each object, against transformers' matchers and against trying every pairing."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from torso.assigners import Hungarian
from torso.assigners.lowest import lowest
from torso.boxes.convert import cxcywh_to_xyxy
from torso.boxes.overlap import giou, pairwise_giou
from torso.structures import DenseOutput, QueryOutput, Targets, as_priors

pytestmark = pytest.mark.part("assigner/hungarian")
SIZE, CLASSES = (60, 80), 5


def queries(count: int, background: bool, batch: int = 4, seed: int = 0) -> DenseOutput:
    """What random queries say about pictures that lie anywhere in a padded input."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, count, CLASSES + background, generator=generator, dtype=torch.float64)
    said = torch.rand(batch, count, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.05
    corner = torch.randint(0, 20, (batch, 2), generator=generator)
    frame = torch.cat([corner, corner + torch.randint(20, 40, (batch, 2), generator=generator)], dim=1)
    return as_priors(logits, said, SIZE, background, frame)


def objects(counts: list[int], output: DenseOutput, seed: int = 1) -> tuple[Targets, list[dict[str, Tensor]]]:
    """Objects between rows that are none, and the same as transformers takes them: shares of the picture."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * max(counts) + 1
    assert output.frame is not None
    said = torch.rand(len(counts), rows, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.05
    pixels = as_priors(output.logits, said, SIZE, frame=output.frame).boxes
    labels = torch.randint(0, CLASSES, (len(counts), rows), generator=generator)
    valid = torch.zeros(len(counts), rows, dtype=torch.bool)
    theirs = []
    for i, count in enumerate(counts):
        place = torch.randperm(rows, generator=generator)[:count].sort().values
        valid[i, place] = True
        theirs.append({"class_labels": labels[i, place], "boxes": said[i, place]})
    return Targets(pixels, labels, valid, torch.zeros_like(valid)), theirs


@pytest.mark.parametrize("count", [1, 7, 40])
@pytest.mark.parametrize("kind", ["probability", "focal"])
def test_pairs_equal_transformers(kind: str, count: int) -> None:
    """Also where objects are more than queries, and where pictures have none."""
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    output = queries(count, background=kind == "probability")
    targets, theirs = objects([6, 0, 1, 30], output)
    weights = (2.0, 5.0, 3.0)
    matcher = (HungarianMatcher if kind == "probability" else DeformableDetrHungarianMatcher)(*weights)
    expected = matcher({"logits": output.logits, "pred_boxes": output.deltas}, theirs)
    assigned = Hungarian(*weights, class_cost=kind)(output, targets)  # type: ignore[arg-type]
    for i, (query, number) in enumerate(expected):
        rows = targets.valid[i].nonzero()[:, 0]
        assert assigned.positive[i].nonzero()[:, 0].tolist() == query.tolist()
        assert assigned.matched[i][query].tolist() == rows[number].tolist()
    assert torch.equal(assigned.negative, ~assigned.positive)


@pytest.mark.parametrize("background", [True, False])
def test_no_other_pairing_costs_less(background: bool) -> None:
    output = queries(5, background, batch=2)
    targets, theirs = objects([3, 4], output)
    assigned = Hungarian(1.0, 5.0, 2.0)(output, targets)
    for i in range(2):
        scores = output.class_scores()[i]
        costs = []
        for said, score in zip(output.deltas[i], scores, strict=True):
            row = []
            for box, label in zip(theirs[i]["boxes"], theirs[i]["class_labels"], strict=True):
                apart = float((said - box).abs().sum())
                row.append(-float(score[label]) + 5 * apart - 2 * float(giou(*map(cxcywh_to_xyxy, (said, box)))))
            costs.append(row)
        objects_there = range(len(costs[0]))
        least = min(sum(costs[q][o] for o, q in enumerate(order)) for order in permutations(range(5), len(costs[0])))
        number = {int(row): o for o, row in enumerate(targets.valid[i].nonzero()[:, 0])}
        pairs = [(q, number[int(assigned.matched[i, q])]) for q in range(5) if assigned.positive[i, q]]
        assert sorted(o for _, o in pairs) == list(objects_there)
        assert sum(costs[q][o] for q, o in pairs) == pytest.approx(least)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_as_many_pairs_as_there_can_be(count: int) -> None:
    output = queries(100, background=True, batch=1)
    targets, _ = objects([count], output)
    assigned = Hungarian()(output, targets)
    assert int(assigned.positive.sum()) == min(count, 100)
    taken = assigned.matched[assigned.positive]
    assert len(taken.unique()) == len(taken), "one to one"
    assert targets.valid[0, taken].all()


def test_a_query_in_an_ignored_region_is_neither_unless_it_has_an_object() -> None:
    said = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.3, 0.25, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2], [0.5, 0.2, 0.4, 0.2]]])
    output = as_priors(torch.zeros(1, 4, CLASSES), said, (100, 100))
    boxes = torch.tensor([[[10.0, 10, 30, 30], [0, 0, 45, 45]]])
    valid, ignore = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    targets = Targets(boxes, torch.zeros(1, 2, dtype=torch.int64), valid, ignore)
    assigned = Hungarian()(output, targets)
    assert assigned.positive.tolist() == [[True, False, False, False]]
    # The second lies in the region as a whole, the fourth, 30 to 70, with 15 of its 40 columns.
    assert assigned.negative.tolist() == [[False, False, True, True]]
    assert Hungarian(ignore_overlap=0.3)(output, targets).negative.tolist() == [[False, False, True, False]]


def test_queries_that_say_no_number_are_taken_last() -> None:
    output = queries(4, background=True, batch=1)
    targets, _ = objects([3], output)
    output.boxes[0, 1] = torch.nan
    output.logits[0, 2] = torch.inf
    assigned = Hungarian()(output, targets)
    assert int(assigned.positive.sum()) == 3
    assert assigned.positive[0, [0, 3]].all()


def test_padding_is_taken_last() -> None:
    output = queries(6, background=False, batch=1)
    targets, _ = objects([3], output)
    valid = torch.tensor([[True, False, True, False, True, False]])
    assert torch.equal(Hungarian()(output._replace(valid=valid), targets).positive, valid)


def test_several_outputs_are_paired_as_each_alone_with_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = queries(7, background=False), queries(30, background=False, seed=3)
    targets, _ = objects([6, 0, 1, 9], first)
    few = Targets(targets.boxes[:, :4], targets.labels[:, :4], targets.valid[:, :4], targets.ignore[:, :4])
    assigner = Hungarian()
    alone = [assigner(first, targets), assigner(second, few)]
    moved, cpu = [], Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda x: moved.append(x.shape) or cpu(x))
    together = assigner.together([(first, targets), (second, few)])
    assert len(moved) == 1
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.matched, other.matched)
        assert torch.equal(one.positive, other.positive)
        assert torch.equal(one.negative, other.negative)


def test_the_op_keeps_the_contract_of_torch() -> None:
    costs = [torch.rand(2, 5, 3), torch.rand(2, 2, 4, dtype=torch.float64)]
    costs[0][0, :, 1] = torch.inf
    torch.library.opcheck(lowest, (costs,))
    first, _ = lowest(costs)
    assert int((first[0] >= 0).sum()) == 2
    assert 1 not in first[0]


@pytest.mark.parametrize("count", [1, 8])
def test_the_matching_is_one_node_of_one_graph(count: int) -> None:
    output = queries(10, background=True)
    targets, _ = objects([count, 0, 1, 2], output)
    assigner = Hungarian()
    compiled = torch.compile(assigner, fullgraph=True, backend="eager")
    for mine, theirs in zip(compiled(output, targets)[:3], assigner(output, targets)[:3], strict=True):
        assert torch.equal(mine, theirs)


def test_a_matching_without_a_cost_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a cost"):
        Hungarian(0, 0, 0)


def test_generalised_overlap_of_all_pairs_is_that_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        cxcywh_to_xyxy(torch.rand(2, n, 4, generator=generator, dtype=torch.float64)).requires_grad_() for n in (6, 5)
    )
    table = pairwise_giou(first, second)
    each = torch.stack([torch.stack([giou(first[:, i], second[:, j]) for j in range(5)], 1) for i in range(6)], 1)
    torch.testing.assert_close(table, each)
    assert torch.autograd.gradcheck(pairwise_giou, (first[:, :2], second[:, :2]))


def test_all_layers_are_layers_of_one_output() -> None:
    logits, boxes = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 4)
    frame = torch.tensor([[0.0, 0, 10, 20], [5, 2, 30, 40]])
    output = QueryOutput(logits, boxes, (40, 40), False, frame=frame)
    every = output.layers()
    for number in range(3):
        layer, rows = output.layer(number), slice(2 * number, 2 * number + 2)
        assert torch.equal(layer.boxes, every.boxes[rows])
        assert torch.equal(layer.logits, every.logits[rows])
        assert torch.equal(layer.priors, every.priors[rows])
    left, top, right, bottom = output.layer(0).boxes[1, 2]
    x, y, width, height = boxes[0, 1, 2]
    torch.testing.assert_close((left + right) / 2, 5 + 25 * x)
    torch.testing.assert_close(bottom - top, 38 * height)
    torch.testing.assert_close(right - left, 25 * width)
    torch.testing.assert_close((top + bottom) / 2, 2 + 38 * y)
