"""Box sizes and shapes as small SVG: rectangles and numbers, no text of the user's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SIDE, _LEFT, _BOTTOM, _TOP = 300, 46, 40, 8
_CELLS_PER_OCTAVE = 3
_MARKS = (2, 8, 32, 96)  # pixels: nothing left, a cell of the finest level, COCO's small and medium


def size_map(sides: NDArray[np.float64], size: int) -> str:
    """Width and height of all boxes on logarithmic axes up to ``size``; darker where more of them are."""
    top = math.ceil(math.log2(max(size, 2))) * _CELLS_PER_OCTAVE
    cells = np.clip(np.log2(np.maximum(sides, 1)) * _CELLS_PER_OCTAVE, 0, top - 1).astype(int)  # [T, 2]
    number = np.zeros((top, top), np.int64)
    np.add.at(number, (cells[:, 0], cells[:, 1]), 1)
    step = _SIDE / top
    most = math.log1p(int(number.max(initial=1)))
    parts = []
    for column, row in zip(*np.nonzero(number), strict=True):
        strength = 0.15 + 0.85 * math.log1p(int(number[column, row])) / most
        x, y = _LEFT + column * step, _TOP + _SIDE - (row + 1) * step
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{step:.1f}" height="{step:.1f}" opacity="{strength:.2f}" '
            f'class="data"><title>{int(number[column, row])} boxes</title></rect>'
        )
    return _framed(parts, _marks(top, step), "width in pixels", "height in pixels")


def _marks(top: int, step: float) -> list[tuple[float, str]]:
    """Where the axes are labelled: ``(distance from the corner, text)``."""
    places = [(math.log2(mark) * _CELLS_PER_OCTAVE * step, str(mark)) for mark in _MARKS]
    return [(place, text) for place, text in places if place < top * step] + [
        (_SIDE, str(2 ** (top // _CELLS_PER_OCTAVE)))
    ]


def histogram(values: NDArray[np.int64], what: str, *, bins: int = 24) -> str:
    """How many pictures have how many of something; the last bar holds all above the 99th percentile."""
    limit = max(int(np.percentile(values, 99)) if len(values) else 0, 1)
    width = max(1, math.ceil((limit + 1) / bins))
    count = math.ceil((limit + 1) / width)
    number = np.bincount(np.minimum(values // width, count - 1), minlength=count)
    step, most = _SIDE / count, int(number.max(initial=1))
    parts = []
    for at, height in enumerate((number / most * (_SIDE - 6)).tolist()):
        first, last = at * width, (at + 1) * width - 1
        label = f"{first}" if first == last else f"{first} to {last}"
        label = f"{first} and more" if at == count - 1 else label
        parts.append(
            f'<rect x="{_LEFT + at * step + 0.5:.1f}" y="{_TOP + _SIDE - height:.1f}" width="{max(step - 1, 0.5):.1f}" '
            f'height="{height:.1f}" class="data"><title>{label}: {int(number[at])} pictures</title></rect>'
        )
    shown = range(0, count, max(1, count // 6))
    ticks = [((at + 0.5) * step, str(at * width)) for at in shown]
    return _framed(parts, ticks, what, "pictures", up=[(_SIDE - 6.0, str(most))])


def _framed(
    parts: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    right: str,
    upward: str,
    up: Sequence[tuple[float, str]] | None = None,
) -> str:
    """Parts between two axes with ticks; both axes have the same where ``up`` is None."""
    base, end = _TOP + _SIDE, _LEFT + _SIDE
    lines = [f'<path d="M{_LEFT} {_TOP}V{base}H{end}" class="axis"/>']
    for place, text in ticks:
        x = _LEFT + place
        lines.append(f'<path d="M{x:.1f} {base}v4" class="axis"/>')
        lines.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{text}</text>')
    for place, text in ticks if up is None else up:
        y = base - place
        lines.append(f'<path d="M{_LEFT} {y:.1f}h-4" class="axis"/>')
        lines.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    middle = _TOP + _SIDE / 2
    lines.append(f'<text x="{_LEFT + _SIDE / 2}" y="{base + 34}" text-anchor="middle">{right}</text>')
    lines.append(f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{upward}</text>')
    box = f"0 0 {end + 14} {base + _BOTTOM}"
    return f'<svg viewBox="{box}" role="img" aria-label="{right}, {upward}">{"".join([*parts, *lines])}</svg>'
