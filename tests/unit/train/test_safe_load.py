"""Foreign weights: what is harmless loads, what would run code is refused and named, what is damaged is called so."""

from __future__ import annotations

import collections
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torso.config import ModelError
from torso.train import checkpoint
from torso.train.checkpoint import safe_load

pytestmark = pytest.mark.part("train/safe_load")


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4).bfloat16(), "count": torch.tensor(3)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == weights().keys() and all(
        torch.equal(found[name], value) for name, value in weights().items()
    )


@pytest.mark.part("train/checkpoints")
@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        collections.OrderedDict,
        lambda state: {"state_dict": state, "epoch": 3, "arch": "resnet50"},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {"lr": 0.1}},
        lambda state: {"epoch": 1, "model": None, "state_dict_ema": state},
        lambda state: {name: nn.Parameter(value) if value.ndim > 1 else value for name, value in state.items()},
    ],
)
def test_weights_of_others(tmp_path: Path, wrap: Callable[[Any], Any], modern: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(weights()), path, _use_new_zipfile_serialization=modern)
    assert same(safe_load(path))


def test_safetensors_by_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save_file(weights(), path)
    assert same(safe_load(str(path)))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"lr": 0.1}, "keys 'lr'"),
        ([torch.zeros(1)], "list"),
        (torch.zeros(1), "Tensor"),
        ({}, "keys "),
        ({"state_dict": {"a": 1}}, "keys 'state_dict'"),
    ],
)
def test_no_weights_in_it(tmp_path: Path, what: Any, words: str) -> None:
    torch.save(what, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="holds no named tensors") as error:
        safe_load(tmp_path / "x.pt")
    assert words in str(error.value)


class Runs:
    """A pickle that creates the marker file when it is loaded."""

    def __init__(self, marker: Path, how: str) -> None:
        self.marker, self.how = str(marker), how

    def __reduce__(self) -> Any:
        code = f"open({self.marker!r}, 'w').close()"
        if self.how == "nested":
            return torch.storage._load_from_bytes, (saved(Runs(Path(self.marker), "os.system")),)
        return {
            "os.system": (os.system, (f"touch '{self.marker}'",)),
            "exec": (exec, (code,)),
            "eval": (eval, (code,)),
            "subprocess": (subprocess.check_call, (["touch", self.marker],)),
        }[self.how]


class WithState:
    """Harmless to make; `__setstate__` is what would run (opcode BUILD)."""

    def __setstate__(self, state: str) -> None:
        Path(state).touch()

    def __reduce__(self) -> Any:
        return WithState, (), os.environ["TORSO_TEST_MARKER"]


class Module(nn.Module):
    """What `torch.save(model)` gives: a whole pickled module."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(os.environ["TORSO_TEST_MARKER"]).touch()
        super().__setstate__(state)


def saved(what: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer, **options)
    return buffer.getvalue()


def as_zip(stream: bytes, member: str = "archive/data.pkl", **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, stream)
        archive.writestr("archive/version", "3\n")
        for name, data in more.items():
            archive.writestr(f"archive/{name}.pkl", data)
    return buffer.getvalue()


def getattr_chain(marker: Path) -> bytes:
    """getattr(import_module('os'), 'system')(...), written by hand; no forbidden name stands in one piece."""
    return (
        b"\x80\x02cbuiltins\ngetattr\n(cimportlib\nimport_module\n(X\x02\x00\x00\x00ostRX\x06\x00\x00\x00systemtR"
        + (b"(X" + len(command := f"touch '{marker}'".encode()).to_bytes(4, "little") + command + b"tR.")
    )


def hidden_name(marker: Path) -> bytes:
    """STACK_GLOBAL whose two strings come out of the memo."""
    command = f"touch '{marker}'".encode()
    return (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940"
        b"0h\x00h\x01\x93" + b"\x8c" + bytes([len(command)]) + command + b"\x85R."
    )


def old_opcode(marker: Path) -> bytes:
    """INST, the opcode of protocol 0 that imports and calls at once, behind a header of protocol 2."""
    return b"\x80\x02(X" + len(c := f"touch '{marker}'".encode()).to_bytes(4, "little") + c + b"ios\nsystem\n."


def old_tar(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(Runs(marker, "os.system"))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


MALICIOUS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "reduce os.system": (lambda marker: saved({"a": Runs(marker, "os.system")}), "posix.system"),
    "reduce exec": (lambda marker: saved({"a": Runs(marker, "exec")}), "builtin__?s?.exec"),
    "reduce eval, old form": (
        lambda marker: saved(Runs(marker, "eval"), _use_new_zipfile_serialization=False),
        "builtin__?s?.eval",
    ),
    "reduce subprocess": (lambda marker: saved([Runs(marker, "subprocess")]), r"\.check_call"),
    "build": (lambda marker: saved(WithState()), "WithState"),
    "whole module": (lambda marker: saved(Module()), "Module"),
    "getattr chain": (lambda marker: as_zip(getattr_chain(marker)), "builtins.getattr.*importlib.import_module"),
    "memoised names": (lambda marker: as_zip(hidden_name(marker)), "os.system"),
    "old opcode": (old_opcode, "os.system"),
    "pickle in a pickle": (lambda marker: saved(Runs(marker, "nested")), "torch.storage._load_from_bytes"),
    "zip beside the data": (
        lambda marker: as_zip(pickle.dumps({}, 2), constants=pickle.dumps(Runs(marker, "os.system"), 2)),
        "posix.system",
    ),
    "zip in a zip": (
        lambda marker: as_zip(saved(Runs(marker, "os.system")), member="archive/inner.pt"),
        "damaged|would run",
    ),
    "legacy tar": (old_tar, "tar file"),
    "bare pickle": (lambda marker: pickle.dumps(Runs(marker, "os.system"), 2), "posix.system"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", MALICIOUS)
def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str) -> None:
    marker = tmp_path / "ran"
    monkeypatch.setenv("TORSO_TEST_MARKER", str(marker))
    make, words = MALICIOUS[kind]
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(make(marker))
    assert not marker.exists()
    with pytest.raises(ModelError, match=words) as error:
        safe_load(path)
    assert not marker.exists()
    assert str(path) in str(error.value)
    assert error.value.code == 4


@pytest.mark.parametrize("kind", [kind for kind in MALICIOUS if kind not in ("zip in a zip", "legacy tar", "build")])
def test_they_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The tests above test something: unpickled without care, the same files do create the marker."""
    marker = tmp_path / "ran"
    monkeypatch.setenv("TORSO_TEST_MARKER", str(marker))
    data = MALICIOUS[kind][0](marker)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            streams = [archive.read(name) for name in names]
    else:
        streams = [data]
    for stream in streams:
        try:
            trusting = pickle.Unpickler(io.BytesIO(stream))
            trusting.persistent_load = lambda pid: torch.UntypedStorage()  # type: ignore[method-assign]
            for _ in range(4):  # the old form has three harmless pickles before the one that matters
                trusting.load()
        except (EOFError, pickle.UnpicklingError, RuntimeError, AttributeError, TypeError):
            continue
    assert marker.exists()


@pytest.mark.part("train/checkpoints")
@pytest.mark.parametrize("form", ["modern", "old", "safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "head only", "zeroed", "garbage behind a good start"])
def test_damaged_files_get_one_message(tmp_path: Path, form: str, damage: str) -> None:
    path = tmp_path / "x.pt"
    if form == "safetensors":
        save_file({"a": torch.randn(500)}, path)
    else:
        torch.save({"a": torch.randn(500)}, path, _use_new_zipfile_serialization=form == "modern")
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": data[: len(data) // 2],
            "head only": data[:9],
            "zeroed": data[:20] + bytes(len(data) - 20),
            "garbage behind a good start": data[:12] + b"\xff" * 500,
        }[damage]
    )
    with pytest.raises(ModelError, match=r"is damaged or incomplete|holds more than weights"):
        safe_load(path)


def test_something_else_altogether(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_text("<html>Not Found</html>" * 20)
    with pytest.raises(ModelError, match=r"is not a file of weights \(it starts with b'<html>No'\)"):
        safe_load(path)
    with pytest.raises(ModelError, match="No such file"):
        safe_load(tmp_path / "missing.pt")


@pytest.mark.part("train/checkpoints")
def test_our_own_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"model": weights()}, {"step": 1})
    assert same(safe_load(path / "model.safetensors"))
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
