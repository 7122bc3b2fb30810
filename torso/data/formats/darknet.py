"""Darknet's ``.cfg``: sections in the order of the network's layers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from torso.config import DataError

Value = int | float | str | list[int | float] | list[str]

LARGEST = 1 << 24
"""Bytes of a file that is read."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Section:
    """One ``[name]`` with its options; ``line`` and ``lines`` (of the options) count from 1."""

    name: str
    line: int
    options: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def darknet(path: str | Path) -> list[Section]:
    """Reads the sections of a Darknet ``.cfg``, in order.

    The first section is ``[net]`` (or ``[network]``), each other one a layer. Spaces mean nothing, also inside a
    value; what follows ``#`` or ``;`` is a comment. A value is a whole number, a real one, a list where it holds a
    comma (``anchors``, ``layers``, ``mask``), or text. Nothing is computed: what options mean and which are left out
    is for who builds the network.

    Args:
        path: the file.

    Returns:
        The sections, with the lines where they and their options stand.

    Raises:
        DataError: no such file, no text, or a line that is neither a section nor ``key=value``, with its number.

    Source: Darknet: Open Source Neural Networks in C, 2013.
    """
    path = Path(path)
    sections: list[Section] = []
    for number, raw in enumerate(_text(path).splitlines(), 1):
        line = re.split("[#;]", raw, maxsplit=1)[0].strip()
        if not line:
            continue
        if line.startswith("["):
            name = line.strip("[]").strip()
            if not line.endswith("]") or not name:
                raise DataError(f"{path}:{number}: expected [name], came {line[:60]!r}")
            sections.append(Section(name, number))
            continue
        key, equals, value = ("".join(part.split()) for part in line.partition("="))
        if not equals or not key or not value:
            raise DataError(f"{path}:{number}: expected key=value or [name], came {line[:60]!r}")
        if not sections:
            raise DataError(f"{path}:{number}: {key} stands before the first section; expected [net]")
        options, lines = sections[-1].options, sections[-1].lines
        if key in options:
            raise DataError(f"{path}:{number}: {key} is set already in line {lines[key]}; keep one of them")
        options[key], lines[key] = _value(value), number
    if not sections or sections[0].name not in ("net", "network"):
        came = f"[{sections[0].name}] in line {sections[0].line}" if sections else "none"
        raise DataError(f"{path}: expected [net] as the first section, came {came}")
    return sections


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: has more than {LARGEST} bytes; a .cfg has a few thousand")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}); is this the .cfg, not the .weights?") from error


def _value(text: str) -> Value:
    if "," not in text:
        return _single(text)
    values = [_single(part) for part in text.split(",") if part]
    numbers = [value for value in values if not isinstance(value, str)]
    return numbers if len(numbers) == len(values) else [part for part in text.split(",") if part]


def _single(text: str) -> int | float | str:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text
