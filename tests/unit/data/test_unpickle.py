"""Pickles are read without being run: what real files hold comes out, what would execute is refused by name."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torso.config import DataError
from torso.data.unpickle import Array, read_pickle


def text(value: str) -> bytes:
    """Text as protocol 2 writes it."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


class Calls:
    """Unpickled, it calls something."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.what, self.arguments = what, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.what, self.arguments


def code(path: str) -> str:
    return f"__import__('pathlib').Path({path!r}).touch()"


def called(path: str) -> bytes:
    """The plainest of all."""
    return b"\x80\x02cposix\nsystem\n" + text(f"touch {path}") + b"\x85R."


ATTACKS: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda path: pickle.dumps(Calls(os.system, f"touch {path}"), 2),
    "eval": lambda path: pickle.dumps(Calls(eval, code(path)), 2),
    "exec": lambda path: pickle.dumps(Calls(exec, code(path)), 4),
    "os.mkdir": lambda path: pickle.dumps(Calls(os.mkdir, path), 5),
    "in a list": lambda path: pickle.dumps({b"data": [1, (2, Calls(os.system, f"touch {path}"))]}, 2),
    "as a label": lambda path: pickle.dumps({b"data": np.zeros((1, 3)), b"labels": [Calls(eval, code(path))]}, 2),
    "in an array": lambda path: pickle.dumps(np.array([Calls(os.system, f"touch {path}")], dtype=object), 2),
    "INST": lambda path: b"(S'touch " + path.encode() + b"'\nios\nsystem\n.",
    "OBJ": lambda path: b"(cos\nsystem\n" + text(f"touch {path}") + b"o.",
    "NEWOBJ": lambda path: b"\x80\x02cpathlib\nPath\n" + text(path) + b"\x85\x81cpathlib\nPath.touch\n0.",
    "text protocol": lambda path: b"cos\nsystem\n(S'touch " + path.encode() + b"'\ntR.",
    "STACK_GLOBAL": lambda path: b"\x80\x04" + text("os") + text("system") + b"\x93" + text(f"touch {path}")
        + b"\x85R.",
    "getattr chain": lambda path: b"\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\n" + text("os") + b"\x85R"
        + text("system") + b"\x86R" + text(f"touch {path}") + b"\x85R.",
    "BUILD": lambda path: b"\x80\x02cnumpy\ndtype\n" + text("u1") + b"\x85R}" + text("x") + b"cos\nsystem\n"
        + text(f"touch {path}") + b"\x85Rsb.",
    "before a good end": lambda path: called(path)[:-1] + b"0" + pickle.dumps({b"labels": [1]}, 2)[2:],
    "nested": lambda path: pickle.dumps(Calls(pickle.loads, called(path)), 2),
    "subprocess": lambda path: pickle.dumps(Calls(subprocess.call, ["touch", path]), 2),
}  # fmt: skip


@pytest.mark.part("format/cifar")
@pytest.mark.parametrize("name", ATTACKS)
def test_a_malicious_pickle_is_refused_in_one_sentence_and_nothing_runs(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attack = ATTACKS[name](str(marker))
    with pytest.raises(DataError, match="data_batch_1: refused, nothing in it was run: "):
        read_pickle(attack, "data_batch_1")
    assert not marker.exists()


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"NEWOBJ", "BUILD"}))  # these two only begin what others end
def test_the_attacks_are_real(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attack = ATTACKS[name](str(marker))
    with contextlib.suppress(TypeError):  # what a call returns may not fit what follows
        pickle.loads(attack)
    assert marker.exists()


def everything(protocol: int) -> bytes:
    content = {
        b"bytes": b"\x00\xff",
        "text": "é",
        "numbers": [0, 255, 65536, -1, 1 << 40, 1.5, True, None],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "u1": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">i4"),
        "scalar": np.float32(2.5),
        "objects": np.array([np.zeros(2, np.uint8), None], dtype=object),
    }
    return pickle.dumps(content, protocol=protocol)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_what_files_of_pictures_hold_comes_out_as_pickle_gives_it(protocol: int) -> None:
    data = everything(protocol)
    if protocol < 2:  # there, arrays are made by code that torso does not know
        data = pickle.dumps({"a": [1, "b", (2.5, None), {"c": []}]}, protocol=protocol)
    ours, truth = read_pickle(data, "x"), pickle.loads(data)
    assert ours.keys() == truth.keys()
    for key, value in truth.items():
        if key == "objects":
            assert isinstance(ours[key], Array)
            assert isinstance(ours[key].values[0], Array)
            assert ours[key].values[1] is None
        elif isinstance(value, np.ndarray):
            assert np.array_equal(ours[key].values, value)
            assert ours[key].values.dtype.newbyteorder("=") == value.dtype
        else:
            assert ours[key] == value


def test_text_of_python_2_is_bytes() -> None:
    assert read_pickle(b"(dp0\nS'labels'\np1\n(lp2\nI3\nas.", "x") == {b"labels": [3]}
    assert read_pickle(b"\x80\x02}U\x04dataU\x02\xff\x00s.", "x") == {b"data": b"\xff\x00"}


def array_of(shape: bytes, kind: str = "u1", data: bytes = b"abcd") -> bytes:
    """A pickle of an array with a state of one's own."""
    start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\n" + text(kind) + b"\x85R"
    return start + b"(K\x01" + shape + dtype + b"\x89U" + bytes([len(data)]) + data + b"tb."


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is a damaged pickle"),
        (b"\x80\x02", "is a damaged pickle"),
        (b"not a pickle", "is a damaged pickle"),
        (b"\x80\x02.", "is a damaged pickle"),
        (b"\x80\x02]t.", "is a damaged pickle"),
        (b"\x80\x02}K\x01)Rs.", "calls something that is no name"),
        (b"\x80\x02j\xff\xff\xff\x7f.", "is a damaged pickle"),
        (b"\x80\x02Nr\xff\xff\xff\x7f0", "is a damaged pickle"),  # a memo of two thousand million entries
        (b"\x80\x02}))s.", "is a damaged pickle"),
        (array_of(b"K\x05\x85"), "is a damaged pickle"),
        (array_of(b"J\xff\xff\xff\xff\x85"), "is a damaged pickle"),
        (array_of(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"), "is a damaged pickle"),
        (array_of(b"K\x04\x85", "V4"), "an array of something that is no number"),
        (array_of(b"K\x04\x85", "O"), "an array of something that is no number"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "is a damaged pickle"),
        (b"\x80\x02c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R.", "in a way that makes no array"),
        (b"\x80\x02cos\nsystem\n.", "it names 'os.system', which is no array"),
        (b"\x80\x02\x82\x01.", "instruction EXT1 has no place"),
        (b"\x80\x02U\x01aQ.", "instruction BINPERSID has no place"),
    ],
)  # fmt: skip
def test_a_damaged_pickle_is_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_pickle(data, "x")
    good = read_pickle(array_of(b"K\x04\x85"), "x")
    assert good.values.tolist() == [97, 98, 99, 100]
