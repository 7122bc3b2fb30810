"""Figures of a run: how it learned, what it confuses, what the data are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torso.boxes.draw import palette
from torso.evaluate.figure import INK, axes_of, class_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torso.data.index import Index
    from torso.evaluate.classification import ClassificationResult
    from torso.evaluate.detection import DetectionResult

NAMED = 12  # more classes than this get no legend line each
Row = Mapping[str, Any]
Point = tuple[float, float]


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
        Name -> figure: ``loss``, ``rate``, ``scores``, ``precision_recall``, ``roc``, ``confusion``, ``classes``,
        ``sizes``.
    """
    found: dict[str, Figure | None] = {
        "loss": loss_curves(metrics),
        "rate": learning_rate(metrics),
        "scores": score_curves(results or metrics),
    }
    if evaluation is not None:
        if evaluation.task == "detect":
            found["precision_recall"] = precision_recall(evaluation)
        else:
            found["roc"] = roc(evaluation)
        found["confusion"] = confusion_matrix(evaluation.confusion, evaluation.classes)
    if indexes:
        found["classes"] = class_counts(indexes)
        found["sizes"] = box_sizes(indexes)
    return {name: figure for name, figure in found.items() if figure is not None}


def series(rows: Sequence[Row], name: str) -> list[Point]:
    """The points (step, or epoch where steps are not told; value) of one column; rows without it are passed over.

    >>> series([{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": "1.5"}], "loss")
    [(1.0, 2.0), (3.0, 1.5)]
    """
    points = []
    for place, row in enumerate(rows):
        value = _number(row.get(name))
        if value is not None:
            at = next(
                (found for key in ("step", "epoch") if (found := _number(row.get(key))) is not None), float(place)
            )
            points.append((at, value))
    return points


def loss_curves(metrics: Sequence[Row]) -> Figure | None:
    """The training loss and its parts against steps; a smooth line over the pale raw one."""
    names = [name for name in _columns(metrics) if _is_loss(name)]
    names.sort(key=lambda name: (name not in ("loss", "train/loss"), name))
    with axes_of(7, 3.4) as (figure, axes):
        for colour, name in zip(class_colours(len(names)), names, strict=True):
            points = np.array(series(metrics, name))
            label = name.removeprefix("train/").removeprefix("loss/").replace("_", " ")
            axes.plot(points[:, 0], points[:, 1], color=colour, alpha=0.25, linewidth=0.9)
            smooth = _smooth(points[:, 1])
            axes.plot(points[:, 0], smooth, color=colour, linewidth=2.2 if label == "loss" else 1.5, label=label)
        if not names:
            return None
        top = np.concatenate([np.array(series(metrics, name))[:, 1] for name in names])
        axes.set(xlabel=_unit(metrics), ylabel="loss", ylim=(min(0, float(top.min())), _robust_top(top)))
        _legend(axes, len(names))
    return figure


def learning_rate(metrics: Sequence[Row]) -> Figure | None:
    """The learning rate against steps."""
    names = [name for name in _columns(metrics) if name in ("lr", "learning_rate") or name.startswith("lr/")]
    if not names:
        return None
    with axes_of(7, 2.2) as (figure, axes):
        for colour, name in zip(class_colours(len(names)), names, strict=True):
            points = np.array(series(metrics, name))
            axes.plot(points[:, 0], points[:, 1], color=colour, label=name)
        axes.set(xlabel=_unit(metrics), ylabel="learning rate")
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
        if len(names) > 1:
            _legend(axes, len(names))
    return figure


def score_curves(results: Sequence[Row]) -> Figure | None:
    """The marks on the validation split against epochs."""
    wanted = ("AP", "AP50", "AP75", "AR100", "accuracy", "top5", "macro_f1", "auc")
    names = [name for key in wanted for name in (key, f"val/{key}") if series(results, name)]
    if not names:
        return None
    by_epoch = [{**row, "step": None} if _number(row.get("epoch")) is not None else row for row in results]
    with axes_of(7, 3.0) as (figure, axes):
        for colour, name in zip(class_colours(len(names)), names, strict=True):
            points = np.array(series(by_epoch, name))
            axes.plot(points[:, 0], points[:, 1], color=colour, marker="o", markersize=3.5, label=name.split("/")[-1])
        axes.set(xlabel="epoch", ylabel="on the validation split")
        axes.set_ylim(0, 1.02)
        _whole_numbers(axes)
        _legend(axes, len(names))
    return figure


def precision_recall(result: DetectionResult) -> Figure | None:
    """Precision against recall at overlap 0.5, a line a class, the mean in bold."""
    lines = []
    for label, curve in enumerate(result.curves):
        if len(curve.recall) and not np.isnan(curve.recall).any():
            best = np.maximum.accumulate(curve.precision[::-1])[::-1]
            mark = f"{result.classes[label]}  {result.per_class[label]['AP50']:.3f}"
            lines.append((label, np.append(0, curve.recall), np.append(best[0], best), mark))
    mean = f"all classes  {result.summary['AP50']:.3f}"
    return _curves(lines, "recall", "precision", mean=mean, falls_to=0.0)


def roc(result: ClassificationResult) -> Figure | None:
    """True against false positives of each class against the others."""
    lines = []
    for label, curve in enumerate(result.roc):
        if len(curve.false_positive):
            mark = f"{result.classes[label]}  {result.per_class[label]['AUC']:.3f}"
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
    with axes_of(5.6, 4.2) as (figure, axes):
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
    side = float(np.clip(1.5 + 0.42 * count, 3.4, 9.5))
    with axes_of(side + 1.2, side) as (figure, axes):
        shade = np.zeros((count, count, 4))
        shade[..., :3] = np.array(palette(1)[0]) / 255
        shade[..., 3] = 0.9 * part  # transparent, not white: right on a light page and on a dark one
        axes.imshow(shade, interpolation="none")
        axes.set(xlabel="predicted", ylabel="truth")
        small = float(np.clip(150 / count, 3.5, 10))
        shown = [_short(name) for name in names]
        axes.set_xticks(range(count), shown, fontsize=small, rotation=90 if count > 6 else 0)
        axes.set_yticks(range(count), shown, fontsize=small)
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
    order = np.argsort(-sum(counts.values()), kind="stable")[:60]
    height = 0.9 + len(order) * (0.13 + 0.13 * len(counts) if len(order) <= 30 else 0.19)
    with axes_of(7, max(1.8, height)) as (figure, axes):
        thick = 0.82 / len(counts)
        for place, (colour, split) in enumerate(zip(class_colours(len(counts)), counts, strict=True)):
            y = np.arange(len(order)) + (place - (len(counts) - 1) / 2) * thick
            axes.barh(y, counts[split][order], height=thick, color=colour, label=split)
            if len(order) <= 30:
                for at, value in zip(y, counts[split][order], strict=True):
                    axes.annotate(f" {value}", (value, at), va="center", fontsize=7.5)
        axes.set_yticks(range(len(order)), [_short(names[label]) for label in order])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.09, y=0.01)
        axes.set(xlabel="objects" if next(iter(indexes.values())).task == "detect" else "pictures")
        if len(names) > len(order):
            axes.set_title(f"the {len(order)} largest of {len(names)} classes", fontsize=9)
        if len(counts) > 1:
            axes.legend(loc="lower right")
    return figure


def box_sizes(indexes: Mapping[str, Index]) -> Figure | None:
    """Width and height of the objects of all splits in pixels, and COCO's limits of small, medium and large."""
    boxes = [index.boxes for index in indexes.values() if index.task == "detect" and len(index.boxes)]
    if not boxes:
        return None
    labels = np.concatenate([index.labels for index in indexes.values() if index.task == "detect"])
    table = np.concatenate(boxes)
    size = np.maximum(table[:, 2:] - table[:, :2], 1)
    kept = np.random.default_rng(0).permutation(len(size))[:4000]
    names = next(iter(indexes.values())).classes
    colours = class_colours(len(names))
    with axes_of(5.6, 4.2) as (figure, axes):
        for label in range(len(names)):
            mine = kept[labels[kept] == label]
            if len(mine):
                axes.scatter(*size[mine].T, s=9, color=colours[label], alpha=0.45, linewidths=0, label=names[label])
        reach = np.array([1.0, float(size.max()) * 1.3])
        for limit, text in ((32, "small"), (96, "medium")):
            axes.plot(reach, limit**2 / reach, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.annotate(f"{text} below", (limit, limit), fontsize=7.5, rotation=-45, ha="center", va="top")
        low = max(1.0, float(size.min()) / 1.3)
        axes.set(xscale="log", yscale="log", xlim=(low, reach[1]), ylim=(low, reach[1]), aspect="equal")
        axes.set(xlabel="width in pixels", ylabel="height in pixels")
        if len(names) <= NAMED:
            legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), markerscale=2)
            for handle in legend.legend_handles:
                if handle is not None:
                    handle.set_alpha(1)
    return figure


def _columns(rows: Sequence[Row]) -> list[str]:
    return [name for name in dict.fromkeys(key for row in rows for key in row) if series(rows, name)]


def _is_loss(name: str) -> bool:
    return name == "loss" or name.startswith(("loss/", "train/loss", "loss_")) or name.endswith("_loss")


def _unit(rows: Sequence[Row]) -> str:
    return "step" if any(_number(row.get("step")) is not None for row in rows) else "epoch"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred mean over a fortieth of the curve, shorter at the ends so that they stay where they are."""
    reach = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    half = np.minimum(reach, np.minimum(place, place[::-1]))
    return np.asarray((sums[place + half + 1] - sums[place - half]) / (2 * half + 1))


def _robust_top(values: NDArray[np.float64]) -> float:
    """The upper end of a loss axis: a few wild first steps must not flatten the rest."""
    return float(min(values.max(), 3 * np.percentile(values, 95)) * 1.06) or 1.0


def _legend(axes: Axes, count: int) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0)) if count else None


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:16]}…"


def _labels(index: Index) -> NDArray[np.int64]:
    return index.labels if index.image_labels is None else index.image_labels


def _counts(index: Index) -> NDArray[np.int64]:
    return np.bincount(_labels(index), minlength=len(index.classes))
