"""Greedy suppression: against a loop a child can follow, and by what must hold for any boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.suppress.scenes import (
    crowd,
    expected,
    greedy,
    iou_of,
    overlaps_by,
    rows,
    scenes,
    smooth,
    without_numbers,
)
from torso.boxes.greedy import BLOCK
from torso.boxes.suppress import NMS, BatchedNMS, DIoUNMS, IoSNMS, Threshold

PARTS = [NMS, BatchedNMS, DIoUNMS]


@pytest.mark.part("suppress/nms")
@pytest.mark.part("suppress/batched_nms")
@settings(max_examples=300, deadline=None)
@given(scene=scenes(), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), most=st.integers(1, 6), both=st.booleans())
def test_equals_the_plain_loop(scene, overlap, most, both):
    kept = greedy(*(tensor[0] for tensor in scene), overlaps_by(overlap), per_class=both)[:most]
    part = (BatchedNMS if both else NMS)(overlap, most)
    assert rows(part(*scene)) == expected(scene, kept)
    assert rows(without_numbers(part, scene)) == expected(scene, kept)


def diou(a, b):
    apart = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    far = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    return iou_of(a, b) - apart / far


@pytest.mark.part("suppress/diou_nms")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), overlap=st.sampled_from([0.0, 0.2, 0.45, 0.7]), both=st.booleans())
def test_diou_equals_the_plain_loop(seed, overlap, both):
    scene = smooth(1, 25, seed)
    kept = greedy(*(tensor[0] for tensor in scene), lambda a, b: diou(a, b) > overlap, per_class=both)
    part = DIoUNMS(overlap, 30, per_class=both)
    assert rows(part(*scene)) == expected(scene, kept)
    assert rows(without_numbers(part, scene)) == expected(scene, kept)


@pytest.mark.part("suppress/diou_nms")
@settings(max_examples=60, deadline=None)
@given(sides=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=12))
def test_diou_is_iou_where_centres_coincide(sides):
    boxes = torch.tensor([[[-w, -h, w, h] for w, h in sides]], dtype=torch.float32)
    scene = boxes, torch.linspace(1, 0.5, len(sides))[None], torch.zeros(1, len(sides), dtype=torch.int64)
    assert rows(DIoUNMS(0.4, 20)(*scene)) == rows(BatchedNMS(0.4, 20)(*scene))


@pytest.mark.part("suppress/diou_nms")
def test_diou_keeps_what_overlaps_with_centres_far_apart():
    # IoU 0.5 (10 of 20), DIoU 0.5 - 25 / 725.
    scene = torch.tensor([[[0.0, 0, 15, 20], [5, 0, 20, 20]]]), torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2).long()
    assert len(rows(BatchedNMS(0.49, 5)(*scene))) == 1
    assert len(rows(DIoUNMS(0.49, 5)(*scene))) == 2
    assert len(rows(DIoUNMS(0.46, 5)(*scene))) == 1


def ios(a, b):
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


@pytest.mark.part("suppress/ios_nms")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), overlap=st.sampled_from([0.0, 0.2, 0.45, 0.7]), both=st.booleans())
def test_suppression_inside_others_equals_the_plain_loop(seed, overlap, both):
    scene = smooth(1, 25, seed)
    kept = greedy(*(tensor[0] for tensor in scene), lambda a, b: ios(a, b) > overlap, per_class=both)
    part = IoSNMS(overlap, 30, per_class=both)
    assert rows(part(*scene)) == expected(scene, kept)
    assert rows(without_numbers(part, scene)) == expected(scene, kept)


@pytest.mark.part("suppress/ios_nms")
def test_half_of_an_object_does_not_stay_beside_the_whole():
    boxes = torch.tensor([[[0.0, 0, 40, 20], [20, 0, 40, 20], [30, 0, 90, 20]]])
    scene = boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3).long()
    assert len(rows(BatchedNMS(0.5, 5)(*scene))) == 3  # IoU 0.5, and 1 / 9
    assert [row[:4] for row in rows(IoSNMS(0.5, 5)(*scene))] == [(0, 0, 40, 20), (30, 0, 90, 20)]


@pytest.mark.part("suppress/nms", "suppress/batched_nms", "suppress/diou_nms")
@settings(max_examples=100, deadline=None)
@given(scene=scenes(20), part=st.sampled_from(PARTS))
def test_what_went_overlaps_something_better_that_stayed(scene, part):
    kept = rows(part(0.5, 40)(*scene))
    for row in expected(scene, range(scene[1].shape[1])):
        if row[4] > 0 and row not in kept:
            better = [other for other in kept if other[4] >= row[4] and (part is NMS or other[5] == row[5])]
            assert any(iou_of(row[:4], other[:4]) > 0.5 for other in better)


@pytest.mark.part("suppress/nms")
@settings(max_examples=100, deadline=None)
@given(scene=scenes(), kind=st.sampled_from(PARTS))
def test_suppressing_the_answer_again_changes_nothing(scene, kind):
    part = kind(0.5, 20)
    once = part(*scene)
    assert rows(part(once.boxes, once.scores, once.labels)) == rows(once)


@pytest.mark.part("suppress/batched_nms")
@settings(max_examples=100, deadline=None)
@given(scene=scenes(), seed=st.integers(0, 1000), kind=st.sampled_from(PARTS))
def test_the_order_of_candidates_does_not_matter(scene, seed, kind):
    boxes, scores, labels = scene
    count = scores.shape[1]
    scores = (scores > 0) * (scores + torch.arange(count) / 1000)  # ties are decided by the order, so no ties here
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    part = kind(0.5, 20)
    assert rows(part(boxes, scores, labels)) == rows(part(boxes[:, order], scores[:, order], labels[:, order]))


@pytest.mark.part("suppress/nms")
@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("most", [50, 1500])
@pytest.mark.parametrize("part", PARTS)
def test_blocks_do_not_show(count, most, part, monkeypatch):
    boxes, scores, labels = crowd(2, count)
    boxes[0, : count // 2], scores[0, : count // 2] = boxes[0, 0], 2.0  # the first picture fills its answer late
    scene = boxes, scores, labels
    at_hand, in_blocks = part(0.6, most)(*scene), without_numbers(part(0.6, most), scene)
    monkeypatch.setattr("torso.boxes.greedy.BLOCK", 10 * BLOCK)
    whole = without_numbers(part(0.6, most), scene)
    for found in zip(at_hand[:4], in_blocks[:4], whole[:4], strict=True):
        assert torch.equal(found[0], found[2])
        assert torch.equal(found[1], found[2])


@pytest.mark.part("suppress/nms")
def test_a_long_chain_is_settled():
    # Each box overlaps only its neighbours, so every second one stays: the fixed point needs as many rounds as boxes.
    left = torch.arange(100.0) * 4
    boxes = torch.stack([left, torch.zeros(100), left + 10, torch.ones(100)], dim=1)[None]
    scene = boxes, torch.linspace(1, 0.5, 100)[None], torch.zeros(1, 100, dtype=torch.int64)
    for found in (NMS(0.4, 100)(*scene), without_numbers(NMS(0.4, 100), scene)):
        assert [row[0] for row in rows(found)] == left[::2].tolist()


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


@pytest.mark.part("suppress/batched_nms")
def test_classes_whose_numbers_round_together_are_still_two():
    # Boxes so wide that the sweep, which shifts classes apart, rounds the gap between two of them away.
    boxes = torch.tensor([[[-1e30, 0, 1e30, 10], [-1e30, 0, 1e30, 10]]])
    scene = boxes, torch.tensor([[0.9, 0.8]]), torch.tensor([[3, 4]])
    assert len(rows(BatchedNMS(0.5, 5)(*scene))) == 2


@pytest.mark.part("suppress/nms")
@pytest.mark.parametrize("kind", PARTS)
def test_equals_at_the_end_of_what_is_sorted_are_not_lost(kind):
    boxes = torch.arange(2000.0)[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    scores = torch.full((1, 2000), 0.5)
    scores[0, ::7] = 0.9
    scene = boxes[None], scores, torch.zeros(1, 2000, dtype=torch.int64)
    for one, other in zip(kind(0.5, 1500)(*scene)[:4], without_numbers(kind(0.5, 1500), scene)[:4], strict=True):
        assert torch.equal(one, other)


@pytest.mark.part("suppress/nms")
def test_overlap_is_compared_as_the_number_that_was_typed():
    # IoU 3/10: in float32 that is above 0.3, and float32 rounds 0.3 up to just this number.
    boxes = torch.tensor([[[0.0, 0, 10, 1], [0, 0, 3, 1]]])
    scene = (boxes, torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, dtype=torch.int64))
    for limit, count in ((0.3, 1), (0.3000001, 2)):
        assert len(rows(NMS(limit, 5)(*scene))) == count
        assert len(rows(without_numbers(NMS(limit, 5), scene))) == count


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
