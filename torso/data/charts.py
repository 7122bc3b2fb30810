"""A picture of a data set's numbers: its classes, how large boxes are, and where they lie."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torso.data.index import Index
from torso.data.stats import LARGE, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLASSES = 25  # bars; the rest is counted together
_POINTS = 20_000  # of a scatter; more make it no clearer
_CELLS = 48
_BLUE, _GREY = "#2f6fa7", "#8a8f98"


def chart(index: Index, file: Path | str, *, title: str = "") -> Path:
    """Draws objects a class, box sizes and a heat map of box centres; of pictures with one class, their sizes.

    Args:
        index: the data.
        file: a PNG (or what else the suffix says); its folder is made when it is missing.
        title: above all of it.

    Returns:
        The file.
    """
    import matplotlib as mpl

    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Names are never read as formulas, and a missing glyph is no reason to fail.
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*")
        _drawn(index, title).savefig(file)
    return file


def _drawn(index: Index, title: str) -> Figure:
    from matplotlib.figure import Figure

    boxes = index.image_labels is None and len(index.labels) > 0
    figure = Figure(figsize=(15, 5.2) if boxes else (10.5, 5.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, 3 if boxes else 2)
    _classes(axes[0], index)
    if boxes:
        sizes = index.boxes[:, 2:] - index.boxes[:, :2]
        _scatter(axes[1], sizes, "boxes: width and height in pixels", limits=True)
        _centres(axes[2], index)
    else:
        _scatter(axes[1], index.sizes.astype(np.float64), "pictures: width and height in pixels")
    if title:
        figure.suptitle(_cut(title, 100))
    return figure


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _classes(axes: Axes, index: Index) -> None:
    labels = index.labels if index.image_labels is None else index.image_labels
    counts = np.bincount(labels, minlength=len(index.classes))
    order = np.argsort(-counts, kind="stable")
    names = [_cut(index.classes[label], 22) for label in order[:_CLASSES]]
    values = counts[order[:_CLASSES]].tolist()
    if len(order) > _CLASSES:
        names.append(f"{len(order) - _CLASSES} others")
        values.append(int(counts[order[_CLASSES:]].sum()))
    bars = axes.barh(range(len(values)), values, color=_BLUE, height=0.75)
    axes.bar_label(bars, [f"{value:,}".replace(",", " ") for value in values], padding=3, fontsize=8, color="#333333")
    axes.set_yticks(range(len(names)), names, fontsize=8 if len(names) > 12 else 10)
    axes.set_ylim(max(len(values), 4) - 0.4, -0.6)
    axes.set_xlim(0, max([*values, 1]) * 1.18)
    axes.set_title("objects a class" if index.image_labels is None else "pictures a class")
    axes.spines[["top", "right"]].set_visible(False)


def _scatter(axes: Axes, sizes: NDArray[np.float64], title: str, *, limits: bool = False) -> None:
    """Width and height on logarithmic axes, with the limits of COCO's small and large objects."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = (
        sizes if len(sizes) <= _POINTS else sizes[np.random.default_rng(0).choice(len(sizes), _POINTS, replace=False)]
    )
    low, high = 0.8 * float(shown.min(initial=1e9)), 1.25 * float(shown.max(initial=1))
    faint = min(1.0, max(0.06, 300 / max(len(shown), 1)))
    axes.scatter(shown[:, 0], shown[:, 1], s=9, alpha=faint, color=_BLUE, linewidths=0)
    line = np.geomspace(low, high, 50)
    for area, name in ((SMALL, "32²"), (LARGE, "96²")) if limits else ():
        axes.plot(line, area / line, color=_GREY, linewidth=1, linestyle="--")
        edge = high / 1.25  # near the upper end of the line, where few boxes are
        if low < area / edge < high:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.text(area / edge, edge, name, color="#444444", fontsize=9, ha="center", va="center", bbox=box)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal", title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="width", ylabel="height")
    axes.grid(alpha=0.25)


def _centres(axes: Axes, index: Index) -> None:
    """How many boxes have their centre where, each picture stretched to a square."""
    size = np.repeat(index.sizes, np.diff(index.offsets), axis=0)
    middle = (index.boxes[:, :2] + index.boxes[:, 2:]) / 2 / size
    counts, _, _ = np.histogram2d(middle[:, 1], middle[:, 0], bins=_CELLS, range=((0, 1), (0, 1)))
    image = axes.imshow(counts, cmap="viridis", extent=(0, 1, 1, 0), interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="boxes")
    axes.set(title="where centres of boxes lie", xlabel="part of the width", ylabel="part of the height")
