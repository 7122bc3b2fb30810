"""How a loader's worker process behaves."""

from __future__ import annotations

import ctypes
import signal
import sys

import torch

_PR_SET_PDEATHSIG = 1


def prepare(worker: int) -> None:
    """Runs first in a worker.

    A worker ignores SIGTERM and SIGINT, because a scheduler or Ctrl-C sends them to the whole group and the main
    process needs its workers to finish the step and save. It dies with its parent, even when that is killed. One
    thread a worker: the workers are the parallelism, and OpenCV's own threads deadlock after a fork.
    """
    import cv2

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
