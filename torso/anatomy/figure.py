"""The anatomy of a model as a figure: picture, backbone, neck and head with the shapes that flow between them (SVG)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from torso.anatomy.summary import Row, shown
from torso.boxes.cells import pair

WIDTH, LEVEL, GAP, TOP = 190, 62, 90, 92  # of a column, of a level's row, between columns, above the first level
COLOURS = {"picture": "#5b6472", "backbone": "#2f7ed8", "neck": "#2ca25f", "head": "#e4572e"}
STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#1e2228}.t{font-size:15px;font-weight:600}.s{font-size:12px;"
    "fill:#5b6472}.l{font-size:12px;fill:#fff}"
)


Stride = tuple[int, int]
"""Height and width of a cell in pixels."""

Place = tuple[float, float, Stride]
"""Left and top of a box, and its stride."""


class Level(NamedTuple):
    """One box: its place among the strides, and what it says."""

    stride: Stride
    lines: tuple[str, ...]


class Column(NamedTuple):
    """One section of a model."""

    name: str
    title: str
    notes: tuple[str, ...]
    levels: tuple[Level, ...]


def anatomy_svg(
    rows: Sequence[Row],
    size: tuple[int, int],
    title: str,
    strides: dict[str, Sequence[int | Stride]],
    kinds: dict[str, str],
) -> str:
    """Draws the sections of a model from its summary.

    Args:
        rows: of `torso.anatomy.summary`.
        size: width and height of the picture.
        title: above the figure.
        strides: of the levels that backbone and neck give, by section; a number, or a pair of height and width.
        kinds: the name of each section's part, for its title.

    Returns:
        The SVG, self-contained.
    """
    by_path = {row.path: row for row in rows}
    drawn = Level((1, 1), (f"3 x {size[1]} x {size[0]}",))
    columns = [Column("picture", "picture", (f"{size[0]} x {size[1]}",), (drawn,))]
    for name in ("backbone", "neck"):
        row = by_path.get(name)
        if row is not None and row.outputs:
            levels = tuple(
                Level(stride, (" x ".join(map(str, shape[1:])), f"stride {_words(stride)}"))
                for shape, stride in zip(row.outputs, map(pair, strides.get(name, ())), strict=False)
            )
            columns.append(Column(name, kinds.get(name, row.kind), _notes(row), levels))
    head = by_path.get("head")
    if head is not None:
        last = columns[-1].levels
        lines = tuple(" x ".join(map(str, shape[1:])) for shape in head.outputs)
        middle = last[len(last) // 2].stride if last else (1, 1)
        columns.append(Column("head", kinds.get("head", head.kind), _notes(head), (Level(middle, lines),)))
    return _drawn(columns, title, by_path[""])


def _words(stride: Stride) -> str:
    height, width = stride
    return str(height) if height == width else f"{height} x {width}"


def _rank(stride: Stride) -> tuple[int, int, int]:
    """From fine to coarse; of equal areas the square first."""
    return stride[0] * stride[1], max(stride), stride[0]


def _notes(row: Row) -> tuple[str, ...]:
    notes = [f"{shown(row.parameters)} parameters", f"{shown(row.flops)}FLOP"]
    if row.receptive_field is not None:
        sees = "the whole picture" if row.receptive_field == math.inf else f"{row.receptive_field:g} px"
        notes.append(f"sees {sees}")
    return tuple(notes)


def _drawn(columns: Sequence[Column], title: str, whole: Row) -> str:
    strides = sorted({level.stride for column in columns[1:] for level in column.levels}, key=_rank)
    rows = {stride: number for number, stride in enumerate(strides)}
    height = TOP + max(len(strides), 1) * LEVEL + 86
    width = len(columns) * (WIDTH + GAP) - GAP + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#9aa3b0"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#f6f7f9"/>',
        f'<text class="t" x="30" y="34">{escape(title)}</text>',
        f'<text class="s" x="30" y="54">{shown(whole.parameters)} parameters, {shown(whole.flops)}FLOP a picture '
        "(2 operations a multiply-add)</text>",
    ]
    middle = (len(strides) - 1) / 2
    boxes: list[list[Place]] = []
    for number, column in enumerate(columns):
        left = 30 + number * (WIDTH + GAP)
        placed: list[Place] = []
        for level in column.levels:
            at = rows[level.stride] if level.stride in rows and column.name != "head" else middle
            placed.append((left, TOP + at * LEVEL, level.stride))
            parts += _box(left, TOP + at * LEVEL, COLOURS[column.name], level.lines)
        boxes.append(placed)
        bottom = height - 66
        parts.append(f'<text class="t" x="{left}" y="{bottom}">{escape(column.title)}</text>')
        parts += [
            f'<text class="s" x="{left}" y="{bottom + 17 + 15 * place}">{escape(note)}</text>'
            for place, note in enumerate(column.notes)
        ]
    for before, after in itertools.pairwise(boxes):
        parts += _arrows(before, after)
    return "\n".join([*parts, "</svg>"])


def _box(left: float, top: float, colour: str, lines: Sequence[str]) -> list[str]:
    height = LEVEL - 18
    first = top + height / 2 + 4 - 8 * (len(lines) - 1)
    parts = [f'<rect x="{left}" y="{top:g}" width="{WIDTH}" height="{height}" rx="7" fill="{colour}"/>']
    return parts + [
        f'<text class="l" x="{left + 12}" y="{first + 16 * place:g}">{escape(line)}</text>'
        for place, line in enumerate(lines)
    ]


def _arrows(before: Sequence[Place], after: Sequence[Place]) -> list[str]:
    """From each level to the one of its stride; from one to all, and from all to one."""
    pairs = [(a, b) for a in before for b in after if a[2] == b[2] or len(before) == 1 or len(after) == 1]
    half = (LEVEL - 18) / 2
    return [
        f'<path d="M{a[0] + WIDTH + 3} {a[1] + half:g}C{a[0] + WIDTH + GAP / 2} {a[1] + half:g} '
        f'{b[0] - GAP / 2} {b[1] + half:g} {b[0] - 4} {b[1] + half:g}" fill="none" stroke="#9aa3b0" '
        'stroke-width="1.6" marker-end="url(#a)"/>'
        for a, b in pairs
    ]
