"""Figures of how a run learned: loss, learning rate and marks over its steps and epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torso.evaluate.figure import axes_of, class_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Point = tuple[float, float]


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
    with axes_of(4.9, 2.6) as (figure, axes):
        for colour, name in zip(class_colours(len(names)), names, strict=True):
            points = np.array(series(metrics, name))
            label = name.rpartition("/")[2].replace("_", " ")
            axes.plot(points[:, 0], points[:, 1], color=colour, alpha=0.25, linewidth=0.9)
            smooth = _smooth(points[:, 1])
            axes.plot(points[:, 0], smooth, color=colour, linewidth=2.2 if label == "loss" else 1.5, label=label)
        if not names:
            return None
        top = np.concatenate([np.array(series(metrics, name))[:, 1] for name in names])
        axes.set(xlabel=_unit(metrics), ylabel="loss", ylim=(min(0, float(top.min())), _robust_top(top)))
        axes.legend(loc="upper right", ncols=1 + len(names) // 6)
    return figure


def learning_rate(metrics: Sequence[Row]) -> Figure | None:
    """The learning rate against steps."""
    names = [name for name in _columns(metrics) if name in ("lr", "learning_rate") or name.startswith("lr/")]
    if not names:
        return None
    with axes_of(4.9, 1.4) as (figure, axes):
        for colour, name in zip(class_colours(len(names)), names, strict=True):
            points = np.array(series(metrics, name))
            axes.plot(points[:, 0], points[:, 1], color=colour, label=name)
        axes.set(xlabel=_unit(metrics), ylabel="learning rate")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
        if len(names) > 1:
            axes.legend(loc="upper right")
    return figure


def score_curves(results: Sequence[Row]) -> Figure | None:
    """The marks on the validation split against epochs."""
    wanted = ("AP", "AP50", "AP75", "mask AP", "mask AP50", "AR100", "accuracy", "top5", "macro_f1", "auc")
    names = [name for key in wanted for name in (key, f"val/{key}") if series(results, name)]
    if not names:
        return None
    from matplotlib.ticker import MaxNLocator

    by_epoch = [{**row, "step": None} if _number(row.get("epoch")) is not None else row for row in results]
    with axes_of(4.9, 2.6) as (figure, axes):
        for colour, name in zip(class_colours(len(names)), names, strict=True):
            points = np.array(series(by_epoch, name))
            axes.plot(points[:, 0], points[:, 1], color=colour, marker="o", markersize=3.5, label=name.split("/")[-1])
        axes.set(xlabel="epoch", ylabel="on the validation split")
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best", ncols=1 + len(names) // 5)
    return figure


def _columns(rows: Sequence[Row]) -> list[str]:
    return [name for name in dict.fromkeys(key for row in rows for key in row) if series(rows, name)]


def flat(row: Row) -> dict[str, Any]:
    """A row whose nested parts are columns.

    >>> flat({"step": 1, "losses": {"box": 0.5}})
    {'step': 1, 'losses/box': 0.5}
    """
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{inner}": number for inner, number in flat(value).items()}
        else:
            found[key] = value
    return found


def _is_loss(name: str) -> bool:
    return name == "loss" or name.startswith(("loss/", "losses/", "train/loss", "loss_")) or name.endswith("_loss")


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
