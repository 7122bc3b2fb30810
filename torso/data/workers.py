"""How a loader's worker process behaves."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_PR_SET_PDEATHSIG = 1
POLITE = (signal.SIGTERM, signal.SIGINT)
_IN_HAND = 2  # batches that are in memory beside those the workers have ready: one in use, one being received


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
    thread a worker: the workers are the parallelism, and OpenCV's own threads deadlock after a fork. What it has from
    its parent is left out of garbage collection, which would write to, and so copy, every page of it.
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
    gc.freeze()


def shared_memory() -> int | None:
    """Bytes that are free where workers leave their batches; None where that has no limit of its own."""
    try:
        found = os.statvfs("/dev/shm")
    except (OSError, AttributeError):  # not Linux
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def fitting(workers: int, batch_bytes: int, free: int | None) -> tuple[int, int]:
    """How many workers, and how many batches each may have ready, that the shared memory holds.

    Containers often have 64 MB of it, and a batch that does not fit ends a worker without a word. The samples do not
    depend on the answer; loading takes longer, and a warning says what to do.

    Args:
        workers: how many are wanted; 0 needs nothing.
        batch_bytes: a batch.
        free: bytes (`shared_memory`).
    """
    wanted = (2 * workers + _IN_HAND) * batch_bytes
    if not workers or free is None or wanted <= free:
        return workers, 2
    room = free // max(batch_bytes, 1) - _IN_HAND
    left = min(workers, max(room, 0))
    warnings.warn(
        f"/dev/shm has {free / 2**20:.0f} MB free, {workers} workers with batches of {batch_bytes / 2**20:.0f} MB want "
        f"{wanted / 2**20:.0f} MB: loading with {left} workers that have fewer batches ready. The samples stay the "
        f"same; for full speed give a container more, docker run --shm-size={-(-wanted // 2**30)}g",
        stacklevel=2,
    )
    return left, 1
