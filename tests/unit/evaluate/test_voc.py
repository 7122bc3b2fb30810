"""VOC's average precision against a slow reading of the development kit, and by hand."""

import numpy as np
import pytest

from tests.unit.evaluate.worlds import make_index, make_predictions, random_world
from torso.evaluate import voc


def kit(index, predictions, label, eleven_point):
    """VOCevaldet.m in plain loops; whole numbers where the kit compares fractions."""
    objects = [objects_of(index, row, label) for row in range(len(index))]
    positives = sum(not o["skip"] for here in objects for o in here)
    if positives == 0:
        return float("nan")
    rows = sorted(
        (k for k in range(len(predictions)) if predictions.labels[k] == label), key=lambda k: -predictions.scores[k]
    )
    right, wrong, points = 0, 0, []
    for k in rows:
        found = most_overlapped(predictions.boxes[k], objects[int(predictions.image[k])])
        if found is not None and found["skip"]:
            continue
        if found is None or found["det"]:
            wrong += 1
        else:
            found["det"] = True
            right += 1
        points.append((right, wrong))
    if eleven_point:
        reached = [[r / (r + w) for r, w in points if 10 * r >= mark * positives] for mark in range(11)]
        return sum(max(above, default=0.0) for above in reached) / 11
    area, before = 0.0, 0
    for place, (r, _) in enumerate(points):
        area += (r - before) / positives * max(s / (s + w) for s, w in points[place:])
        before = r
    return area


def objects_of(index, row, label):
    return [
        {"box": index.boxes[t], "crowd": index.crowd[t], "skip": index.crowd[t] or index.difficult[t], "det": False}
        for t in range(index.offsets[row], index.offsets[row + 1])
        if index.labels[t] == label
    ]


def most_overlapped(box, candidates):
    """The candidate of largest overlap; None below one half."""
    x1, y1, x2, y2 = box
    best, found = 0.0, None
    for candidate in candidates:
        a1, b1, a2, b2 = candidate["box"]
        wide, high = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
        if wide <= 0 or high <= 0:
            continue
        union = (x2 - x1) * (y2 - y1)
        if not candidate["crowd"]:
            union += (a2 - a1) * (b2 - b1) - wide * high
        if wide * high / union > best:
            best, found = wide * high / union, candidate
    return found if best >= 0.5 else None


@pytest.mark.part("metric/voc07_ap", "metric/voc10_ap")
@pytest.mark.parametrize("eleven_point", [True, False])
@pytest.mark.parametrize("block", range(4))
def test_equals_the_development_kit(block, eleven_point):
    for seed in range(block * 25, block * 25 + 25):
        index, predictions = random_world(seed, crowds=seed % 2 == 0, difficult=True)
        result = voc.evaluate(index, predictions, eleven_point=eleven_point)
        expected = [kit(index, predictions, label, eleven_point) for label in range(len(index.classes))]
        np.testing.assert_allclose(list(result.per_class.values()), expected, atol=1e-12, err_msg=f"seed {seed}")
        known = [value for value in expected if not np.isnan(value)]
        assert result.mean == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


OBJECTS = [[0, 0, 0, 0, 10, 10], [0, 0, 50, 0, 60, 10], [1, 0, 0, 0, 10, 10], [1, 0, 50, 0, 60, 10]]
ROWS = [
    [0, 0, 0.9, 0, 0, 10, 10],  # right: precision 1, recall 1/4
    [0, 0, 0.8, 0, 0, 10, 10],  # found before: 1/2, 1/4
    [1, 0, 0.7, 0, 0, 10, 10],  # right: 2/3, 2/4
    [1, 0, 0.6, 90, 0, 99, 10],  # nothing there: 2/4, 2/4
    [1, 0, 0.5, 50, 0, 60, 10],  # right: 3/5, 3/4
]


@pytest.mark.part("metric/voc07_ap", "metric/voc10_ap")
def test_by_hand():
    index, predictions = make_index(OBJECTS, classes=("a",)), make_predictions(ROWS)
    assert voc.evaluate(index, predictions).mean == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # recall marks 0, .1, .2 -> 1; .3, .4, .5 -> 2/3; .6, .7 -> 3/5; .8, .9, 1 -> 0
    assert voc.evaluate(index, predictions, eleven_point=True).mean == pytest.approx((3 + 3 * 2 / 3 + 2 * 3 / 5) / 11)


@pytest.mark.part("metric/voc07_ap", "metric/voc10_ap")
def test_difficult_counts_neither_way():
    index = make_index(OBJECTS, classes=("a",), difficult=[0, 1])
    # Both first detections lie on the difficult object and vanish: right, wrong, right of 2 objects.
    assert voc.evaluate(index, make_predictions(ROWS)).mean == pytest.approx((1 + 2 / 3) / 2)
    # Recall marks 0 to .5 reach precision 1, .6 to 1 reach 2/3.
    assert voc.evaluate(index, make_predictions(ROWS), eleven_point=True).mean == pytest.approx((6 + 5 * 2 / 3) / 11)
    # A class of difficult objects alone has nothing to find.
    only = make_index(OBJECTS[:1], classes=("a",), difficult=[0])
    assert np.isnan(voc.evaluate(only, make_predictions(ROWS)).mean)


def test_no_second_choice():
    """Unlike COCO: the best object is taken, so the detection is wrong, though it overlaps another by half."""
    index = make_index([[0, 0, 0, 0, 10, 10], [0, 0, 0, 0, 10, 6]], classes=("a",))
    rows = [[0, 0, 0.9, 0, 0, 10, 10], [0, 0, 0.8, 0, 0, 10, 9]]
    assert voc.evaluate(index, make_predictions(rows)).mean == pytest.approx(0.5)


def test_overlap_of_exactly_half_is_enough():
    index = make_index([[0, 0, 0, 0, 10, 10]], classes=("a",))
    assert voc.evaluate(index, make_predictions([[0, 0, 0.9, 0, 0, 10, 5]])).mean == 1.0


def test_recall_marks_are_reached_in_spite_of_rounding():
    recall = np.cumsum(np.full(10, 0.1))  # 0.1 + 0.1 + 0.1 > 0.3, but 8 * 0.1 added up < 0.8
    assert voc.average_precision(recall, np.ones(10), eleven_point=True) == 1.0


def test_classes_without_objects():
    index = make_index([[0, 0, 0, 0, 10, 10]], classes=("a", "b"))
    result = voc.evaluate(index, make_predictions([[0, 1, 0.9, 0, 0, 10, 10]]))
    assert np.isnan(result.per_class["b"])
    assert result.mean == 0.0
    assert np.isnan(voc.evaluate(make_index([], images=1), make_predictions([])).mean)
