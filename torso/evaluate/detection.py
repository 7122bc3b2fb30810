"""COCO's judgement of a detector, computed by hotcoco from arrays, and what torso adds to it.

Rules where data sets differ: a crowd region absorbs any number of detections, by the part of the detection inside it
(COCO's ``iscrowd``). A difficult object (VOC) is ignored as COCO ignores an object outside the area range: one
detection may match it by plain IoU and then counts neither way; missing it costs nothing. A class without objects
that count has no AP (NaN, not 0), and means leave it out. Of a class in a picture the best 100 detections are looked
at, as COCO does, or as many as ``most`` says where pictures hold more objects.

Masks are judged beside the boxes, by the overlap of pixels (``mask AP`` and so on), where both sides have them. An
object without a mask, beside others that have one, is its box, as it is to a model that learns masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from torso.evaluate import confusion, errors
from torso.evaluate.errors import Errors
from torso.evaluate.mask_pairs import outlines
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
    summary: dict[str, float]  # AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, in 0..1; with masks, "mask AP" ...
    per_class: list[dict[str, Any]]  # name objects AP AP50 AP75 AR precision recall F1 threshold; "mask AP" ...
    curves: list[Curve]  # one a class
    confusion: Ints  # [C + 1, C + 1] rows truth, columns predicted, background last
    threshold: float  # the score where F1 over all objects is best: what to use when showing boxes
    precision: float  # over all objects, at that threshold and overlap 0.5
    recall: float
    f1: float
    most: int = 100  # detections of a class in a picture that were looked at
    errors: Errors | None = None  # why AP50 is not 1
    mask_errors: Errors | None = None  # why "mask AP50" is not 1

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
            "max_detections": self.most,
            "per_class": rows,
            **({} if self.errors is None else {"errors": self.errors.rows()}),
            **({} if self.mask_errors is None else {"mask_errors": self.mask_errors.rows()}),
            "confusion": self.confusion.tolist(),
            "classes": list(self.classes),
        }


def evaluate(
    index: Index, predictions: Predictions, *, threshold: float | None = None, most: int = 100
) -> DetectionResult:
    """Judge detections against the objects of the index.

    Args:
        index: the truth. Every picture counts: objects of pictures that were never looked at are missed.
        predictions: boxes in original pixels.
        threshold: score from which a detection is shown in the confusion matrix and in precision and recall of the
            classes; the one where F1 over all objects is best unless given.
        most: detections of a class in a picture that are looked at, more than 10; COCO's rule is 100. A model answers
            with its suppressor's ``max_detections`` at most.

    Raises:
        ValueError: ``most`` is 10 or less.
    """
    if most <= 10:
        raise ValueError(f"recall is also told for 1 and 10 detections, so most must exceed 10, got {most}")
    precision, recall = _coco_tables(index, predictions, "bbox", most)
    masks = None
    if predictions.masks is not None and index.masks is not None:
        masks = _coco_tables(index, predictions, "segm", most)
    counts = np.bincount(index.labels[~ignored(index)], minlength=len(index.classes))
    judged = count_coco(index, predictions, most=most)
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
            **({} if masks is None else _of_masks(masks[0][:, :, label, 0, -1])),
            **_at_threshold(curves[label], int(counts[label]), threshold),
            "threshold": best_f1(curves[label]),
        }
        for label, name in enumerate(index.classes)
    ]
    overall = _at_threshold(everything, int(counts.sum()), threshold)
    shown = 0.25 if np.isnan(threshold) else threshold
    return DetectionResult(
        classes=tuple(index.classes),
        summary=_summary(precision, recall, most) | ({} if masks is None else _summary_of_masks(*masks, most)),
        per_class=rows,
        curves=curves,
        confusion=confusion.of_detections(index, predictions, threshold=shown),
        threshold=threshold,
        precision=overall["precision"],
        recall=overall["recall"],
        f1=overall["F1"],
        most=most,
        errors=errors.evaluate(index, predictions, most=most),
        mask_errors=None if masks is None else errors.evaluate(index, predictions, most=most, masks=True),
    )


def best_f1(curve: Curve) -> float:
    """The score where F1 is best; NaN for a curve that never is above 0. Ties go to the higher score."""
    total = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    # Detections of one score stand or fall together: only the last of them is a threshold.
    last = np.append(curve.score[1:] != curve.score[:-1], True) if len(f1) else np.zeros(0, dtype=bool)
    f1 = np.where(last, f1, 0)
    return float(curve.score[f1.argmax()]) if f1.max(initial=0) > 0 else float("nan")


def _coco_tables(
    index: Index, predictions: Predictions, kind: Literal["bbox", "segm"], most: int
) -> tuple[Floats, Floats]:
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
        segmentation=outlines(index) if kind == "segm" else None,
    )
    said = truth.load_res(_said_of_masks(predictions) if kind == "segm" else _said_of_boxes(predictions))
    evaluator = COCOeval(truth, said, kind)
    evaluator.params.max_dets = [1, 10, most]
    evaluator.evaluate()
    evaluator.accumulate()
    tables = evaluator.eval or {}
    return np.asarray(tables["precision"]), np.asarray(tables["recall"])


def _said_of_boxes(predictions: Predictions) -> Floats:
    """Detections as rows ``[K, 7]``: picture, box, score, class."""
    corner, size = predictions.boxes[:, :2], predictions.boxes[:, 2:] - predictions.boxes[:, :2]
    columns = [predictions.image[:, None] + 1, corner, size, predictions.scores[:, None]]
    return np.concatenate([*columns, predictions.labels[:, None] + 1], axis=1, dtype=np.float64)


def _said_of_masks(predictions: Predictions) -> list[dict[str, Any]]:
    """Detections as COCO's results, without boxes: beside one, COCO takes its area for the mask's."""
    rows = zip(
        (predictions.image + 1).tolist(),
        (predictions.labels + 1).tolist(),
        predictions.scores.tolist(),
        predictions.masks or (),
        strict=True,
    )
    names = ("image_id", "category_id", "score", "segmentation")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _summary(precision: Floats, recall: Floats, most: int) -> dict[str, float]:
    """COCO's twelve numbers, in COCO's order."""
    return {
        "AP": _mean(precision[:, :, :, 0, 2]),
        "AP50": _mean(precision[0, :, :, 0, 2]),
        "AP75": _mean(precision[5, :, :, 0, 2]),
        **{f"AP{size}": _mean(precision[:, :, :, area, 2]) for area, size in enumerate("sml", start=1)},
        **{f"AR{count}": _mean(recall[:, :, 0, place]) for place, count in enumerate((1, 10, most))},
        **{f"AR{size}": _mean(recall[:, :, area, 2]) for area, size in enumerate("sml", start=1)},
    }


def _summary_of_masks(precision: Floats, recall: Floats, most: int) -> dict[str, float]:
    """Of the same twelve, of masks, all but the recall with few detections."""
    every = _summary(precision, recall, most)
    return {f"mask {key}": value for key, value in every.items() if key not in ("AR1", "AR10")}


def _of_masks(precision: Floats) -> dict[str, float]:
    """A class's ``precision [10, 101]`` of masks as columns of the table of classes."""
    return {"mask AP": _mean(precision), "mask AP50": _mean(precision[0]), "mask AP75": _mean(precision[5])}


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
