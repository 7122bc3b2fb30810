"""From an index to batches: the same samples for any number of workers, from any position, on any day.

A sample is a pure function of (seed, epoch, row). Its generator is seeded by a hash of the three, the order of an
epoch by (seed, epoch), and no global random stream is read or moved.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import numpy as np
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader

from torso.config import DataError
from torso.data.index import Index
from torso.data.pictures import Pictures
from torso.data.proposals import Proposals
from torso.data.samplers import Random, Sampler, Sequential, Shares
from torso.data.samples import Loaded, Samples
from torso.data.scene import Edit, Mix
from torso.data.texts import flat
from torso.data.workers import fitting, prepare, shared_memory, shielded
from torso.structures import Batch

_POLL = 5.0  # seconds until a dead worker is noticed
_ENOUGH = 5  # a handful of damaged pictures never stops a training


class Loader:
    """Batches of an index.

    A picture that cannot be read is named in ``skipped``. In training (a sampler, or shuffling) the next picture of the
    same order takes its place, so the number of steps stays; otherwise (evaluation) it is left out and the batch is
    smaller.

    On several processes each takes its share of every step (`torso.data.samplers.Shares`): the same steps, and the same
    samples, as one process with ``world_size * batch`` pictures a batch has. Fewer than ``world_size`` pictures come
    twice in the last step where the number does not come out even; ``repeats`` says how many of this rank's are such,
    and ``Batch.index`` tells them by their rows.

    Args:
        index: what to load.
        transforms: edits of the view; without one that fits the canvas, a letterbox comes first.
        size: width and height of the network's input.
        batch: pictures a batch, on this rank.
        workers: processes that load; 0 loads in this one. The samples are the same.
        seed: of the run.
        shuffle: a new order each epoch, where no sampler says another.
        sampler: which pictures an epoch shows, in what order.
        drop_last: leave out a last batch that is not full.
        max_bad: the largest fraction of an epoch that may be unreadable (more than five pictures are needed).
        cache_bytes: keep up to so many bytes of decoded pictures, shrunk to the canvas, in memory.
        timeout: seconds to wait for a batch from the workers.
        mix_until: from this epoch on transforms that mix pictures (mosaic, mix-up, ...) are left out.
        multiscale: range of a factor of ``size`` that each batch draws, to multiples of 32 pixels.
        masks: also give the objects' masks, ``[B, M, H, W]`` bool: with 16 pictures of 640x640 and 24 objects each
            that is 150 MiB a batch.
        mask_stride: of every so many rows and columns only; 4 makes masks 16 times smaller.
        proposals: given ones; each batch gets those of its pictures.
        bits: of a channel: 8 gives uint8, 16 gives uint16 and keeps what scans have; filters of pixels want 8.
        rank: which process this is, from 0.
        world_size: how many processes share the epoch.
    """

    def __init__(
        self,
        index: Index,
        transforms: Sequence[Edit | Mix] = (),
        *,
        size: tuple[int, int],
        batch: int,
        workers: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        sampler: Sampler | None = None,
        drop_last: bool = False,
        max_bad: float = 0.01,
        cache_bytes: int = 0,
        timeout: float = 600,
        mix_until: int | None = None,
        multiscale: tuple[float, float] = (1.0, 1.0),
        masks: bool = False,
        mask_stride: int = 1,
        proposals: Proposals | None = None,
        bits: Literal[8, 16] = 8,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        order = sampler if sampler is not None else Random(index) if shuffle else Sequential(index)
        self._shares = Shares(len(order), batch, rank, world_size, drop_last)
        if not self._shares.steps:
            needed, has = self._shares.whole, "split" if sampler is None else "sampler"
            raise DataError(f"{index.root}: a batch of {needed} needs as many pictures, the {has} has {len(order)}")
        self.index = index
        self.max_bad = max_bad
        self.proposals = proposals
        self.skipped: list[tuple[str, str]] = []
        shared = flat(index)
        self._pictures = Pictures(shared, size, cache_bytes, max(workers, 1), bits)
        self._samples = Samples(
            shared,
            transforms,
            size,
            seed=seed,
            sampler=order,
            replace=shuffle or sampler is not None,
            batch=self._shares.whole,  # of all ranks, so that a sample does not depend on how many there are
            pictures=self._pictures,
            mix_until=mix_until,
            multiscale=multiscale,
            mask_stride=mask_stride if masks else 0,
        )
        self._positions: list[list[tuple[int, int]]] = []
        depth = 3 * bits / 8 + (_crowd(index) / mask_stride**2 if masks else 0)
        self._batch_bytes = int(depth * max(multiscale) ** 2 * size[0] * size[1] * batch)
        self._workers = workers
        self._timeout = timeout
        self._poll = min(_POLL, timeout)
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return self._shares.steps

    @property
    def repeats(self) -> int:
        """How many pictures of this rank's last batch come on another rank too."""
        return self._shares.repeats

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch number ``start`` on.

        Raises:
            DataError: too many pictures cannot be read, or a worker hung or died; names the files.
        """
        steps = map(self._shares.positions, range(start, len(self)))
        self._positions[:] = [[(epoch, position) for position in positions] for positions in steps]
        bad: set[int] = set()
        for loaded in self._batches():
            for row, reason in loaded.skipped:
                bad.add(row)
                self._skip(row, reason)
            if len(bad) > max(_ENOUGH, self.max_bad * self._shares.count):
                listed = "\n".join(f"  {path}: {reason}" for path, reason in self.skipped[-_ENOUGH:])
                raise DataError(
                    f"{self.index.root}: more than {self.max_bad:.0%} of the pictures cannot be read, "
                    f"the last of them:\n{listed}"
                )
            if loaded.batch is not None:
                yield loaded.batch if self.proposals is None else self.proposals.given_to(loaded.batch)

    def _skip(self, row: int, reason: str) -> None:
        entry = (self.index.paths[row], reason)
        if entry not in self.skipped:
            self.skipped.append(entry)

    def _batches(self) -> Iterator[Loaded]:
        prefetch = 2
        if self._loader is None:
            self._workers, prefetch = fitting(self._workers, self._batch_bytes, shared_memory())
        if not self._workers:
            for keys in list(self._positions):
                yield self._samples.batch(keys)
            return
        if self._loader is None:
            self._pictures.fill()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # how many workers there are is the user's to say
                self._loader, batches = self._start(prefetch)
        else:
            batches = iter(self._loader)
        waited = 0.0
        while True:
            try:
                loaded = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError) as error:
                if str(error).startswith("Caught"):  # raised by a transform: its own traceback says more
                    raise
                waited += self._poll
                if "timed out" not in str(error) or waited >= self._timeout:
                    raise self._failed(batches, error) from error
                continue
            waited = 0.0
            yield loaded

    def _start(self, prefetch: int) -> tuple[DataLoader[Any], Any]:
        """The DataLoader and its first iterator, which has the workers."""
        # fork shares the index and the cache without copying; elsewhere the platform's own way.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        loader = DataLoader(
            self._samples,
            batch_sampler=self._positions,
            num_workers=self._workers,
            prefetch_factor=prefetch,
            collate_fn=_as_it_is,
            timeout=self._poll,
            worker_init_fn=prepare,
            multiprocessing_context=context,
            generator=torch.Generator().manual_seed(0),  # keeps the global stream where it is
            persistent_workers=True,
        )
        # torch would answer a worker's death by an exception wherever the main process happens to be; we ask for
        # it when we wait for a batch, where the file can be named.
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if main else None
        with shielded():
            batches: Any = iter(loader)
        if main:
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        # Runs before the exit hooks of torch and multiprocessing, which would wait for workers to obey SIGTERM.
        atexit.register(_end, weakref.ref(batches), list(batches._workers))
        return loader, batches

    def _failed(self, batches: Any, error: Exception) -> DataError:
        """What the workers were at when one died or hung; and ends them, since they ignore polite signals."""
        rows = [row for row in self._pictures.current.tolist() if row >= 0]
        for process in batches._workers:
            process.kill()
        _end(weakref.ref(batches), batches._workers)
        self._loader = None
        files = ", ".join(self.index.paths[row] for row in rows) or "none"
        return DataError(
            f"{self.index.root}: a loader worker died or hung ({str(error).splitlines()[0]}); "
            f"being read: {files}. Check these files, or run with workers=0 to see the failure itself"
        )


def _crowd(index: Index) -> int:
    """How many objects the fullest picture of a batch has, about."""
    return int(np.quantile(np.diff(index.offsets), 0.95)) + 8


def _as_it_is(loaded: Any) -> Any:
    """The samples come as a batch already."""
    return loaded


def _end(reference: weakref.ref[Any], processes: Sequence[BaseProcess]) -> None:
    """Ends the workers behind a DataLoader's iterator; those that do not go are killed, for they ignore SIGTERM."""
    batches = reference()
    if batches is not None:
        batches._shutdown_workers()
    for process in processes:
        if process.is_alive():
            process.kill()
