"""Being asked to stop: finish the step, save, leave with the exit code that says why."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from torso.config import TorsoError

SAME_STROKE = 0.5
"""Seconds in which a repeated signal is the same request: a launcher and its process group often both pass it on."""


class Stopped(TorsoError):  # noqa: N818 (what happened, not what went wrong)
    """The run was asked to stop and has saved; abstract, see the two ways below."""


class Preempted(Stopped):
    """SIGTERM: the machine is wanted for something else."""

    code = 75  # EX_TEMPFAIL of sysexits.h: schedulers take it as "start me again"


class Interrupted(Stopped):
    """SIGINT: somebody pressed Ctrl-C."""

    code = 130  # 128 + SIGINT, as shells have it


class Stop:
    """While entered, SIGTERM and SIGINT only leave a note in `requested`; a second one ends the process at once.

    Outside the main thread, where Python cannot handle signals, nothing changes and nothing is ever requested.
    """

    def __init__(self) -> None:
        self.requested: type[Stopped] | None = None
        self._since = 0.0
        self._immediate = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        """Start to listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises where it strikes: for long work that changes nothing (evaluation), after a save."""
        self._immediate = True
        try:
            if self.requested is not None:
                raise self.exception("before evaluation")
            yield
        finally:
            self._immediate = False

    def exception(self, where: str) -> Stopped:
        """The error to raise once everything is saved."""
        kind = self.requested or Interrupted
        return kind(f"stopped {where}; everything is saved: `torso resume` goes on from here")

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            if time.monotonic() - self._since < SAME_STROKE:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.requested = Preempted if number == signal.SIGTERM else Interrupted
        self._since = time.monotonic()
        if self._immediate:
            raise self.exception("during evaluation")
