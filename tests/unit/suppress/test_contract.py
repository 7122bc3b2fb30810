"""What every suppressor keeps to, whatever it does with the boxes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.suppress.scenes import OF_CANDIDATES, Scene, crowd, fitting, rows, smooth, without_numbers
from torso.boxes.candidates import candidates
from torso.boxes.suppress import SUPPRESSORS
from torso.structures import Detections

# Every way of every suppressor.
WAYS = [(name, {}) for name in OF_CANDIDATES] + [
    ("cluster_nms", {"method": "penalty"}),
    ("cluster_nms", {"method": "weighted", "distance": True}),
    ("diou_nms", {"per_class": False}),
    ("matrix_nms", {"method": "linear"}),
    ("soft_nms", {"method": "linear", "per_class": False}),
    ("variance_voting", {"deltas": "edges"}),
    ("weighted_fusion", {"confidence": "absent_model"}),
]
each_way = pytest.mark.parametrize(
    ("name", "options"), WAYS, ids=["-".join([name, *map(str, options.values())]) for name, options in WAYS]
)


@each_way
def test_nothing_one_and_padding(name, options):
    part = SUPPRESSORS[name](max_detections=5, **options)
    empty = torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64)
    padding = torch.rand(2, 7, 4), torch.zeros(2, 7), torch.ones(2, 7, dtype=torch.int64)
    one = torch.tensor([[[1.0, 2, 3, 4]]]), torch.tensor([[0.5]]), torch.tensor([[3]])
    for call in (lambda scene: part(*scene), lambda scene: without_numbers(part, scene)):
        for found in (call(fitting(part, empty)), call(fitting(part, padding))):
            assert found.boxes.shape == (2, 5, 4)
            assert not any(tensor.any() for tensor in found[:4])
        assert rows(call(fitting(part, one))) == [(1, 2, 3, 4, 0.5, 3)]


@each_way
def test_a_score_that_is_no_number_is_none(name, options):
    part = SUPPRESSORS[name](max_detections=30, **options)
    boxes, scores, labels = fitting(part, crowd(1, 40))
    none, nan = scores.clone(), scores.clone()
    none[0, 1::3], nan[0, 1::3] = 0, torch.nan
    for call in (lambda scene: part(*scene), lambda scene: without_numbers(part, scene)):
        assert rows(call((boxes, nan, labels))) == rows(call((boxes, none, labels)))


@each_way
def test_boxes_without_area_and_without_end_leave_the_others_alone(name, options):
    part = SUPPRESSORS[name](max_detections=60, **options)
    scene = fitting(part, crowd(1, 30))
    boxes, scores, labels = (torch.cat([tensor, tensor[:, :2]], dim=1) for tensor in scene)
    boxes[0, -2, 2:4] = boxes[0, -2, :2]  # no area
    scores[0, -2:] = torch.tensor([0.9, 0.0])
    boxes[0, -1, :4] = torch.inf  # padding, whatever it holds
    found = part(boxes, scores, labels)
    assert found.boxes.isfinite().all()
    alone = part(*scene)
    assert int(found.valid.sum()) == int(alone.valid.sum()) + 1


@each_way
def test_a_box_that_is_no_box_leaves_the_others_alone(name, options):
    part = SUPPRESSORS[name](max_detections=60, **options)
    boxes, scores, labels = fitting(part, crowd(1, 30))
    scores[0, 3] = 0
    without = [row[:4] for row in rows(part(boxes, scores, labels))]
    boxes[0, 3], scores[0, 3] = torch.nan, 0.95
    for found in (part(boxes, scores, labels), without_numbers(part, (boxes, scores, labels))):
        others = [row[:4] for row in rows(found) if row[0] == row[0]]
        assert others == without
        assert len(others) == int(found.valid.sum()) - 1


@each_way
def test_pictures_of_a_batch_leave_each_other_alone(name, options):
    part = SUPPRESSORS[name](max_detections=50, **options)
    scene = fitting(part, smooth(3, 60, dtype=torch.float32))
    scene[1][1, 5:] = 0  # the second picture is done early
    for call in (lambda scene: part(*scene), lambda scene: without_numbers(part, scene)):
        whole = call(scene)
        for picture in range(3):
            alone = call(tuple(tensor[picture : picture + 1] for tensor in scene))
            for one, other in zip(whole[:4], alone[:4], strict=True):
                torch.testing.assert_close(one[picture], other[0])


@each_way
@pytest.mark.parametrize("count", [1, 30, 400])
def test_both_ways_of_working_give_one_answer(name, options, count):
    part = SUPPRESSORS[name](max_detections=50, **options)
    for scene in (fitting(part, crowd(2, count)), fitting(part, smooth(2, count, dtype=torch.float32))):
        for one, other in zip(part(*scene)[:4], without_numbers(part, scene)[:4], strict=True):
            assert torch.equal(one, other)


@each_way
def test_the_order_of_candidates_does_not_matter(name, options):
    part = SUPPRESSORS[name](max_detections=50, **options)
    scene = fitting(part, smooth(1, 70))  # no ties: those are decided by the order
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    for one, other in zip(part(*scene)[:4], part(*(tensor[:, order] for tensor in scene))[:4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", OF_CANDIDATES)
def test_of_equals_the_first_in_memory_comes_first(name):
    part = SUPPRESSORS[name](max_detections=9)
    left = torch.tensor([50.0, 10, 90, 30, 70])
    boxes = torch.stack([left, left, left + 8, left + 8], dim=1)[None]  # they do not touch
    scene = fitting(part, (boxes, torch.full((1, 5), 0.5), torch.zeros(1, 5, dtype=torch.int64)))
    for found in (part(*scene), without_numbers(part, scene)):
        assert [row[0] for row in rows(found)] == pytest.approx(left.tolist())


@pytest.mark.parametrize("name", OF_CANDIDATES)
def test_no_room_for_an_answer_is_refused(name):
    with pytest.raises(ValueError, match="max_detections"):
        SUPPRESSORS[name](max_detections=0)


class Answer(torch.nn.Module):
    """Candidates of two levels and what a suppressor makes of them."""

    def __init__(self, suppress: torch.nn.Module) -> None:
        super().__init__()
        self.suppress = suppress

    def forward(self, scores: Tensor, boxes: Tensor) -> Detections:
        counts = (scores.shape[1] - 16, 16)
        return self.suppress(*candidates(scores, boxes, counts, topk=40))


def dense(part: torch.nn.Module, batch: int, priors: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(priors)
    scores = torch.randint(0, 20, (batch, priors, classes), generator=generator) / 20
    return scores, fitting(part, crowd(batch, priors))[0]


@pytest.mark.parametrize(("name", "block"), [("soft_nms", 256), ("batched_nms", 256), ("batched_nms", 32)])
def test_exports_for_any_batch_and_size(name, block, monkeypatch):
    monkeypatch.setattr("torso.boxes.greedy.BLOCK", block)
    part = SUPPRESSORS[name](max_detections=30)
    batch, priors = torch.export.Dim("batch", min=1), torch.export.Dim("priors", min=18)
    shapes = ({0: batch, 1: priors}, {0: batch, 1: priors})
    exported = torch.export.export(Answer(part), dense(part, 2, 90), dynamic_shapes=shapes, strict=False).module()
    for inputs in (dense(part, 2, 90), dense(part, 1, 20), dense(part, 3, 333)):
        for one, other in zip(exported(*inputs)[:4], Answer(part)(*inputs)[:4], strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("name", "block"), [*((name, 256) for name in OF_CANDIDATES), ("batched_nms", 32)])
def test_compiles_as_one_graph(name, block, monkeypatch):
    monkeypatch.setattr("torso.boxes.greedy.BLOCK", block)
    torch.compiler.reset()  # one function is compiled eight times at most
    part = SUPPRESSORS[name](max_detections=30)
    compiled = torch.compile(Answer(part), fullgraph=True, backend="eager")
    inputs = dense(part, 2, 90)
    for one, other in zip(compiled(*inputs)[:4], Answer(part)(*inputs)[:4], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in OF_CANDIDATES), ("soft_nms", {"method": "linear"})]
)
def test_onnxruntime_answers_the_same(name, options):
    import onnxruntime

    from torso.deploy.onnx import _stable_sort

    part = SUPPRESSORS[name](max_detections=20, **options)

    def scene(batch: int) -> Scene:
        return fitting(part, smooth(batch, 60, dtype=torch.float32))

    shapes = ({0: torch.export.Dim("batch", min=1)},) * 3
    exported = torch.export.export(part, scene(2), dynamic_shapes=shapes, strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and onnxscript
        program = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for batch in (2, 1, 3):
        inputs = scene(batch)
        fed = {each.name: tensor.numpy() for each, tensor in zip(session.get_inputs(), inputs, strict=True)}
        for one, other in zip(session.run(None, fed), part(*inputs)[:4], strict=True):
            torch.testing.assert_close(torch.from_numpy(np.asarray(one)), other, rtol=1e-4, atol=1e-5)
