"""Pickles of arrays, text and numbers, read without unpickling.

A pickle is a program. Here its instructions are looked at one by one, and those that describe lists, dicts, text,
numbers and numpy arrays are followed on a stack of our own; nothing that a file names is ever imported or called.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError

_KINDS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_BYTES = ("__builtin__ bytes", "builtins bytes")
# The only names a pickle may mention: what each stands for is done here, by hand.
NAMES = frozenset({*_RECONSTRUCT, *_SCALAR, *_BYTES, "numpy ndarray", "numpy dtype", "_codecs encode"})

_PLAIN = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_OLD_TEXT = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass
class Array:
    """An array of a pickle; ``values`` is a list where it holds objects."""

    values: NDArray[Any] | list[Any] | None = None


@dataclass
class _Kind:
    """The element type of an array."""

    code: str
    order: str = "|"

    def of(self) -> np.dtype[Any]:
        return np.dtype(self.code if self.order == "|" else self.order + self.code)


@dataclass(frozen=True)
class _Name:
    text: str


class _Mark:
    pass


class _RefusedError(Exception):
    pass


def read_pickle(data: bytes, name: str) -> Any:
    """What a pickle describes: lists, tuples, dicts, ``str``, ``bytes``, numbers, and `Array`.

    Args:
        data: the file.
        name: its name in messages.

    Raises:
        DataError: damaged, or anything beyond that: it is refused, not run.
    """
    try:
        return _Machine().run(data)
    except _RefusedError as error:
        raise DataError(f"{name}: refused, nothing in it was run: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, ArithmeticError) as error:
        raise DataError(f"{name}: is a damaged pickle ({type(error).__name__}: {str(error)[:80]})") from error


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for op, argument, _ in pickletools.genops(data):
            if op.name == "STOP":
                return self.stack.pop()
            self.step(op.name, argument)
        raise ValueError("it has no end")

    def step(self, op: str, argument: Any) -> None:
        """One instruction."""
        if op in ("PROTO", "FRAME") or self.put(op, argument) or self.gathered(op):
            return
        if op in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(self.named(argument))
        elif op == "REDUCE":
            arguments = self.stack.pop()
            self.stack.append(_made(self.stack.pop(), arguments))
        elif op == "BUILD":
            state = self.stack.pop()
            _build(self.stack[-1], state)
        else:
            raise _RefusedError(f"instruction {op} has no place in a file of pictures")

    def put(self, op: str, argument: Any) -> bool:
        """Values, and those remembered; whether it was one."""
        if op in _PLAIN:
            self.stack.append(argument)
        elif op in _OLD_TEXT:
            self.stack.append(argument.encode("latin-1"))
        elif op in _CONSTANTS:
            self.stack.append(_CONSTANTS[op])
        elif op in _EMPTY:
            self.stack.append(_EMPTY[op]())
        elif op in _PUT:
            self.memo[len(self.memo) if op == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif op in _GET:
            self.stack.append(self.memo[int(argument)])
        else:
            return False
        return True

    def gathered(self, op: str) -> bool:
        """What makes one thing of several; whether it was that."""
        if op == "MARK":
            self.stack.append(_Mark())
        elif op == "POP":
            self.stack.pop()
        elif op in _TUPLES:
            count = _TUPLES[op]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif op == "TUPLE":
            self.stack.append(tuple(self.marked()))
        elif op in ("LIST", "DICT"):
            items = self.marked()
            self.stack.append(items if op == "LIST" else _dict({}, items))
        elif op in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self.fill(op)
        else:
            return False
        return True

    def marked(self) -> list[Any]:
        """Takes everything after the last mark."""
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def fill(self, op: str) -> None:
        """Items into the list or dict below them."""
        if op.endswith("S"):
            items = self.marked()
        else:
            count = 1 if op == "APPEND" else 2
            items, self.stack[-count:] = self.stack[-count:], []
        target = self.stack[-1]
        if op.startswith("APPEND"):
            if type(target) is not list:
                raise TypeError("expected a list")
            target.extend(items)
            return
        _dict(target, items)

    def named(self, argument: Any) -> _Name:
        """A name from ``NAMES``."""
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
            if not (isinstance(module, str) and isinstance(name, str)):
                raise TypeError("expected a name")
            argument = f"{module} {name}"
        if argument not in NAMES:
            raise _RefusedError(f"it names {str(argument).replace(' ', '.')[:80]!r}, which is no array, text or number")
        return _Name(argument)


def _dict(target: Any, items: list[Any]) -> dict[Any, Any]:
    """Keys and values, one after the other, into a dict."""
    if type(target) is not dict or len(items) % 2:
        raise TypeError("expected a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int):  # the hash of tuples in tuples may take for ever
            raise TypeError("expected text as a key")
        target[key] = value
    return target


def _made(what: Any, arguments: Any) -> Any:
    """What a name stands for, given its arguments."""
    if not isinstance(what, _Name) or type(arguments) is not tuple:
        raise _RefusedError("it calls something that is no name")
    if what.text in _RECONSTRUCT:
        return Array()
    if what.text in _BYTES and not arguments:
        return b""
    if what.text == "_codecs encode" and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1"):
        return str.encode(arguments[0], "latin-1")
    if what.text == "numpy dtype":
        return _Kind(_text(arguments[0]).lstrip("<>|="))
    if what.text in _SCALAR and isinstance(arguments[0], _Kind):
        return np.frombuffer(_bytes(arguments[1]), _allowed(arguments[0]), count=1)[0].item()
    raise _RefusedError(f"it calls {what.text.replace(' ', '.')!r} in a way that makes no array, text or number")


def _build(target: Any, state: Any) -> None:
    """Gives an array its values, or an element type its byte order."""
    if isinstance(target, _Kind) and type(state) is tuple:
        target.order = _text(state[1])
        if target.order not in ("<", ">", "=", "|"):
            raise ValueError("a byte order that does not exist")
    elif isinstance(target, Array) and type(state) is tuple and len(state) == 5:
        _, shape, kind, columns_first, data = state
        if type(shape) is not tuple or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("a shape of sides below zero")
        if isinstance(kind, _Kind) and kind.code in ("O", "O8") and type(data) is list:
            target.values = data
            return
        values = np.frombuffer(_bytes(data), _allowed(kind))
        if values.size != math.prod(shape):
            raise ValueError("an array of another size than its data")
        target.values = values.reshape(shape, order="F" if columns_first else "C")
    else:
        raise _RefusedError("it sets the state of something that is no array")


def _allowed(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Kind) or kind.code not in _KINDS:
        raise _RefusedError("it holds an array of something that is no number")
    return kind.of()


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("expected the bytes of an array")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise TypeError("expected text")
    return value if isinstance(value, str) else value.decode("latin-1")
