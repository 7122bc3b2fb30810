"""Figures of a run: how it learned, what it confuses, what the data are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torso.boxes.draw import palette
from torso.evaluate.curves import Row, flat, learning_rate, loss_curves, score_curves
from torso.evaluate.detection import DetectionResult
from torso.evaluate.errors import SPECIAL
from torso.evaluate.figure import INK, axes_of, class_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torso.data.index import Index
    from torso.evaluate.classification import ClassificationResult

SHOWN = 24  # bars of classes that are shown
NAMED = 12  # more classes than this get no legend line each


def figures(
    *,
    metrics: Sequence[Row] = (),
    results: Sequence[Row] = (),
    evaluation: DetectionResult | ClassificationResult | None = None,
    indexes: Mapping[str, Index] | None = None,
) -> dict[str, Figure]:
    """Every figure there is something to show in; parts of an unfinished run that are missing make no figure.

    Args:
        metrics: rows of ``metrics.jsonl``.
        results: rows of ``results.csv``, one an epoch.
        evaluation: marks of the best weights.
        indexes: the data by split.

    Returns:
        Name -> figure: ``loss``, ``rate``, ``scores``, ``precision_recall``, ``errors``, ``roc``, ``confusion``,
        ``classes``, ``sizes``.
    """
    metrics, results = [flat(row) for row in metrics], [flat(row) for row in results]
    found: dict[str, Figure | None] = {
        "loss": loss_curves(metrics),
        "rate": learning_rate(metrics),
        "scores": score_curves(results or metrics),
    }
    if evaluation is not None:
        if isinstance(evaluation, DetectionResult):
            found["precision_recall"] = precision_recall(evaluation)
            found["errors"] = error_prices(evaluation)
        else:
            found["roc"] = roc(evaluation)
        found["confusion"] = confusion_matrix(evaluation.confusion, evaluation.classes)
    if indexes:
        found["classes"] = class_counts(indexes)
        found["sizes"] = box_sizes(indexes)
    return {name: figure for name, figure in found.items() if figure is not None}


def precision_recall(result: DetectionResult) -> Figure | None:
    """Precision against recall at overlap 0.5, a line a class, the mean in bold."""
    lines = []
    for label, curve in enumerate(result.curves):
        if len(curve.recall) and not np.isnan(curve.recall).any():
            best = np.maximum.accumulate(curve.precision[::-1])[::-1]
            mark = f"{_short(result.classes[label])}  {result.per_class[label]['AP50']:.3f}"
            lines.append((label, np.append(0, curve.recall), np.append(best[0], best), mark))
    mean = f"all classes  {result.summary['AP50']:.3f}"
    return _curves(lines, "recall", "precision", mean=mean, falls_to=0.0)


def error_prices(result: DetectionResult) -> Figure | None:
    """What AP50 would gain without each kind of error, and how many there are; the two sums of all kinds are pale."""
    told = {"boxes": result.errors, "masks": result.mask_errors}
    shown = {name: errors for name, errors in told.items() if errors is not None and not np.isnan(errors.ap)}
    if not shown:
        return None
    kinds = [kind for kind in next(iter(shown.values())).counts if kind not in SPECIAL]
    place = {kind: float(row) for row, kind in enumerate(kinds)}
    place |= {kind: len(kinds) + 0.4 + row for row, kind in enumerate(SPECIAL)}  # a little apart
    thick = 0.74 / len(shown)
    with axes_of(4.4, 0.4 + len(place) * (0.13 + 0.15 * len(shown))) as (figure, axes):
        for number, (colour, (name, errors)) in enumerate(zip(class_colours(len(shown)), shown.items(), strict=True)):
            for kind, row in place.items():
                y, price = row + (number - (len(shown) - 1) / 2) * thick, errors.prices[kind]
                label = name if kind == kinds[0] else None
                axes.barh(y, price, thick, color=colour, alpha=0.4 if kind in SPECIAL else 1, label=label)
                axes.annotate(
                    f"{price:.3f}  ({errors.counts[kind]})",
                    (max(price, 0), y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                )
        axes.set_yticks(list(place.values()), [kind.replace("_", " ") for kind in place])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.2, y=0.01)
        axes.set(xlabel="AP50 lost")
        if len(shown) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def roc(result: ClassificationResult) -> Figure | None:
    """True against false positives of each class against the others."""
    lines = []
    for label, curve in enumerate(result.roc):
        if len(curve.false_positive):
            mark = f"{_short(result.classes[label])}  {result.per_class[label]['AUC']:.3f}"
            lines.append((label, curve.false_positive, curve.true_positive, mark))
    mean = f"all classes  {result.summary['auc']:.3f}"
    return _curves(lines, "false positives", "true positives", mean=mean, falls_to=1.0)


def _curves(
    lines: Sequence[tuple[int, NDArray[np.float64], NDArray[np.float64], str]],
    xlabel: str,
    ylabel: str,
    *,
    mean: str,
    falls_to: float,
) -> Figure | None:
    """Curves of classes in the unit square and their mean; ``falls_to`` is y behind a curve's end."""
    if not lines:
        return None
    colours = class_colours(1 + max(label for label, *_ in lines))
    many = len(lines) > NAMED
    with axes_of(3.5, 3.5) as (figure, axes):
        for label, x, y, mark in lines:
            axes.plot(x, y, color=colours[label], linewidth=0.8 if many else 1.6, alpha=0.6 if many else 1, label=mark)
        if len(lines) > 1:
            grid = np.linspace(0, 1, 201)
            middle = np.mean([np.interp(grid, x, y, right=falls_to) for _, x, y, _ in lines], axis=0)
            axes.plot(grid, middle, color=INK, linewidth=2.6, label=mean)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.005), ylim=(0, 1.02), aspect="equal")
        handles, labels = axes.get_legend_handles_labels()
        chosen = slice(-1, None) if many else slice(None)
        title = f"{len(lines)} classes" if many else None
        axes.legend(handles[chosen], labels[chosen], loc="upper left", bbox_to_anchor=(1.01, 1.0), title=title)
    return figure


def confusion_matrix(table: NDArray[np.int64], classes: Sequence[str]) -> Figure | None:
    """Rows are the truth, columns what was said; colour is the part of the row, numbers are counts."""
    if not table.sum():
        return None
    count = len(table)
    names = [*classes, "background"][:count]
    part = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.8 + 0.42 * count, 2.6, 9))
    with axes_of(side, side) as (figure, axes):
        shade = np.zeros((count, count, 4))
        shade[..., :3] = np.array(palette(1)[0]) / 255
        shade[..., 3] = 0.9 * part  # transparent, not white: right on a light page and on a dark one
        axes.imshow(shade, interpolation="none")
        axes.set(xlabel="predicted", ylabel="truth")
        small = float(np.clip(150 / count, 5, 9.5))
        places = range(0, count, 1 + count // 130)  # names must not lie on each other
        shown = [_short(names[place]) for place in places]
        axes.set_xticks(places, shown, fontsize=small, rotation=90 if count > 6 else 0)
        axes.set_yticks(places, shown, fontsize=small)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        if count <= 26:
            for row, column in zip(*np.nonzero(table), strict=True):
                ink = "white" if part[row, column] > 0.6 else INK
                text = f"{table[row, column]}" if table[row, column] < 10_000 else f"{table[row, column] / 1000:.0f}k"
                axes.text(column, row, text, ha="center", va="center", fontsize=small * 0.9, color=ink)
    return figure


def class_counts(indexes: Mapping[str, Index]) -> Figure | None:
    """How many objects (or pictures) of each class every split has."""
    counts = {split: _counts(index) for split, index in indexes.items() if len(_labels(index))}
    if not counts:
        return None
    names = next(iter(indexes.values())).classes
    order = np.argsort(-sum(counts.values()), kind="stable")
    if len(order) > SHOWN:
        order = np.append(order[: SHOWN // 2], order[-SHOWN // 2 :])
    height = 0.25 + len(order) * (0.1 + 0.13 * len(counts))
    with axes_of(4.4, height) as (figure, axes):
        thick = 0.82 / len(counts)
        for place, (colour, split) in enumerate(zip(class_colours(len(counts)), counts, strict=True)):
            y = np.arange(len(order)) + (place - (len(counts) - 1) / 2) * thick
            axes.barh(y, counts[split][order], height=thick, color=colour, label=split)
            for at, value in zip(y, counts[split][order], strict=True):
                axes.annotate(f" {value}", (value, at), va="center", fontsize=7.5)
        axes.set_yticks(range(len(order)), [_short(names[label]) for label in order])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.09, y=0.01)
        axes.set(xlabel="objects" if next(iter(indexes.values())).task == "detect" else "pictures")
        if len(names) > len(order):
            axes.set_title(f"the {SHOWN // 2} largest and {SHOWN // 2} smallest of {len(names)} classes", fontsize=9)
        if len(counts) > 1:
            axes.legend(loc="lower right")
    return figure


def box_sizes(indexes: Mapping[str, Index]) -> Figure | None:
    """Width and height of the objects of all splits, and where COCO parts small, medium and large (32², 96² pixels)."""
    from matplotlib.ticker import LogLocator, NullFormatter

    boxes = [index.boxes for index in indexes.values() if index.task == "detect" and len(index.boxes)]
    if not boxes:
        return None
    labels = np.concatenate([index.labels for index in indexes.values() if index.task == "detect"])
    table = np.concatenate(boxes)
    size = np.maximum(table[:, 2:] - table[:, :2], 1)
    kept = np.random.default_rng(0).permutation(len(size))[:4000]
    names = next(iter(indexes.values())).classes
    colours = class_colours(len(names))
    with axes_of(3.5, 3.5) as (figure, axes):
        for label in range(len(names)):
            mine = kept[labels[kept] == label]
            if len(mine):
                axes.scatter(
                    size[mine, 0],
                    size[mine, 1],
                    s=9,
                    color=colours[label],
                    alpha=0.45,
                    linewidths=0,
                    label=_short(names[label]),
                )
        reach = np.array([1.0, float(size.max()) * 1.3])
        low = max(1.0, float(np.percentile(size, 0.2)) / 1.3)
        for limit in (32, 96):
            axes.plot(reach, limit**2 / reach, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            x = min(reach[1], limit**2 / low) / 1.12
            axes.text(x, limit**2 / x, f"{limit}²", fontsize=8, ha="left", va="bottom")
        axes.set(xscale="log", yscale="log", xlim=(low, reach[1]), ylim=(low, reach[1]), aspect="equal")
        axes.set(xlabel="width in pixels", ylabel="height in pixels")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        if len(names) <= NAMED:
            legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), markerscale=2)
            for handle in legend.legend_handles:
                if handle is not None:
                    handle.set_alpha(1)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:16]}…"


def _labels(index: Index) -> NDArray[np.int64]:
    return index.labels if index.image_labels is None else index.image_labels


def _counts(index: Index) -> NDArray[np.int64]:
    return np.bincount(_labels(index), minlength=len(index.classes))
