"""One signal asks, two command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from torso.train import signals
from torso.train.signals import Interrupted, Preempted, Stop

SCRIPT = """
import os, signal, sys, time
from torso.train.signals import Stop
with Stop() as stop:
    os.kill(os.getpid(), signal.{first})
    print(stop.requested.__name__, flush=True)
    os.kill(os.getpid(), signal.{first})
    print("the same stroke", flush=True)
    time.sleep(0.6)
    os.kill(os.getpid(), signal.{second})
    time.sleep(5)
    print("still here", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "kind", "code"), [(signal.SIGTERM, Preempted, 75), (signal.SIGINT, Interrupted, 130)]
)
def test_a_signal_is_noted(number: signal.Signals, kind: type[signals.Stopped], code: int) -> None:
    before = signal.getsignal(number)
    with Stop() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested is kind
        error = stop.exception("after step 3")
        assert type(error) is kind
        assert error.code == code
        assert str(error) == "stopped after step 3; everything is saved: `torso resume` goes on from here"
    assert signal.getsignal(number) is before


def test_at_once() -> None:
    with Stop() as stop:
        with pytest.raises(Preempted, match="during evaluation"), stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Preempted, match="before evaluation"), stop.at_once():
            pytest.fail("not at all")


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_the_process(first: str, second: str) -> None:
    script = SCRIPT.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["Preempted" if first == "SIGTERM" else "Interrupted", "the same stroke"]
    assert done.returncode == -getattr(signal, second)


def test_outside_the_main_thread_nothing_changes() -> None:
    seen: list[object] = []

    def run() -> None:
        with Stop() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]
