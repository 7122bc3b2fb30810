"""No moment of a save can lose a run, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torso.config import ModelError, TorsoError
from torso.train import checkpoint, disk

pytestmark = pytest.mark.part("train/checkpoints")
MOST = 100  # touches of the disk in a save are fewer


class CrashError(BaseException):
    """The process is dead: nothing that comes after may run, and no `except OSError` may see it."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checkpoint, "RETRY_AFTER", 0.0)
    monkeypatch.setattr(disk, "CHUNK", 300)  # so that a crash can strike inside a file
    yield
    disk.probe = None


def tensors(step: int) -> checkpoint.TensorFiles:
    torch.manual_seed(step)
    weights = {"kernel": torch.randn(4, 3), "count": torch.tensor(step)}
    return {"model": weights, "optim": {"kernel|exp_avg": torch.randn(4, 3)}}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, step, tensors(step), {"step": step, "about": {"classes": ["a", "b"]}}, keep)


def assert_is(path: Path | None, step: int) -> None:
    assert path is not None
    found, state = checkpoint.load(path)
    assert state["step"] == step
    for name, file in tensors(step).items():
        for key, value in file.items():
            assert torch.equal(found[name][key], value)


class Failing:
    """A probe that raises at the n-th touch of the disk, and at all after it when there are more `times`."""

    def __init__(self, at: int, error: Callable[[], BaseException], times: int = 1) -> None:
        self.at, self.error, self.times = at, error, times
        self.count = 0

    def __call__(self, what: str, path: Path) -> None:
        self.count += 1
        if self.at <= self.count < self.at + self.times:
            raise self.error()

    @property
    def spent(self) -> bool:
        return self.count >= self.at


def test_what_is_written(tmp_path: Path) -> None:
    path = save(tmp_path, 1234)
    assert path.name == "step-00001234"
    assert {file.name for file in path.iterdir()} == {
        "model.safetensors",
        "optim.safetensors",
        "state.json",
        "manifest.json",
    }
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["files"].keys() == {"model.safetensors", "optim.safetensors", "state.json"}
    assert manifest["classes"] == ["a", "b"]
    assert manifest["torch"] == torch.__version__
    assert manifest["world_size"] == 1
    assert len(manifest["config_sha256"]) == 64
    assert_is(path, 1234)
    assert_is(tmp_path / "last", 1234)
    assert checkpoint.latest_valid(tmp_path) == path
    assert not list(tmp_path.glob(".*"))


def test_every_file_is_flushed_before_the_name_and_the_name_before_the_pointer(tmp_path: Path) -> None:
    touches: list[tuple[str, str]] = []
    disk.probe = lambda what, path: touches.append((what, path.name))
    save(tmp_path, 7)
    named = touches.index(("rename", "step-00000007"))
    written = {name for what, name in touches if what == "write" and name.endswith((".safetensors", ".json"))}
    assert written == {"model.safetensors", "optim.safetensors", "state.json", "manifest.json"}
    for name in written:
        assert touches.index(("fsync", name)) < named
    last_file = max(touches.index(("fsync", name)) for name in written)
    assert touches[last_file][1] == "manifest.json"
    assert any(what == "fsync" and name.startswith(".tmp-") for what, name in touches[last_file:named])
    assert touches[named + 1] == ("fsync", tmp_path.name)
    assert touches.index(("rename", "last")) > named + 1


def test_flushing_is_really_asked_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino))
    path = save(tmp_path, 1)
    assert {each.stat().st_ino for each in (*path.iterdir(), path, tmp_path)} <= flushed


@pytest.mark.parametrize("times", [1, MOST])
def test_the_nth_touch_of_the_disk_fails(tmp_path: Path, times: int) -> None:
    """Once: the second try saves it. From then on always: an error, and the checkpoint before still loads."""
    for at in range(1, MOST):
        folder = tmp_path / str(at)
        save(folder, 1)
        disk.probe = failing = Failing(at, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), times)
        refused = None
        try:
            save(folder, 2)
        except TorsoError as error:
            refused = error
        disk.probe = None
        found = checkpoint.latest_valid(folder, report=pytest.fail)
        assert found is not None
        if refused is None:
            assert_is(found, 2)
        else:
            assert times > 1
            assert refused.code == 1
            assert "No space left on device" in str(refused)
            assert "torso resume" in str(refused)
            assert_is(found, int(found.name[12]))
        save(folder, 3)  # and it can go on
        assert_is(checkpoint.latest_valid(folder), 3)
        assert not list(folder.glob(".tmp-*"))
        if not failing.spent:
            return
    pytest.fail("a save touches the disk more often than the sweep is long")


@pytest.mark.parametrize("power", [True, False])
def test_the_process_dies_at_the_nth_touch(tmp_path: Path, power: bool) -> None:
    """Also when the power goes with it, and takes all that was written and not flushed."""
    for at in range(1, MOST):
        folder = tmp_path / str(at)
        save(folder, 1)
        in_cache: set[Path] = set()
        die = Failing(at, CrashError)

        def probe(what: str, path: Path, die: Any = die, in_cache: set[Path] = in_cache) -> None:
            die(what, path)
            (in_cache.add if what == "write" else in_cache.discard)(path)

        disk.probe = probe
        try:
            save(folder, 2)
            crashed = False
        except CrashError:
            crashed = True
        disk.probe = None
        for path in in_cache if power else ():
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        found = checkpoint.latest_valid(folder, report=pytest.fail)  # nothing that is not whole has a name
        assert found is not None
        assert_is(found, int(found.name[-1]))
        assert found.name == "step-00000002" or crashed
        assert_is(save(folder, 3), 3)
        assert not list(folder.glob(".tmp-*"))  # what the dead one left is cleared away
        if not crashed:
            return
    pytest.fail("a save touches the disk more often than the sweep is long")


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 7):
        path = save(tmp_path, step, keep=2)
        if step == 2:
            checkpoint.mark_best(path)
    assert [path.name[-1] for path in sorted(tmp_path.glob("step-*"))] == ["2", "5", "6"]
    assert_is(tmp_path / "best", 2)
    assert checkpoint.best(tmp_path) == tmp_path / "step-00000002"


def test_nothing_is_removed_when_the_new_one_does_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, keep=1)
    real = disk.write

    def lying(path: Path, data: bytes) -> None:
        real(path, data[:-1] + bytes([data[-1] ^ 1]) if path.name == "model.safetensors" else data)

    monkeypatch.setattr(disk, "write", lying)
    save(tmp_path, 2, keep=1)
    assert "does not read back" in caplog.text
    assert_is(checkpoint.latest_valid(tmp_path), 1)


def damages() -> dict[str, Callable[[Path], Any]]:
    def flip(name: str) -> Callable[[Path], Any]:
        def act(path: Path) -> None:
            data = bytearray((path / name).read_bytes())
            data[len(data) // 2] ^= 1
            (path / name).write_bytes(data)

        return act

    return {
        "flipped weight": flip("model.safetensors"),
        "flipped state": flip("state.json"),
        "truncated": lambda path: os.truncate(path / "optim.safetensors", 20),
        "empty": lambda path: (path / "model.safetensors").write_bytes(b""),
        "missing file": lambda path: (path / "model.safetensors").unlink(),
        "missing manifest": lambda path: (path / "manifest.json").unlink(),
        "manifest is no JSON": lambda path: (path / "manifest.json").write_text('{"files": '),
        "manifest is a list": lambda path: (path / "manifest.json").write_text("[]"),
        "manifest too deep": lambda path: (path / "manifest.json").write_text("[" * 100_000),
        "manifest without state": lambda path: (path / "manifest.json").write_text('{"order": 9, "files": {}}'),
        "manifest points outside": lambda path: (path / "manifest.json").write_text(
            '{"order": 9, "files": {"../x": {"size": 0, "sha256": ""}}}'
        ),
    }


@pytest.mark.parametrize("damage", damages())
def test_damage_is_reported_skipped_and_kept(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    damages()[damage](path)
    said: list[str] = []
    assert_is(checkpoint.latest_valid(tmp_path, said.append), 1)
    assert [str(path) in line for line in said] in ([True], [])  # one without an order is looked at last
    with pytest.raises(ModelError, match=r"manifest\.json|safetensors|state\.json"):
        checkpoint.load(path)
    for step in range(3, 7):
        save(tmp_path, step)
    assert path.exists()
    assert checkpoint.verify(path) is not None


def test_a_run_taken_back_goes_on_from_where_it_was_taken(tmp_path: Path) -> None:
    """Newest is what was written last, not the highest step; and a step is never written over."""
    for step in (10, 20, 30):
        save(tmp_path, step, keep=5)
    save(tmp_path, 20, keep=5)
    found = checkpoint.latest_valid(tmp_path)
    assert found is not None
    assert found.name == "step-00000020-2"


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(disk, "free_space", lambda path: 100)
    with pytest.raises(TorsoError, match=r"step 2 could not be written .* 0.0 MB are free.*one before is untouched"):
        save(tmp_path, 2)
    assert_is(checkpoint.latest_valid(tmp_path), 1)


def test_tied_strided_and_empty_tensors(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    file = {
        "a": base,
        "tied": base,
        "column": base[:, 2],
        "turned": base.t(),
        "kernel": torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last),
        "none": torch.empty(0, 4),
        "bf16": torch.randn(3).bfloat16(),
        "number": torch.tensor(3),
        "yes": torch.tensor([True, False]),
    }
    path = checkpoint.save(tmp_path, 1, {"model": file}, {})
    found = checkpoint.load(path)[0]["model"]
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in file.items())
    assert checkpoint.weights(path).keys() == file.keys()


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.latest_valid(tmp_path) is None
    assert checkpoint.latest_valid(tmp_path / "missing") is None
    assert checkpoint.best(tmp_path) is None
    with pytest.raises(ModelError, match="is not a checkpoint"):
        checkpoint.load(tmp_path)


def test_a_pointer_without_symbolic_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "symlink_to", refuse)
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert not (tmp_path / "last").is_symlink()
    assert_is(tmp_path / "last", 2)
