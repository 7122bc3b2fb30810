"""Soft, cluster and matrix suppression: against plain loops from their papers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.suppress.scenes import crowd, expected, greedy, iou_of, rows, scenes, smooth, without_numbers
from torso.boxes import soft
from torso.boxes.suppress import NMS, BatchedNMS, ClusterNMS, DIoUNMS, MatrixNMS, SoftNMS


def soft_loop(scene, factor, floor, per_class):
    """Rows and scores of the first picture, as the paper's pseudo code has them."""
    boxes, scores, labels = (tensor[0].tolist() for tensor in scene)
    left = sorted((i for i in range(len(scores)) if scores[i] > floor), key=lambda i: (-scores[i], i))
    found = []
    while left:
        best = max(left, key=lambda i: (scores[i], -left.index(i)))
        left.remove(best)
        found.append((best, scores[best]))
        for i in left:
            if not per_class or labels[i] == labels[best]:
                scores[i] *= factor(iou_of(boxes[best], boxes[i]))
        left = [i for i in left if scores[i] > floor]
    return found


@pytest.mark.part("suppress/soft_nms")
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    linear=st.booleans(),
    both=st.booleans(),
    active=st.sampled_from([1, 3, 384]),
    floor=st.sampled_from([0.001, 0.3]),
)
def test_soft_equals_the_plain_loop(seed, linear, both, active, floor):
    scene = smooth(1, 30, seed)
    part = SoftNMS("linear" if linear else "gaussian", 0.2, 0.3, floor, 40, per_class=both)
    found = soft_loop(
        scene, (lambda x: 1 - x if x > 0.2 else 1.0) if linear else (lambda x: math.exp(-x * x / 0.3)), floor, both
    )
    before, soft.ACTIVE = soft.ACTIVE, active
    try:
        answers = part(*scene), without_numbers(part, scene)
    finally:
        soft.ACTIVE = before
    for answer in answers:
        count = int(answer.valid.sum())
        assert answer.boxes[0, :count].tolist() == [scene[0][0, i].tolist() for i, _ in found]
        assert answer.labels[0, :count].tolist() == [scene[2][0, i].item() for i, _ in found]
        assert answer.scores[0, :count].tolist() == pytest.approx([score for _, score in found], rel=1e-12)


@pytest.mark.part("suppress/soft_nms")
@settings(max_examples=100, deadline=None)
@given(scene=scenes(25), active=st.integers(1, 6), most=st.integers(1, 30), linear=st.booleans())
def test_soft_is_the_same_to_the_bit_in_both_ways_of_working(scene, active, most, linear):
    part = SoftNMS("linear" if linear else "gaussian", max_detections=most)
    before, soft.ACTIVE = soft.ACTIVE, active
    try:
        found = part(*scene)
    finally:
        soft.ACTIVE = before
    for one, other in zip(found[:4], without_numbers(part, scene)[:4], strict=True):
        assert torch.equal(one, other)


@pytest.mark.part("suppress/soft_nms")
@pytest.mark.parametrize("count", [500, 5000])
def test_soft_looks_at_as_many_as_it_must(count):
    scene = crowd(1, count)  # dense and full of ties: nearly every score falls
    part = SoftNMS(max_detections=200, per_class=False)
    for one, other in zip(part(*scene)[:4], without_numbers(part, scene)[:4], strict=True):
        assert torch.equal(one, other)


@pytest.mark.part("suppress/soft_nms")
@pytest.mark.parametrize("active", [1, 2, 384])
def test_of_equal_lowered_scores_the_one_that_was_better_at_first_comes_first(active, monkeypatch):
    # The third touches the first, the fourth the second: both fall from 0.8 to 0.4, one later than the other.
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 0, 60, 10], [0, 0, 10, 5], [50, 0, 60, 5]]])
    scene = boxes, torch.tensor([[1.0, 0.9, 0.8, 0.8]]), torch.zeros(1, 4, dtype=torch.int64)
    monkeypatch.setattr(soft, "ACTIVE", active)
    found = rows(SoftNMS("linear", max_detections=4)(*scene))
    assert [row[:4] for row in found] == [tuple(box) for box in boxes[0].tolist()]
    assert found[2][4] == found[3][4]


@pytest.mark.part("suppress/soft_nms")
def test_soft_lowers_what_is_overlapped_and_nothing_else():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60], [0, 0, 10, 10]]])
    scene = boxes, torch.tensor([[0.9, 0.8, 0.3, 0.7]]), torch.tensor([[0, 0, 0, 1]])
    found = SoftNMS(sigma=0.5, max_detections=9)(*scene)
    assert found.scores[0, :4].tolist() == pytest.approx([0.9, 0.7, 0.8 * math.exp(-0.5), 0.3])


@pytest.mark.part("suppress/cluster_nms")
def test_cluster_nms_is_greedy_nms_on_a_thousand_sets():
    generator = torch.Generator().manual_seed(0)
    for seed in range(1000):
        count = int(torch.randint(1, 80, (1,), generator=generator))
        scene = crowd(1, count, seed) if seed % 2 else smooth(1, count, seed)
        limit, both = 0.1 * (seed % 9), seed % 3 > 0
        cluster = ClusterNMS(limit, max_detections=80, per_class=both)
        theirs = (BatchedNMS if both else NMS)(limit, 80)(*scene)
        for one, other in zip(cluster(*scene)[:4], theirs[:4], strict=True):
            assert torch.equal(one, other), seed


@pytest.mark.part("suppress/cluster_nms")
def test_cluster_nms_by_distance_is_diou_nms():
    scene = smooth(2, 200)
    for one, other in zip(ClusterNMS(0.4, distance=True)(*scene)[:4], DIoUNMS(0.4)(*scene)[:4], strict=True):
        assert torch.equal(one, other)


@pytest.mark.part("suppress/cluster_nms")
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cluster_penalty_is_a_product_over_the_better_boxes_that_stay(seed):
    scene = smooth(1, 30, seed)
    boxes, scores, labels = (tensor[0].tolist() for tensor in scene)
    kept = greedy(*(tensor[0] for tensor in scene), lambda a, b: iou_of(a, b) > 0.4, per_class=True)
    lowered = []
    for i in range(30):
        over = [iou_of(boxes[i], boxes[j]) for j in kept if scores[j] > scores[i] and labels[j] == labels[i]]
        lowered.append(scores[i] * math.prod(math.exp(-x * x / 0.2) for x in over))
    found = rows(ClusterNMS(0.4, "penalty", 40, score=0.05)(*scene))
    order = sorted((i for i in range(30) if lowered[i] > 0.05), key=lambda i: -lowered[i])
    assert [row[:4] for row in found] == [tuple(boxes[i]) for i in order]
    assert [row[4] for row in found] == pytest.approx([lowered[i] for i in order], rel=1e-9)


@pytest.mark.part("suppress/cluster_nms")
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cluster_weighting_is_the_mean_of_the_box_and_those_it_beats(seed):
    scene = smooth(1, 30, seed)
    boxes, scores, labels = (tensor[0].tolist() for tensor in scene)
    kept = greedy(*(tensor[0] for tensor in scene), lambda a, b: iou_of(a, b) > 0.4, per_class=True)
    found = rows(ClusterNMS(0.4, "weighted", 40)(*scene))
    assert [row[4:] for row in found] == [(scores[i], labels[i]) for i in kept]
    for row, j in zip(found, kept, strict=True):
        cluster = [(scores[j], boxes[j])]
        for i in range(30):
            overlap = iou_of(boxes[i], boxes[j])
            if scores[i] < scores[j] and labels[i] == labels[j] and overlap > 0.4:
                cluster.append((scores[i] * overlap, boxes[i]))
        weight = sum(w for w, _ in cluster)
        assert row[:4] == pytest.approx([sum(w * box[k] for w, box in cluster) / weight for k in range(4)], rel=1e-9)


@pytest.mark.part("suppress/cluster_nms", "suppress/matrix_nms")
@pytest.mark.parametrize("part", [ClusterNMS, MatrixNMS])
def test_topk_leaves_the_best(part):
    boxes, scores, labels = smooth(1, 60)
    best = scores.topk(20, dim=1).indices
    some = torch.zeros_like(scores).scatter(1, best, scores.gather(1, best))
    assert rows(part(topk=20)(boxes, scores, labels)) == rows(part(topk=500)(boxes, some, labels))


@pytest.mark.part("suppress/matrix_nms")
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), linear=st.booleans(), both=st.booleans())
def test_matrix_nms_equals_the_plain_loop(seed, linear, both):
    scene = smooth(1, 30, seed)
    boxes, scores, labels = (tensor[0].tolist() for tensor in scene)
    order = sorted(range(30), key=lambda i: -scores[i])

    def over(i, j):
        return iou_of(boxes[i], boxes[j]) if not both or labels[i] == labels[j] else 0.0

    def f(x):
        return 1 - x if linear else math.exp(-x * x / 0.4)

    lowered = {}
    for place, j in enumerate(order):
        factor = 1.0
        for other, i in enumerate(order[:place]):
            worst = max((over(k, i) for k in order[:other]), default=0.0)
            factor = min(factor, f(over(i, j)) / f(worst))
        lowered[j] = scores[j] * factor
    found = rows(MatrixNMS("linear" if linear else "gaussian", 0.4, 0.1, 40, per_class=both)(*scene))
    order = sorted((i for i in range(30) if lowered[i] > 0.1), key=lambda i: -lowered[i])
    assert [row[:4] for row in found] == [tuple(boxes[i]) for i in order]
    assert [row[4] for row in found] == pytest.approx([lowered[i] for i in order], rel=1e-9)


@pytest.mark.part("suppress/matrix_nms")
@pytest.mark.parametrize("count", [2, 3, 5])
def test_matrix_nms_of_the_same_box_again_and_again(count):
    # The second and all later ones are wholly the first: linear takes their whole score, and 0 / 0 is nowhere.
    scene = (
        torch.tensor([[[0.0, 0, 9, 9]] * count]),
        torch.linspace(0.9, 0.5, count)[None],
        torch.zeros(1, count).long(),
    )
    assert len(rows(MatrixNMS("linear")(*scene))) == 1
    gaussian = MatrixNMS("gaussian", 0.5)(*scene).scores[0, :count]
    torch.testing.assert_close(gaussian[1:], torch.linspace(0.9, 0.5, count)[1:] * math.exp(-2))


@pytest.mark.part("suppress/soft_nms", "suppress/cluster_nms", "suppress/matrix_nms")
@pytest.mark.parametrize("part", [SoftNMS, ClusterNMS, MatrixNMS])
def test_senseless_arguments_are_refused(part):
    for arguments in ({"method": "hard"}, {"sigma": 0.0}, {"score": 1.5}, {"max_detections": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            part(**arguments)


@pytest.mark.part("suppress/soft_nms")
@settings(max_examples=60, deadline=None)
@given(scene=scenes(15))
def test_soft_scores_never_rise_and_the_best_of_all_stays(scene):
    found = rows(SoftNMS(max_detections=20)(*scene))
    before = expected(scene, range(scene[1].shape[1]))
    assert all(any(row[:4] == old[:4] and row[4] <= old[4] for old in before) for row in found)
    if found:
        assert found[0][4] == scene[1].max()
