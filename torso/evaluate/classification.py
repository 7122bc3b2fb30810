"""The marks of a classifier: accuracy, what it takes for what, and how well its probabilities rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from torso.evaluate import confusion
from torso.evaluate.matching import Floats, Ints

UNBALANCED = 3.0  # from this ratio of the largest to the smallest class accuracy mostly speaks for the largest
POINTS = 400  # of a stored ROC curve: more cannot be seen


class Roc(NamedTuple):
    """Receiver operating characteristic of one class against all others; empty where a side has no pictures."""

    false_positive: Floats  # [n] rising
    true_positive: Floats  # [n] rising


@dataclass(frozen=True)
class ClassificationResult:
    """A classifier's marks. NaN stands where there was nothing to judge."""

    classes: tuple[str, ...]
    summary: dict[str, float]  # the headline first: accuracy, top5 (more than 5 classes), macro_f1, ... in 0..1
    per_class: list[dict[str, Any]]  # name objects precision recall F1 AUC
    confusion: Ints  # [C, C] rows truth, columns predicted
    roc: list[Roc]  # one a class
    imbalance: float  # pictures of the largest class / of the smallest that has any

    task = "classify"

    @property
    def headline(self) -> str:
        """The number to look at first: ``macro_f1`` where classes are unbalanced, else ``accuracy``."""
        return next(iter(self.summary))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves, ready for JSON: NaN becomes None."""
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.per_class]
        return {
            "summary": {key: _plain(value) for key, value in self.summary.items()},
            "imbalance": _plain(self.imbalance),
            "per_class": rows,
            "confusion": self.confusion.tolist(),
            "classes": list(self.classes),
        }


def evaluate(labels: Ints, probabilities: Floats, classes: Sequence[str]) -> ClassificationResult:
    """Judge a classifier.

    A class without pictures has no marks (NaN) and means leave it out; a class that is never predicted has precision
    0. Where the largest class has more than three times the pictures of the smallest, macro F1 leads the summary.

    Args:
        labels: ``[N]`` true classes.
        probabilities: ``[N, C]`` in 0..1; only their order within a column matters for ROC.
        classes: C names.
    """
    labels, probabilities = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    table = confusion.of_classes(labels, probabilities.argmax(axis=1), len(classes))
    hits, truth, said = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    recall = _ratio(hits, truth)
    precision = np.where(truth > 0, _ratio(hits, said, empty=0.0), np.nan)
    f1 = np.where(truth > 0, _ratio(2 * hits, truth + said), np.nan)
    roc, auc = _roc_curves(labels, probabilities)
    counts = truth[truth > 0]
    imbalance = float(counts.max() / counts.min()) if len(counts) else float("nan")
    marks = {
        "accuracy": float(_ratio(hits.sum(), truth.sum())),
        "macro_f1": _mean(f1),
        "macro_precision": _mean(precision),
        "macro_recall": _mean(recall),
        "auc": _mean(auc),
    }
    if len(classes) > 5:
        marks["top5"] = top_accuracy(labels, probabilities, 5)
    order = ["macro_f1", "auc", "accuracy", "top5"] if imbalance > UNBALANCED else ["accuracy", "top5", "macro_f1"]
    order = [name for name in order if name in marks]
    columns = zip(classes, truth.tolist(), precision, recall, f1, auc, strict=True)
    rows = [
        {"name": name, "objects": n, "precision": float(p), "recall": float(r), "F1": float(f), "AUC": float(a)}
        for name, n, p, r, f, a in columns
    ]
    return ClassificationResult(
        classes=tuple(classes),
        summary={name: marks[name] for name in [*order, *(name for name in marks if name not in order)]},
        per_class=rows,
        confusion=table,
        roc=roc,
        imbalance=imbalance,
    )


def top_accuracy(labels: Ints, probabilities: Floats, most: int) -> float:
    """Part of the pictures whose class is among the ``most`` likeliest; a tie counts against the model.

    >>> top_accuracy(np.array([0, 2]), np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]]), 2)
    0.5
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    better = (probabilities >= own).sum(axis=1) - 1
    return float(_ratio((better < most).sum(), len(labels)))


def _roc_curves(labels: Ints, probabilities: Floats) -> tuple[list[Roc], Floats]:
    """ROC of each class against the others, and the areas under them ``[C]``."""
    from sklearn.metrics import auc, roc_curve

    curves, areas = [], np.full(probabilities.shape[1], np.nan)
    for label in range(probabilities.shape[1]):
        mine = labels == label
        if not mine.any() or mine.all():
            curves.append(Roc(np.zeros(0), np.zeros(0)))
            continue
        false_positive, true_positive, _ = roc_curve(mine, probabilities[:, label])
        areas[label] = auc(false_positive, true_positive)
        if len(false_positive) > POINTS:
            kept = np.unique(np.linspace(0, len(false_positive) - 1, POINTS).astype(int))
            false_positive, true_positive = false_positive[kept], true_positive[kept]
        curves.append(Roc(false_positive, true_positive))
    return curves, areas


def _ratio(part: Any, whole: Any, empty: float = float("nan")) -> Floats:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.full_like(part, empty), where=whole > 0))


def _mean(column: Floats) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else float("nan")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
