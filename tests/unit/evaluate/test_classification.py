"""A classifier's marks against scikit-learn, and what it does not decide."""

import json

import numpy as np
import pytest
from sklearn import metrics

from torso.evaluate import classification, confusion


def world(seed, classes=7, count=300, missing=()):
    rng = np.random.default_rng(seed)
    labels = rng.choice([c for c in range(classes) if c not in missing], count)
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), labels] += 1.5
    table = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, table, [f"class {c}" for c in range(classes)]


@pytest.mark.part("metric/accuracy")
@pytest.mark.part("metric/confusion_matrix")
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed):
    labels, table, names = world(seed)
    result = classification.evaluate(labels, table, names)
    said = table.argmax(axis=1)
    assert result.summary["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said), abs=1e-12)
    assert result.summary["top5"] == pytest.approx(metrics.top_k_accuracy_score(labels, table, k=5), abs=1e-12)
    assert result.summary["macro_f1"] == pytest.approx(metrics.f1_score(labels, said, average="macro"), abs=1e-12)
    assert result.summary["auc"] == pytest.approx(
        metrics.roc_auc_score(labels, table, multi_class="ovr", average="macro"), abs=1e-12
    )
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(labels, said))
    columns = metrics.precision_recall_fscore_support(labels, said)
    for place, key in enumerate(("precision", "recall", "F1", "objects")):
        np.testing.assert_allclose([row[key] for row in result.per_class], columns[place], atol=1e-12)
    for label, curve in enumerate(result.roc):
        assert np.trapezoid(curve.true_positive, curve.false_positive) == pytest.approx(result.per_class[label]["AUC"])


def test_missing_class_is_left_out():
    labels, table, names = world(0, missing=(2, 4))
    result = classification.evaluate(labels, table, names)
    there = [c for c in range(7) if c not in (2, 4)]
    expected = metrics.f1_score(labels, table.argmax(axis=1), average="macro", labels=there)
    assert result.summary["macro_f1"] == pytest.approx(expected, abs=1e-12)
    assert all(np.isnan(result.per_class[2][key]) for key in ("precision", "recall", "F1", "AUC"))
    assert len(result.roc[2].false_positive) == 0
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["per_class"][2]["F1"] is None


def test_class_never_predicted_has_precision_zero():
    result = classification.evaluate([0, 1], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"])
    assert result.per_class[1]["precision"] == 0.0
    assert result.per_class[1]["F1"] == 0.0
    assert result.summary["accuracy"] == 0.5
    assert "top5" not in result.summary


def test_headline_follows_the_balance():
    even = classification.evaluate([0, 0, 1], np.eye(2)[[0, 0, 1]], ["a", "b"])
    assert even.headline == "accuracy"
    assert even.imbalance == 2
    labels = [0] * 40 + [1] * 10
    lazy = classification.evaluate(labels, np.tile([0.9, 0.1], (50, 1)), ["a", "b"])
    assert lazy.headline == "macro_f1"
    assert lazy.summary["accuracy"] == 0.8
    assert lazy.summary["macro_f1"] == pytest.approx(0.5 * 80 / 90)
    assert lazy.summary["auc"] == 0.5


@pytest.mark.part("metric/confusion_matrix")
def test_confusion_by_hand():
    table = confusion.of_classes(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 2, 2, 0]), 3)
    assert table.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 2]]


def test_nothing_at_all():
    result = classification.evaluate([], np.zeros((0, 2)), ["a", "b"])
    assert all(np.isnan(value) for value in result.summary.values())


def test_long_curves_are_thinned_but_keep_their_area():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    second = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    result = classification.evaluate(labels, np.stack([1 - second, second], axis=1), ["a", "b"])
    curve = result.roc[1]
    assert len(curve.false_positive) <= classification.POINTS
    area = np.trapezoid(curve.true_positive, curve.false_positive)
    assert area == pytest.approx(result.per_class[1]["AUC"], abs=1e-3)
