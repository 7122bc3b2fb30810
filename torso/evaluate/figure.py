"""How figures look and how they are written: Matplotlib without a window and without global state.

A figure is written twice: as PNG on white for files and slides, and as SVG without background whose text and lines
take the colour of the page around it (``currentColor``), so that the report can be light or dark.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torso.boxes.draw import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b2431"  # everything in this colour becomes the text colour of the page in SVG


def save(figures: Mapping[str, Figure], folder: str | Path) -> list[Path]:
    """Write every figure as ``folder/<name>.png``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        path = Path(folder) / f"{name}.png"
        path.write_bytes(to_png(figure))
        written.append(path)
    return written


def to_png(figure: Figure) -> bytes:
    """The figure on white, 150 pixels an inch."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=150, facecolor="white", bbox_inches="tight")
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` without background, its ink the page's text colour; the same text each time."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None}, bbox_inches="tight")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return text.replace(INK, "currentColor").replace('<style type="text/css">*{', '<style type="text/css">svg *{')


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures. Class names are never read as formulas, and a missing glyph is no reason to fail."""
    import matplotlib as mpl

    look: dict[Any, Any] = {
        "font.size": 9.5,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.formatter.use_mathtext": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": INK,
        "grid.alpha": 0.14,
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "lines.linewidth": 1.7,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "torso",
        "savefig.pad_inches": 0.08,
    }
    with mpl.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*")
        yield


@contextmanager
def axes_of(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one picture, to be drawn inside the ``with`` block.

    ``width`` and ``height`` are the inches of what is inside the axes; names and numbers around it take what they need.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width, height))
        yield figure, figure.add_axes((0.0, 0.0, 1.0, 1.0))


def class_colours(count: int) -> list[str]:
    """The colours of ``boxes.draw.palette`` as Matplotlib wants them."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette(count)]
