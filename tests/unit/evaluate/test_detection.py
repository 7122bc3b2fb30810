"""Matching, confusion matrix and thresholds of a detector, by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.evaluate.worlds import make_index, make_predictions, random_world
from torso.evaluate import confusion, detection
from torso.evaluate.matching import count_coco, find_pairs, ignored, overlaps


@pytest.mark.part("metric/iou")
def test_overlap_gold():
    one, other = np.array([[10.0, 10, 30, 30]]), np.array([[20.0, 20, 40, 40]])
    assert overlaps(one, other, np.array([False]))[0] == pytest.approx(1 / 7, abs=1e-15)
    assert overlaps(one, other, np.array([True]))[0] == pytest.approx(1 / 4, abs=1e-15)  # inside a crowd
    empty = np.array([[5.0, 5, 5, 5]])
    assert overlaps(empty, empty, np.array([False]))[0] == 0  # not NaN


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pairs_equal_a_plain_loop(seed):
    index, predictions = random_world(seed)
    expected = set()
    for k in range(len(predictions)):
        for t in range(*index.objects(int(predictions.image[k])).indices(len(index.labels))):
            amount = overlaps(predictions.boxes[k : k + 1], index.boxes[t : t + 1], index.crowd[t : t + 1])[0]
            if index.labels[t] == predictions.labels[k] and amount >= 0.5:
                expected.add((k, t))
    pairs = find_pairs(index, predictions, 0.5)
    assert set(zip(pairs.detection.tolist(), pairs.target.tolist(), strict=True)) == expected


@pytest.mark.part("metric/detection_confusion")
def test_confusion_by_hand():
    index = make_index(
        [
            [0, 0, 0, 0, 10, 10],  # found
            [0, 1, 20, 0, 30, 10],  # taken for c
            [0, 2, 40, 0, 50, 10],  # missed
            [0, 0, 60, 0, 70, 10],  # difficult, found twice
            [1, 1, 0, 0, 100, 100],  # crowd with two boxes in it
            [1, 0, 150, 150, 160, 160],  # said, but too unsure
        ],
        crowd=[4],
        difficult=[3],
    )
    predictions = make_predictions(
        [
            [0, 0, 0.9, 0, 0, 10, 10],
            [0, 0, 0.8, 0, 0, 10, 9],  # the same object again: invented
            [0, 2, 0.7, 20, 0, 30, 10],
            [0, 0, 0.6, 60, 0, 70, 10],
            [0, 0, 0.6, 60, 0, 70, 9],
            [1, 1, 0.5, 10, 10, 20, 20],
            [1, 0, 0.5, 30, 30, 40, 40],  # another class inside the crowd: counts neither way too
            [1, 2, 0.4, 180, 180, 190, 190],  # nothing there
            [1, 0, 0.1, 150, 150, 160, 160],
        ]
    )
    expected = [
        [1, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [1, 0, 1, 0],
    ]
    assert confusion.of_detections(index, predictions, threshold=0.25).tolist() == expected
    surer = confusion.of_detections(index, predictions, threshold=0.85)
    assert surer.tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


@pytest.mark.part("metric/detection_confusion")
def test_confusion_largest_overlap_first_and_right_class_on_ties():
    index = make_index([[0, 0, 0, 0, 10, 10], [0, 1, 0, 0, 10, 10]])
    both = make_predictions([[0, 1, 0.9, 0, 0, 10, 10], [0, 0, 0.3, 0, 0, 10, 10]])
    assert confusion.of_detections(index, both).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    one = make_index([[0, 0, 0, 0, 10, 10]])
    worse_is_surer = make_predictions([[0, 1, 0.9, 0, 0, 10, 8], [0, 0, 0.3, 0, 0, 10, 10]])
    assert confusion.of_detections(one, worse_is_surer).tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0, 1, 0, 0]]


@pytest.mark.part("metric/detection_confusion")
@pytest.mark.parametrize("seed", range(30))
def test_confusion_counts_every_object_and_box_once(seed):
    index, predictions = random_world(seed, difficult=True)
    table = confusion.of_detections(index, predictions, threshold=0.3)
    objects = np.bincount(index.labels[~ignored(index)], minlength=len(index.classes))
    assert table[:-1].sum(axis=1).tolist() == objects.tolist()
    said = np.bincount(predictions.labels[predictions.scores >= 0.3], minlength=len(index.classes))
    assert (table[:, :-1].sum(axis=0) <= said).all()
    if not ignored(index).any():
        assert table[:, :-1].sum(axis=0).tolist() == said.tolist()
    assert table[-1, -1] == 0


def test_threshold_is_where_f1_is_best():
    """Objects 2; by falling score: right, wrong, right, wrong."""
    index = make_index([[0, 0, 0, 0, 10, 10], [0, 0, 50, 0, 60, 10]], classes=("a", "b"))
    predictions = make_predictions(
        [
            [0, 0, 0.9, 0, 0, 10, 10],
            [0, 0, 0.8, 100, 0, 110, 10],
            [0, 0, 0.6, 50, 0, 60, 10],
            [0, 0, 0.2, 120, 0, 130, 10],
        ]
    )
    result = detection.evaluate(index, predictions)
    assert result.threshold == 0.6  # F1: 2/3, 1/2, 4/5, 2/3
    assert (result.precision, result.recall, result.f1) == pytest.approx((2 / 3, 1.0, 0.8))
    row = result.per_class[0]
    assert (row["precision"], row["recall"], row["F1"], row["threshold"]) == pytest.approx((2 / 3, 1.0, 0.8, 0.6))
    assert result.curves[0].recall.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert result.confusion.tolist() == [[2, 0, 0], [0, 0, 0], [1, 0, 0]]
    empty = result.per_class[1]
    assert empty["objects"] == 0
    assert all(np.isnan(empty[key]) for key in ("AP", "AP50", "AR", "precision", "recall", "F1"))
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["per_class"][1]["AP"] is None


def test_equal_scores_stand_or_fall_together():
    """Of five boxes at 0.5 the first is right: a threshold cannot keep it and leave the others."""
    index = make_index([[0, 0, 0, 0, 10, 10], [0, 0, 20, 0, 30, 10]], classes=("a",))
    rows = [[0, 0, 0.9, 0, 0, 10, 10], [0, 0, 0.5, 20, 0, 30, 10]]
    rows += [[0, 0, 0.5, 50 + 10 * place, 0, 58 + 10 * place, 10] for place in range(4)]
    result = detection.evaluate(index, make_predictions(rows))
    assert result.threshold == 0.9  # F1 is 2/3 there, and 4/8 at 0.5
    assert result.f1 == pytest.approx(2 / 3)


def test_difficult_counts_neither_way():
    """Missing it costs nothing, finding it gives nothing, and a second box on it is wrong, as COCO has it."""
    objects = [[0, 0, 0, 0, 10, 10], [0, 0, 50, 0, 60, 10]]
    index = make_index(objects, difficult=[1], classes=("a",))
    right, on_difficult = [0, 0, 0.5, 0, 0, 10, 10], [0, 0, 0.9, 50, 0, 60, 10]
    assert detection.evaluate(index, make_predictions([right])).summary["AP"] == pytest.approx(1)
    assert detection.evaluate(index, make_predictions([right, on_difficult])).summary["AP"] == pytest.approx(1)
    twice = detection.evaluate(index, make_predictions([right, on_difficult, on_difficult]))
    assert twice.summary["AP"] == pytest.approx(0.5)
    counted = count_coco(index, make_predictions([right, on_difficult]))
    assert counted.correct.tolist() == [True]


def test_ids_of_any_kind_do_not_matter():
    index, predictions = random_world(3)
    expected = detection.evaluate(index, predictions).summary
    index.image_ids[:] = [f"图 {row}" for row in range(len(index))]
    assert detection.evaluate(index, predictions).summary == pytest.approx(expected, nan_ok=True)
