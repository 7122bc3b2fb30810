"""How a loader's worker process behaves."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_PR_SET_PDEATHSIG = 1
POLITE = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def shielded() -> Iterator[None]:
    """Processes started inside get no SIGTERM and no SIGINT until `prepare` ignores both: for starting workers.

    Ignoring them from inside a worker comes too late: until it does, torch's own SIGTERM handler would end it, and a
    signal to the whole group would cost the run its next batch and its save. Here such a signal waits.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare(worker: int) -> None:
    """Runs first in a worker.

    A worker ignores SIGTERM and SIGINT, because a scheduler or Ctrl-C sends them to the whole group and the main
    process needs its workers to finish the step and save. It dies with its parent, even when that is killed. One
    thread a worker: the workers are the parallelism, and OpenCV's own threads deadlock after a fork.
    """
    import cv2

    for number in POLITE:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
