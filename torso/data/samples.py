"""One sample, and several of them as a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from torso.config import TorsoError
from torso.data.decode import DecodeError, Pixels
from torso.data.draws import generator_of, order
from torso.data.index import Index
from torso.data.transforms import Letterbox, Transform
from torso.data.views import Boxes, Matrix, View, inverse, on_canvas, scaling
from torso.structures import Batch, Targets

_MULTIPLE = 8  # objects are padded to a multiple, so that few shapes are compiled
_TRIES = 16  # replacements of a damaged picture before the slot is given up


@dataclass(frozen=True)
class Sample:
    """What a picture shows as the network takes it; its pixels are in the batch already."""

    row: int
    boxes: Boxes  # [n, 4] xyxy pixels of the canvas
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]
    to_source: Matrix  # [3, 3]
    source_size: tuple[int, int]
    image_label: int | None


@dataclass(frozen=True)
class Loaded:
    """A batch (None when none of its pictures could be read), and the rows and reasons of what could not."""

    batch: Batch | None
    skipped: list[tuple[int, str]]


class Samples(Dataset[Loaded]):
    """Batches by (epoch, position) of each picture; lives in the workers."""

    def __init__(
        self,
        index: Index,
        transforms: Sequence[Transform],
        size: tuple[int, int],
        seed: int,
        shuffle: bool,
        cache_bytes: int,
        workers: int,
    ) -> None:
        for transform in transforms:
            if not hasattr(transform, "fits"):
                name = type(transform).__name__
                raise TorsoError(f"transform {name} does not edit views; the model normalises on the device")
        self.index = index
        self.transforms = list(transforms)
        if not any(transform.fits for transform in transforms):
            self.transforms.insert(0, Letterbox())
        self.size = size
        drawn = self._view((40, 30), torch.Generator()).size
        if drawn != size:
            raise TorsoError(f"the transforms leave a canvas of {drawn}, the network takes {size}: add center_crop")
        self.seed = seed
        self.shuffle = shuffle
        # What each worker reads right now, in shared memory: a dead or hung worker still tells.
        self.current = torch.full((workers,), -1).share_memory_()  # type: ignore[no-untyped-call]
        self._cache_bytes = cache_bytes
        self._cache: dict[int, Pixels] | None = None
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Loaded:
        """What a DataLoader calls for the keys of a batch."""
        return self.batch(keys)

    def batch(self, keys: Sequence[tuple[int, int]]) -> Loaded:
        """A batch; each picture is drawn straight into its place there, in shared memory where it has to travel."""
        width, height = self.size
        images = _empty(len(keys), height, width, 3)
        canvases = images.numpy()
        samples: list[Sample] = []
        skipped: list[tuple[int, str]] = []
        for epoch, position in keys:
            sample = self._drawn(epoch, position, canvases[len(samples)], skipped)
            if sample is not None:
                samples.append(sample)
        if not samples:
            return Loaded(None, skipped)
        return Loaded(_batch(images[: len(samples)], samples), skipped)

    def _drawn(self, epoch: int, position: int, canvas: Pixels, skipped: list[tuple[int, str]]) -> Sample | None:
        """The sample at a position of an epoch; None where its picture cannot be read, which is noted."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, order(len(self.index), self.seed, epoch, self.shuffle)
        rows = self._order[1]
        # A damaged picture is replaced by the next one of the same order: still a pure function of the key.
        for step in range(_TRIES if self.shuffle else 1):
            row = int(rows[(position + step) % len(rows)])
            try:
                return self.sample(row, epoch, canvas)
            except DecodeError as error:
                skipped.append((row, error.reason))
        return None

    def sample(self, row: int, epoch: int, canvas: Pixels) -> Sample:
        """The sample of a row in an epoch, its picture drawn on the canvas ``[H, W, 3]``.

        Raises:
            DecodeError: the picture cannot be read.
        """
        from torso.data.render import render

        width, height = self.index.sizes[row].tolist()
        generator = generator_of(self.seed, epoch, row)
        view = self._view((width, height), generator)
        _, view = render(self._pixels(row, view), view, canvas)
        objects = self.index.objects(row)
        boxes, kept = on_canvas(self.index.boxes[objects], view)
        ignore = self.index.difficult[objects] | self.index.crowd[objects]
        labels = self.index.image_labels
        return Sample(
            row=row,
            boxes=boxes[kept],
            labels=self.index.labels[objects][kept],
            ignore=ignore[kept],
            to_source=inverse(view.matrix),
            source_size=(width, height),
            image_label=None if labels is None else int(labels[row]),
        )

    def _view(self, source: tuple[int, int], generator: torch.Generator) -> View:
        view = View.of(source, self.size)
        for transform in self.transforms:
            view = transform(view, generator)
        return view

    def _pixels(self, row: int, view: View) -> Pixels:
        from torso.data.render import load

        if self._cache is None:
            self.fill_cache()
        if self._cache and row in self._cache:
            return self._cache[row]
        info = get_worker_info()
        worker = info.id if info is not None else 0
        self.current[worker] = row
        pixels = load(self.index.picture(row), view)
        self.current[worker] = -1
        return pixels

    def fill_cache(self) -> None:
        """Decodes pictures, shrunk to the canvas, until the budget is used; before a fork, so that workers share it."""
        from torso.data.render import load, shrunk

        self._cache = {}
        left = self._cache_bytes
        for row in range(len(self.index)):
            if left <= 0:
                return
            width, height = self.index.sizes[row].tolist()
            scale = min(max(self.size[0] / width, self.size[1] / height), 1.0)
            view = View.of((width, height), self.size).then(scaling(scale, scale))
            try:
                pixels = shrunk(load(self.index.picture(row), view), view)
            except DecodeError:
                continue  # met again, and named, when its turn comes
            left -= pixels.nbytes
            self._cache[row] = pixels


def _empty(*shape: int) -> Tensor:
    """A uint8 tensor; in a worker in shared memory, or it would be copied there afterwards."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    empty = torch.empty(0, dtype=torch.uint8)
    empty.set_(storage, 0, shape)  # type: ignore[call-overload]
    return empty


def _batch(images: Tensor, samples: Sequence[Sample]) -> Batch:
    """Pictures ``[B, H, W, 3]`` and their samples as a batch."""
    return Batch(
        images=images.permute(0, 3, 1, 2),  # no copy: channels-last
        targets=_targets(samples),
        index=torch.tensor([sample.row for sample in samples]),
        to_source=torch.from_numpy(np.stack([sample.to_source for sample in samples])),
        source_size=torch.tensor([sample.source_size for sample in samples]),
    )


def _targets(samples: Sequence[Sample]) -> Targets:
    """What they show, padded to a common number of objects, a multiple of eight."""
    classes = [sample.image_label for sample in samples if sample.image_label is not None]
    if classes:
        return Targets.of_classes(torch.tensor(classes))
    most = max(len(sample.labels) for sample in samples)
    shape = (len(samples), max(-(-most // _MULTIPLE), 1) * _MULTIPLE)
    boxes = np.zeros((*shape, 4), np.float32)
    labels = np.zeros(shape, np.int64)
    valid, ignore = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for i, sample in enumerate(samples):
        n = len(sample.labels)
        boxes[i, :n], labels[i, :n] = sample.boxes, sample.labels
        valid[i, :n], ignore[i, :n] = ~sample.ignore, sample.ignore
    return Targets(*(torch.from_numpy(array) for array in (boxes, labels, valid, ignore)))
