"""Figures: everything from one class to a hundred, hostile names, missing parts."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.evaluate.worlds import make_index, make_predictions, random_world
from torso.evaluate import classification, curves, detection, figure, plots

HOSTILE = "<img src=x onerror=alert(1)>"


def classifier(classes, count=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    table = rng.random((count, classes)) + 2 * np.eye(classes)[labels]
    names = [f"class {c}" for c in range(classes)]
    names[0] = f"$x^{{$ 数字 {HOSTILE}"
    return classification.evaluate(labels, table / table.sum(axis=1, keepdims=True), names)


@pytest.mark.parametrize("classes", [1, 2, 13, 100])
def test_classifier_figures(classes):
    found = plots.figures(evaluation=classifier(classes))
    assert set(found) == ({"confusion"} if classes == 1 else {"confusion", "roc"})
    for drawn in found.values():
        svg, png = figure.to_svg(drawn), figure.to_png(drawn)
        assert png.startswith(b"\x89PNG")
        assert svg.startswith("<svg")
        assert "<img" not in svg
        assert figure.INK not in svg
        assert "currentColor" in svg


def test_detector_figures():
    index, predictions = random_world(3)
    metrics = [
        {
            "step": s,
            "epoch": 1,
            "loss": 3 / s,
            "losses": {"class_loss": 2 / s, "box_loss": 1 / s},
            "lr": 0.01,
            "seconds": s,
        }
        for s in range(1, 200)
    ]
    results = [{"epoch": "1", "AP": "0.1", "AP50": ""}, {"epoch": "2", "AP": "0.2", "AP50": "0.4"}]
    found = plots.figures(
        metrics=metrics, results=results, evaluation=detection.evaluate(index, predictions), indexes={"val": index}
    )
    assert set(found) == {"loss", "rate", "scores", "precision_recall", "errors", "confusion", "classes", "sizes"}
    labels = [line.get_label() for line in found["loss"].axes[0].lines if not line.get_label().startswith("_")]
    assert labels == ["loss", "box loss", "class loss"]
    assert found["scores"].axes[0].lines[0].get_xdata().tolist() == [1, 2]
    assert found["scores"].axes[0].lines[1].get_ydata().tolist() == [0.4]


@pytest.mark.part("metric/detection_errors")
def test_a_bar_for_each_kind_of_error():
    index, predictions = random_world(3)
    result = detection.evaluate(index, predictions)
    axes = plots.error_prices(result).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [result.errors.prices[kind] for kind in result.errors.counts]
    assert axes.texts[0].get_text() == (
        f"{result.errors.prices['classification']:.3f}  ({result.errors.counts['classification']})"
    )
    both = plots.error_prices(replace(result, mask_errors=result.errors)).axes[0]
    assert len(both.patches) == 2 * len(axes.patches)
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["boxes", "masks"]


def test_same_figure_same_text():
    texts = [figure.to_svg(plots.figures(evaluation=classifier(3))["confusion"]) for _ in range(2)]
    assert texts[0] == texts[1]


def test_nothing_to_show():
    assert plots.figures() == {}
    assert plots.figures(metrics=[{"step": 1}], results=[{"epoch": 1}]) == {}
    empty = make_index([], images=1)
    evaluation = detection.evaluate(empty, make_predictions([]))
    assert plots.figures(evaluation=evaluation, indexes={"val": empty}) == {}


def test_broken_rows_are_passed_over():
    rows = [{"step": 1, "loss": "nan"}, {"step": 2, "loss": None}, {"step": 3, "loss": 1.0}, {"loss": "x"}]
    assert curves.series(rows, "loss") == [(3.0, 1.0)]
    assert curves.loss_curves(rows) is not None


def test_save(tmp_path):
    written = figure.save(plots.figures(evaluation=classifier(2)), tmp_path / "plots")
    assert sorted(path.name for path in written) == ["confusion.png", "roc.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_global_look_of_the_user_stays():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figure.to_png(plots.figures(evaluation=classifier(2))["roc"])
    assert dict(mpl.rcParams) == before
