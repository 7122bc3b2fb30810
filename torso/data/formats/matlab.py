"""Tables in MATLAB 5 files, as ImageNet's development kit has one: text and numbers, nothing else.

Read by hand, since scipy's reader can crash the process on a damaged file.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

from torso.config import DataError

MAX_BYTES = 64 << 20  # of what is compressed in a file
MAX_DEPTH = 8
Value = str | float | None
_MATRIX, _COMPRESSED = 14, 15
_CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}  # storage of numbers
_TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_STRUCT, _CHAR = 2, 4
_NUMBERS = range(6, 16)  # classes of arrays, double to unsigned 64 bits
_COMPLEX = 0x800


def read_table(data: bytes, name: str) -> list[dict[str, Value]]:
    """The rows of a struct array by the names of its fields; a field that is no text and no one number is None.

    Args:
        data: the file.
        name: the array's.

    Raises:
        DataError: another kind of file, damaged, or without that array.
    """
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise DataError("is no MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for element in _elements(data[128:], order):
            kind, body = _unpacked(element[1], order) if element[0] == _COMPRESSED else element
            found = _matrix(body, order, name) if kind == _MATRIX else None
            if isinstance(found, list):
                return found
    except (struct.error, zlib.error, ValueError, IndexError, StopIteration, OverflowError) as error:
        raise DataError(f"is damaged ({type(error).__name__}: {str(error)[:80]})") from error
    raise DataError(f"holds no table {name!r}")


def _unpacked(data: bytes, order: str) -> tuple[int, bytes]:
    engine = zlib.decompressobj()
    whole = engine.decompress(data, MAX_BYTES)
    if engine.unconsumed_tail:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return next(_elements(whole, order))


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each element; small ones keep their bytes inside the tag."""
    at = 0
    while at + 8 <= len(data):
        first, count = struct.unpack_from(f"{order}II", data, at)
        if first >> 16:
            kind, count = first & 0xFFFF, first >> 16
            if count > 4:
                raise ValueError("a small element that is not small")
            yield kind, data[at + 4 : at + 4 + count]
            at += 8
            continue
        if at + 8 + count > len(data):
            raise ValueError("an element that ends after its file")
        yield first, data[at + 8 : at + 8 + count]
        at += 8 + count + (-count % 8 if first != _COMPRESSED else 0)


def _matrix(data: bytes, order: str, wanted: str = "", depth: int = 0) -> list[dict[str, Value]] | Value:
    """A table where its name is ``wanted``; text or a number otherwise, and None for all else."""
    parts = _elements(data, order)
    _, flags = next(parts, (0, b""))
    if len(flags) < 4 or depth > MAX_DEPTH:
        return None
    (word,) = struct.unpack_from(f"{order}I", flags)
    shape = _numbers(*next(parts), order)
    name = next(parts)[1].decode("ascii", "replace")
    kind = word & 0xFF
    if kind == _STRUCT and name == wanted:
        return _rows(parts, order, math.prod(map(int, shape)), depth)
    if kind == _CHAR:
        return _text(*next(parts), order)
    if kind in _NUMBERS and not word & _COMPLEX and math.prod(shape) == 1:
        (number,) = _numbers(*next(parts), order)
        return number
    return None


def _rows(parts: Iterator[tuple[int, bytes]], order: str, count: int, depth: int) -> list[dict[str, Value]]:
    (length,) = _numbers(*next(parts), order)
    text, step = next(parts)[1], int(length)
    if not 0 < step <= 64 or not text:
        raise ValueError("fields without names")
    fields = [text[at : at + step].split(b"\0")[0].decode("ascii", "replace") for at in range(0, len(text), step)]
    rows = []
    for _ in range(count):
        values = [_matrix(next(parts)[1], order, depth=depth + 1) for _ in fields]
        rows.append({field: None if isinstance(v, list) else v for field, v in zip(fields, values, strict=True)})
    return rows


def _numbers(kind: int, data: bytes, order: str) -> tuple[float, ...]:
    if kind not in _CODES:
        raise ValueError(f"numbers stored as type {kind}")
    code = _CODES[kind]
    return struct.unpack(f"{order}{len(data) // struct.calcsize(code)}{code}", data)


def _text(kind: int, data: bytes, order: str) -> str:
    if kind in _TEXT:
        tail = "" if kind == 16 else "-le" if order == "<" else "-be"
        return data.decode(_TEXT[kind] + tail, "replace")
    return "".join(chr(int(number)) for number in _numbers(kind, data, order))
