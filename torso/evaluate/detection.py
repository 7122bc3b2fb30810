"""COCO's judgement of a detector, computed by hotcoco from arrays, and what torso adds to it.

Rules where data sets differ: a crowd region absorbs any number of detections, by the part of the detection inside it
(COCO's ``iscrowd``). A difficult object (VOC) is ignored as COCO ignores an object outside the area range: one
detection may match it by plain IoU and then counts neither way; missing it costs nothing. A class without objects
that count has no AP (NaN, not 0), and means leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torso.evaluate import confusion
from torso.evaluate.matching import Counted, Floats, Ints, count_coco, ignored, image_of_objects

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions

OUTSIDE = 1e12  # an area above COCO's largest range (1e10 square pixels): ignored at every size


class Curve(NamedTuple):
    """Precision against recall of one class at overlap 0.5, one point a detection, falling score."""

    recall: Floats  # [n]
    precision: Floats  # [n]
    score: Floats  # [n]


@dataclass(frozen=True)
class DetectionResult:
    """A detector's marks. NaN stands where there was nothing to judge."""

    classes: tuple[str, ...]
    summary: dict[str, float]  # AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, in 0..1
    per_class: list[dict[str, Any]]  # name objects AP AP50 AP75 AR precision recall F1 threshold
    curves: list[Curve]  # one a class
    confusion: Ints  # [C + 1, C + 1] rows truth, columns predicted, background last
    threshold: float  # the score where F1 over all objects is best: what to use when showing boxes
    precision: float  # over all objects, at that threshold and overlap 0.5
    recall: float
    f1: float

    task = "detect"
    headline = "AP"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves, ready for JSON: NaN becomes None."""
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.per_class]
        return {
            "summary": {key: _plain(value) for key, value in self.summary.items()},
            "threshold": _plain(self.threshold),
            "precision": _plain(self.precision),
            "recall": _plain(self.recall),
            "F1": _plain(self.f1),
            "per_class": rows,
            "confusion": self.confusion.tolist(),
            "classes": list(self.classes),
        }


def evaluate(index: Index, predictions: Predictions, *, threshold: float | None = None) -> DetectionResult:
    """Judge detections against the objects of the index.

    Args:
        index: the truth. Every picture counts: objects of pictures that were never looked at are missed.
        predictions: boxes in original pixels.
        threshold: score from which a detection is shown in the confusion matrix and in precision and recall of the
            classes; the one where F1 over all objects is best unless given.
    """
    precision, recall = _coco_tables(index, predictions)
    counts = np.bincount(index.labels[~ignored(index)], minlength=len(index.classes))
    judged = count_coco(index, predictions)
    everything = _curve(judged, predictions, np.arange(len(judged.correct)), int(counts.sum()))
    if threshold is None:
        threshold = best_f1(everything)
    # Rows of every class, each still by falling score.
    labels = predictions.labels[judged.detection]
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(len(counts) + 1))
    curves = [_curve(judged, predictions, order[ends[c] : ends[c + 1]], int(n)) for c, n in enumerate(counts)]
    rows = [
        {
            "name": name,
            "objects": int(counts[label]),
            "AP": _mean(precision[:, :, label, 0, -1]),
            "AP50": _mean(precision[0, :, label, 0, -1]),
            "AP75": _mean(precision[5, :, label, 0, -1]),
            "AR": _mean(recall[:, label, 0, -1]),
            **_at_threshold(curves[label], int(counts[label]), threshold),
            "threshold": best_f1(curves[label]),
        }
        for label, name in enumerate(index.classes)
    ]
    overall = _at_threshold(everything, int(counts.sum()), threshold)
    shown = 0.25 if np.isnan(threshold) else threshold
    return DetectionResult(
        classes=tuple(index.classes),
        summary=_summary(precision, recall),
        per_class=rows,
        curves=curves,
        confusion=confusion.of_detections(index, predictions, threshold=shown),
        threshold=threshold,
        precision=overall["precision"],
        recall=overall["recall"],
        f1=overall["F1"],
    )


def best_f1(curve: Curve) -> float:
    """The score where F1 is best; NaN for a curve that never is above 0. Ties go to the higher score."""
    total = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    # Detections of one score stand or fall together: only the last of them is a threshold.
    last = np.append(curve.score[1:] != curve.score[:-1], True) if len(f1) else np.zeros(0, dtype=bool)
    f1 = np.where(last, f1, 0)
    return float(curve.score[f1.argmax()]) if f1.max(initial=0) > 0 else float("nan")


def _coco_tables(index: Index, predictions: Predictions) -> tuple[Floats, Floats]:
    """COCO's precision ``[10, 101, C, 4, 3]`` and recall ``[10, C, 4, 3]``; -1 where there is nothing to judge."""
    from hotcoco import COCO, COCOeval

    images = [
        {"id": row + 1, "width": int(width), "height": int(height)} for row, (width, height) in enumerate(index.sizes)
    ]
    categories = [{"id": label + 1, "name": str(label)} for label in range(len(index.classes))]
    corner, size = index.boxes[:, :2], index.boxes[:, 2:] - index.boxes[:, :2]
    truth = COCO.from_arrays(
        images,
        categories,
        image_of_objects(index) + 1,
        np.asarray(index.labels) + 1,
        np.concatenate([corner, size], axis=1),
        area=np.where(index.difficult & ~index.crowd, OUTSIDE, index.area),
        iscrowd=np.asarray(index.crowd, dtype=np.int64),
    )
    corner, size = predictions.boxes[:, :2], predictions.boxes[:, 2:] - predictions.boxes[:, :2]
    columns = [
        predictions.image[:, None] + 1,
        corner,
        size,
        predictions.scores[:, None],
        predictions.labels[:, None] + 1,
    ]
    evaluator = COCOeval(truth, truth.load_res(np.concatenate(columns, axis=1, dtype=np.float64)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    tables = evaluator.eval or {}
    return np.asarray(tables["precision"]), np.asarray(tables["recall"])


def _summary(precision: Floats, recall: Floats) -> dict[str, float]:
    """COCO's twelve numbers, in COCO's order."""
    return {
        "AP": _mean(precision[:, :, :, 0, 2]),
        "AP50": _mean(precision[0, :, :, 0, 2]),
        "AP75": _mean(precision[5, :, :, 0, 2]),
        **{f"AP{size}": _mean(precision[:, :, :, area, 2]) for area, size in enumerate("sml", start=1)},
        **{f"AR{most}": _mean(recall[:, :, 0, place]) for place, most in enumerate((1, 10, 100))},
        **{f"AR{size}": _mean(recall[:, :, area, 2]) for area, size in enumerate("sml", start=1)},
    }


def _mean(table: Floats) -> float:
    judged = table[table > -1]
    return float(judged.mean()) if judged.size else float("nan")


def _curve(judged: Counted, predictions: Predictions, mine: Ints, objects: int) -> Curve:
    """The curve of the judged detections ``mine`` (rows of ``judged``); without objects recall is NaN."""
    correct = np.cumsum(judged.correct[mine])
    said = np.arange(1, len(correct) + 1)
    recall = correct / objects if objects else np.full(len(correct), np.nan)
    return Curve(recall, correct / said, predictions.scores[judged.detection[mine]])


def _at_threshold(curve: Curve, objects: int, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of a curve's detections from ``threshold`` on; NaN where there are no objects."""
    if not objects:
        return dict.fromkeys(("precision", "recall", "F1"), float("nan"))
    said = int((curve.score >= threshold).sum())
    recall = float(curve.recall[said - 1]) if said else 0.0
    precision = float(curve.precision[said - 1]) if said else 0.0
    return {"precision": precision, "recall": recall, "F1": 2 * recall * objects / (said + objects)}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
