"""Whatever ends a run, it can be resumed, and ends as one that nothing has ended: to the last bit.

Real processes are killed here, at random instants. `TORSO_SLOW=1` does it twenty times instead of a few.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.train.tiny import Halt, Recording, TinyLoader, quick_folder, train
from torso.config import TorsoError
from torso.train import checkpoint, disk
from torso.train.tricks import Trick

pytestmark = [
    pytest.mark.part("train/checkpoints"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither process groups nor these signals"),
]
SLOW = bool(os.environ.get("TORSO_SLOW"))
OPTIONS: dict[str, Any] = {"optimizer": "adamw", "save_every": 1, "ema": True}

# One process imports torch, all others are forked from it: a start costs milliseconds, not seconds.
# (The first optimizer of a process imports torch._dynamo: more than all the rest of a life here.)
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.unit.train.tiny", "torch._dynamo"])


class Witness(Trick):
    """Notes after every step which (epoch, row) it was trained on, and the checkpoints it went on from."""

    name = "witness"

    def __init__(self, model: Recording, file: Path) -> None:
        self.model, self.file = model, file

    def stepped(self, model: nn.Module, step: int) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([step, self.model.rows]) + "\n")
        self.model.rows.clear()


def run_in_child(folder: Path, workers: int, die_at: int) -> None:
    """One life of a run: from where the last one ended to the end, if it is let."""
    os.setsid()  # a process group of its own, with its workers
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # while the run does not listen yet, and when it has ended
    torch.set_num_threads(1)
    if die_at:
        disk.probe = _Deadly(die_at)
    torch.manual_seed(7)  # the same weights to begin with in every first life
    model = Recording()
    tricks = [Witness(model, folder / "seen.jsonl")]
    (folder / f"started-{os.getpid()}").touch()
    try:
        resume = (folder / "checkpoints").exists()
        digest, _ = train(
            folder, model=model, loader=TinyLoader(workers=workers), more=tricks, resume=resume, **OPTIONS
        )
    except TorsoError as error:
        sys.exit(error.code)
    (folder / "digest").write_text(digest)


class _Deadly:
    """Kills its own process at the n-th touch of the disk."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, what: str, path: Path) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def live(folder: Path, end: Callable[[int], None] | None = None, *, workers: int = 0, die_at: int = 0) -> int:
    """Start a life, let `end` end it with the process number in hand, and return the exit code."""
    folder.mkdir(exist_ok=True)
    child = processes.Process(target=run_in_child, args=(folder, workers, die_at))
    child.start()
    assert child.pid is not None
    if end is not None:
        while not (folder / f"started-{child.pid}").exists() and child.is_alive():
            time.sleep(0.002)
        end(child.pid)
    child.join(60)
    try:
        assert child.exitcode is not None, "it hangs"
        assert_nobody_is_left(child.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.exitcode


def assert_nobody_is_left(group: int) -> None:
    """No worker outlives its run by more than ten seconds. (A zombie answers a signal, so the state is read.)"""
    alive: list[str] = []
    for _ in range(200):
        states = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                states.append(path.read_text().rpartition(")")[2].split())
        alive = [state for state, _, of, *_ in states if of == str(group) and state not in "ZX"]
        if not alive:
            return
        time.sleep(0.05)
    pytest.fail(f"{len(alive)} processes are left of group {group}")


def assert_loads(folder: Path) -> None:
    """The newest checkpoint is whole, and no broken one was found on the way to it."""
    found = checkpoint.latest_valid(folder / "checkpoints", report=pytest.fail)
    if found is not None:
        checkpoint.load(found)


def seen(folder: Path) -> Counter[tuple[int, int]]:
    """What was trained on and counted: a step that was done again counts once, and was the same both times."""
    steps: dict[int, list[int]] = {}
    for line in (folder / "seen.jsonl").read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # a line that a kill has cut; its step was done again
            step, rows = json.loads(line)
            assert steps.setdefault(step, rows) == rows
    per_epoch = len(TinyLoader())
    return Counter(((step - 1) // per_epoch, row) for step, rows in steps.items() for row in rows)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory, in place of pytest's."""
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def straight() -> Iterator[Path]:
    """A run that nothing ended."""
    with quick_folder() as folder:
        assert live(folder) == 0
        assert seen(folder) == Counter((epoch, row) for epoch in range(3) for row in range(22))
        yield folder


def assert_same_end(folder: Path, straight: Path, workers: int = 0) -> None:
    assert live(folder, workers=workers) == 0
    assert (folder / "digest").read_text() == (straight / "digest").read_text()
    assert seen(folder) == seen(straight)
    assert not list((folder / "checkpoints").glob(".tmp-*"))


def after(seconds: float, number: signal.Signals, *, group: bool) -> Callable[[int], None]:
    def end(process: int) -> None:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            (os.killpg if group else os.kill)(process, number)

    return end


@pytest.mark.parametrize("seed", range(20 if SLOW else 2))
def test_killed_at_random_instants(tmp_path: Path, straight: Path, seed: int) -> None:
    """Three times each; rows 33 and 34."""
    chance = random.Random(seed)
    for _ in range(3):
        live(tmp_path, after(chance.uniform(0, 0.4), signal.SIGKILL, group=True))
        assert_loads(tmp_path)
    assert_same_end(tmp_path, straight)


@pytest.mark.parametrize("at", range(1, 500, 7) if SLOW else (9, 40, 95))
def test_killed_at_a_certain_touch_of_the_disk(tmp_path: Path, straight: Path, at: int) -> None:
    """At every life anew, a little later: the run creeps on, and ends the same."""
    for life in range(3):
        assert live(tmp_path, die_at=at + 11 * life) in (-signal.SIGKILL, 0)
        assert_loads(tmp_path)
    assert_same_end(tmp_path, straight)


@pytest.mark.parametrize("seed", range(20 if SLOW else 2))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group(tmp_path: Path, straight: Path, number: signal.Signals, seed: int) -> None:
    """As a scheduler or a terminal sends it, two loader workers included; row 44."""
    chance = random.Random(100 + seed)
    code = {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    for _ in range(2):
        started = len(list(tmp_path.glob("started-*")))
        ended = live(tmp_path, after(chance.uniform(0.05, 0.5), number, group=True), workers=2)
        assert ended in (code, 0)  # saved, or was done; never "a worker exited unexpectedly"
        assert len(list(tmp_path.glob("started-*"))) == started + 1
        assert_loads(tmp_path)
        if ended == code:
            assert json.loads((tmp_path / "state.json").read_text())["status"] == "stopped"
    assert_same_end(tmp_path, straight, workers=2 * (seed % 2))


def in_process(folder: Path, **options: Any) -> str:
    return train(folder, **{**OPTIONS, **options})[0]


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checkpoint, "RETRY_AFTER", 0.0)
    yield
    disk.probe = None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """Half a megabyte of real disk; None where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.usefixtures("quick_retry")
def test_a_disk_that_is_full(tmp_path: Path, small_disk: Path | None) -> None:
    """Row 43: the old checkpoint stays, one sentence, exit code 1; with room again it goes on."""
    if small_disk is None:
        pytest.skip("a small disk can only be mounted by root; the failing touches below stand for it")
    folder, ballast = small_disk / "run", small_disk / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))

    with pytest.raises(TorsoError, match=r"No space left|MB are free") as error:
        in_process(folder, more=[Halt(9, fill)])
    assert error.value.code == 1
    assert_loads(folder)
    ballast.unlink()
    digest = in_process(folder, resume=True, more=[Halt(0, fill)])
    assert digest == in_process(tmp_path / "straight")


@pytest.mark.usefixtures("quick_retry")
@pytest.mark.parametrize("at", range(1, 520) if SLOW else (1, 30, 77, 145, 238))
def test_a_disk_that_fails_from_the_nth_touch_on(tmp_path: Path, at: int) -> None:
    """Every touch of a whole run, row 43."""
    left = at

    def probe(what: str, path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.probe = probe
    with contextlib.suppress(TorsoError):
        in_process(tmp_path / "run")
    disk.probe = None
    assert_loads(tmp_path / "run")
    resume = (tmp_path / "run" / "checkpoints").exists()
    assert in_process(tmp_path / "run", resume=resume) == in_process(tmp_path / "straight")
