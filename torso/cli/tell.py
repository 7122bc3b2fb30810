"""How a command tells its result: as JSON, or as lines for a person."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Asked = argparse.Namespace


class Unread(Exception):  # noqa: N818 (it is no error)
    """Nobody reads on: ``torso parts | head``. Not BrokenPipeError, which may come from a worker and should be told."""


def tell(asked: Asked, result: Any, lines: Iterable[str]) -> None:
    """The result as JSON, or the lines for a person."""
    if asked.json:
        lines = [json.dumps(plain(result), indent=1, ensure_ascii=False)]
    try:
        for line in lines:
            print(line, file=asked.stdout)
    except BrokenPipeError as error:
        raise Unread from error


def plain(value: Any) -> Any:
    """JSON knows no NaN, and nothing of numpy."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def numbers(marks: Mapping[str, Any]) -> str:
    """Names and values on one line."""
    return "  ".join(f"{name} {cell(value)}" for name, value in marks.items())


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> Iterator[str]:
    """Rows in columns; the last column is cut at the edge of a terminal, never in a pipe."""
    if not rows:
        return
    columns = columns or list(rows[0])
    cells = [[*columns], *([cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield line if room is None or len(line) <= room else line[: room - 1] + "…"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
