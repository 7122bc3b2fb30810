"""COCO's numbers against pycocotools, on many small hard cases."""

import contextlib
import io

import numpy as np
import pytest

from tests.unit.evaluate.worlds import make_index, make_predictions, random_world
from torso.evaluate import detection
from torso.evaluate.matching import count_coco, ignored

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def pycocotools_stats(index, predictions):
    """The twelve numbers and the precision table by the reference implementation."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = []
    for row in range(len(index)):
        for place in range(index.offsets[row], index.offsets[row + 1]):
            x1, y1, x2, y2 = index.boxes[place]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row + 1,
                    "category_id": int(index.labels[place]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": 1e12 if index.difficult[place] and not index.crowd[place] else float(index.area[place]),
                    "iscrowd": int(index.crowd[place]),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": row + 1, "width": 1, "height": 1} for row in range(len(index))],
            "categories": [{"id": label + 1, "name": str(label)} for label in range(len(index.classes))],
            "annotations": annotations,
        }
        truth.createIndex()
        rows = predictions.to_coco(index)
        for row in rows:
            row["image_id"] += 1
            row["category_id"] += 1
        found = truth.loadRes(rows) if rows else COCO()
        if not rows:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats, evaluator.eval["precision"]


@pytest.mark.part("metric/coco_ap")
@pytest.mark.parametrize("block", range(12))
def test_equals_pycocotools(block, capfd):
    """120 cases with crowds, empty pictures, classes without objects and many ties."""
    for seed in range(block * 10, block * 10 + 10):
        index, predictions = random_world(seed, difficult=seed % 3 == 0)
        stats, precision = pycocotools_stats(index, predictions)
        result = detection.evaluate(index, predictions)
        assert list(result.summary) == NAMES
        ours = np.array(list(result.summary.values()))
        theirs = np.where(stats == -1, np.nan, stats)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12, err_msg=f"seed {seed}")
        for label, row in enumerate(result.per_class):
            table = precision[:, :, label, 0, 2]
            expected = table[table > -1].mean() if (table > -1).any() else np.nan
            np.testing.assert_allclose(row["AP"], expected, rtol=0, atol=1e-12)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_random_cases_are_hard():
    """The cases above contain what they promise."""
    worlds = [random_world(seed) for seed in range(120)]
    assert sum(index.crowd.any() for index, _ in worlds) > 40
    assert sum((np.diff(index.offsets) == 0).any() for index, _ in worlds) > 60
    assert sum(len(np.unique(index.labels)) < len(index.classes) for index, _ in worlds) > 60
    assert sum(len(np.unique(p.scores)) < len(p) / 2 for _, p in worlds) > 60
    assert sum(np.bincount(p.image * 4 + p.labels).max(initial=0) > 100 for _, p in worlds) >= 3


@pytest.mark.part("metric/coco_ap")
def test_own_counting_gives_the_same_ap50():
    """The matcher behind curves and thresholds is COCO's: its 101 points give the AP50 of every class."""
    for seed in range(120):
        index, predictions = random_world(seed, difficult=seed % 3 == 0)
        judged = count_coco(index, predictions)
        counts = np.bincount(index.labels[~ignored(index)], minlength=len(index.classes))
        for label, row in enumerate(detection.evaluate(index, predictions).per_class):
            correct = judged.correct[predictions.labels[judged.detection] == label]
            if not counts[label]:
                assert np.isnan(row["AP50"])
                continue
            true = np.cumsum(correct)
            recall = true / counts[label]
            best = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
            marks = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
            assert np.append(best, 0)[marks].mean() == pytest.approx(row["AP50"], abs=1e-12), seed


def test_nothing_at_all():
    empty = make_index([], images=2)
    result = detection.evaluate(empty, make_predictions([]))
    assert all(np.isnan(value) for value in result.summary.values())
    missed = detection.evaluate(make_index([[0, 0, 0, 0, 9, 9]]), make_predictions([]))
    assert missed.summary["AP"] == 0
    invented = detection.evaluate(empty, make_predictions([[0, 0, 0.5, 0, 0, 9, 9]]))
    assert np.isnan(invented.summary["AP"])
