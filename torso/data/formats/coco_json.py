"""COCO's json as a stream: the rows of its lists come in chunks of a few megabytes and can be dropped at once.

``json.loads`` would need several times the file's size in memory. The file is read, not mapped: a mapped file that
somebody shortens ends the process by a signal.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

from torso.config import DataError

LARGEST = 1 << 33
"""Bytes of a json that is read; a parameter of every reader."""

_CHUNK = 1 << 21  # bytes; more is not faster
_SPACE = re.compile(rb"[ \t\n\r]*")
_BEGIN = re.compile(rb'\{[ \t\n\r]*"[^"\\]*"')  # of a row, up to its first key
_SPACES = frozenset(" \t\n\r")
_DECODER = json.JSONDecoder()


class Rows(Protocol):
    """Takes the rows of one list."""

    def chunk(self, text: bytes, start: int) -> int:
        """Takes rows as they stand in the file, separated by commas; how many, or 0 where it wants them decoded."""
        ...

    def rows(self, rows: list[Any], start: int) -> None:
        """Takes rows that are decoded; the first of them has the number ``start`` in its list."""
        ...


class Kept:
    """Rows as they are, for short lists."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def chunk(self, text: bytes, start: int) -> int:
        """Wants them decoded."""
        return 0

    def rows(self, rows: list[Any], start: int) -> None:
        """Keeps them."""
        self.found += rows


class _Dropped:
    """Rows that nobody wants; they are decoded all the same, for the file must be json to its end."""

    def chunk(self, text: bytes, start: int) -> int:
        return 0

    def rows(self, rows: list[Any], start: int) -> None:
        pass


def stream(
    file: Path, lists: Mapping[str, Rows], largest: int = LARGEST, optional: frozenset[str] = frozenset()
) -> None:
    """Reads a json object and hands the rows of its lists out.

    Args:
        file: the json.
        lists: who takes the rows of which key; what has other keys is dropped.
        largest: bytes the file may have.
        optional: keys of ``lists`` that may be absent.

    Raises:
        DataError: too large, not UTF-8 (or 16, 32), not json (with line and path inside), nested too deeply, or a key
            of ``lists`` that is no list.
    """
    try:
        size = file.stat().st_size
        if size > largest:
            raise DataError(f"{file}: has {size} bytes, at most {largest} are read; raise the option `largest`")
        with _opened(file) as source, _without_collector():
            found = _Stream(file, source).object(lists)
    except RecursionError as error:
        raise DataError(f"{file}: is nested too deeply to be COCO") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    for key in lists.keys() - found - optional:
        raise DataError(f"{file}: {key}: expected a list, came nothing")


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Decoded rows hold no cycles; looking for some in millions of them takes longer than decoding."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _opened(file: Path) -> BinaryIO:
    """The file as UTF-8 without a byte order mark."""
    source = file.open("rb")
    start = source.read(4)
    encoding = json.detect_encoding(start)
    source.seek(3 if encoding == "utf-8-sig" else 0)
    if encoding in ("utf-8", "utf-8-sig"):
        return source
    with source:  # rare and so not streamed
        try:
            return io.BytesIO(source.read().decode(encoding).removeprefix("\ufeff").encode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: is not {encoding.upper()} text ({error.reason})") from error


class _Stream:
    """A window on the file that moves forward; ``at`` is the place in ``window``, ``passed`` what lies before it."""

    def __init__(self, file: Path, source: BinaryIO) -> None:
        self.file, self.source, self.origin = file, source, source.tell()
        self.window, self.at, self.passed, self.ended = b"", 0, 0, False

    def object(self, lists: Mapping[str, Rows]) -> set[str]:
        """Reads everything and returns the keys."""
        if self.next() != b"{":
            came = type(self.value("the start")).__name__
            raise DataError(f"{self.file}: expected an object with images, annotations and categories, came a {came}")
        found: set[str] = set()
        self.at += 1
        last = b"}" if self.next() == b"}" else b","
        while last == b",":
            key = self.key(found)
            if self.next() == b"[":
                self.array(key, lists.get(key) or _Dropped())
            else:
                value = self.value(key)
                if key in lists:
                    came = "nothing" if value is None else type(value).__name__
                    raise DataError(f"{self.file}: {key}: expected a list, came {came}")
            found.add(key)
            last = self.next()
            if last not in (b",", b"}"):
                self.wrong("expected , or }", f"the end of {key}")
            self.at += 1
        self.at += not found
        if self.next():
            self.wrong("more follows after the end", "the end")
        return found

    def key(self, found: set[str]) -> str:
        """A key and its colon."""
        if self.next() != b'"':
            self.wrong("expected a key", "the start" if not found else "the next key")
        key = str(self.value("a key"))
        if key in found:
            raise DataError(f"{self.file}: {key}: comes twice")
        if self.next() != b":":
            self.wrong("expected :", key)
        self.at += 1
        return key

    def array(self, key: str, rows: Rows) -> None:
        """Hands out the rows of a list that begins here."""
        self.at += 1
        if self.next() == b"]":
            self.at += 1
            return
        number, done = 0, False
        while not done:
            self.next()
            if len(self.window) - self.at < _CHUNK and not self.ended:
                self.grow()
            took = self._many(rows, number)
            if not took:
                found, done = self._one_by_one(key, number)
                rows.rows(found, number)
                took = len(found)
            number += took

    def _many(self, rows: Rows, number: int) -> int:
        """As many rows as the window holds in one go; 0 where that cannot be, and row by row must do.

        A row begins as the one here does, so the last such place should end a row. It may lie inside of one, or
        behind the list: then what is between is no list of whole rows, which the decoder says.
        """
        begin = _BEGIN.match(self.window, self.at)
        cut = self.window.rfind(begin[0], begin.end()) if begin else -1
        if cut < 0:
            return 0
        chunk = self.window[self.at : cut].rstrip(b" \t\n\r")
        if not chunk.endswith(b","):
            return 0
        chunk = chunk[:-1]
        took = rows.chunk(chunk, number)
        if not took:
            try:
                found = _DECODER.decode(f"[{chunk.decode('utf-8')}]")
            except ValueError:
                return 0
            rows.rows(found, number)
            took = len(found)
        self.at = cut
        return took

    def _one_by_one(self, key: str, number: int) -> tuple[list[Any], bool]:
        """The whole rows of the window, and whether they end the list."""
        text, at, done = self.text(), 0, False
        found: list[Any] = []
        while not done:
            where = f"{key}[{number + len(found)}]"
            try:
                value, end = _DECODER.raw_decode(text, at)
            except json.JSONDecodeError as error:
                if found:  # the next call sees what is wrong, or more of it
                    break
                self.broken(error, text, where)
                return [], False
            except ValueError as error:
                self.wrong(str(error), where)
            end = end if self.cut(text, end) else _space(text, end)
            if self.cut(text, end):
                if found:
                    break
                self.grow()
                return [], False
            if text[end : end + 1] not in (",", "]"):
                self.wrong("expected , or ]", where, text[:end])
            done = text[end] == "]"
            found.append(value)
            at = end + 1 if done else _space(text, end + 1)
        self.at += _length(text, at)
        return found, done

    def value(self, where: str) -> Any:
        """The value that begins here."""
        while True:
            text = self.text()
            try:
                value, end = _DECODER.raw_decode(text)
            except json.JSONDecodeError as error:
                self.broken(error, text, where)
                continue
            except ValueError as error:
                self.wrong(str(error), where)
            if not self.cut(text, end):
                self.at += _length(text, end)
                return value
            self.grow()

    def next(self) -> bytes:
        """The next byte that is no space; nothing at the end of the file."""
        while True:
            match = _SPACE.match(self.window, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.window) or self.ended:
                return self.window[self.at : self.at + 1]
            self.grow()

    def grow(self) -> None:
        """Widens the window to at least twice what it still holds."""
        more = self.source.read(max(_CHUNK, len(self.window) - self.at))
        self.passed += self.at
        self.window, self.at, self.ended = self.window[self.at :] + more, 0, not more

    def text(self) -> str:
        """What the window still holds; a letter cut at its end is left for later."""
        raw = self.window[self.at :]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start > len(raw) - 4 and not self.ended:
                return raw[: error.start].decode("utf-8")
            line = self.line(self.passed + self.at + error.start)
            raise DataError(f"{self.file}:{line}: is not UTF-8 text ({error.reason})") from error

    def cut(self, text: str, end: int) -> bool:
        """Whether a value that ends here may go on behind the window: "1" may become "1.5" or "1e-5"."""
        return len(text) - end < 4 and not self.ended

    def broken(self, error: json.JSONDecodeError, text: str, where: str) -> None:
        """Widens the window where the text may only be cut, and raises where it is wrong."""
        near_the_end = error.pos > len(text) - 16 or error.msg.startswith("Unterminated string")
        if self.ended or not near_the_end:
            self.wrong(error.msg, where, text[: error.pos])
        self.grow()

    def wrong(self, message: str, where: str, before: str = "") -> NoReturn:
        """Raises, naming the line and the path inside the json."""
        line = self.line(self.passed + self.at + _length(before, len(before)))
        raise DataError(f"{self.file}:{line}: is not JSON at {where} ({message})")

    def line(self, position: int) -> int:
        """The line of a byte, from 1."""
        self.source.seek(self.origin)
        line = 1
        while position > 0 and (read := self.source.read(min(position, _CHUNK))):
            line, position = line + read.count(b"\n"), position - len(read)
        return line


def _space(text: str, at: int) -> int:
    """Behind the spaces that begin here."""
    while text[at : at + 1] in _SPACES:
        at += 1
    return at


def _length(text: str, end: int) -> int:
    """Bytes of the first letters."""
    return end if text.isascii() else len(text[:end].encode("utf-8"))
