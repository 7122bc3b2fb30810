"""One sample, and several of them as a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator
from torch.utils.data import Dataset

from torso.config import TorsoError
from torso.data.bitmaps import layer_patch
from torso.data.collate import Memory, Sample, batch_of
from torso.data.decode import DecodeError, Pixels
from torso.data.draws import generator_of
from torso.data.index import Index
from torso.data.objects import shown
from torso.data.partners import Pool, pool
from torso.data.pictures import Pictures
from torso.data.scene import Edit, Layer, Mix, Scene, composed, mixes
from torso.data.segments import segments
from torso.data.transforms import Joint, Letterbox
from torso.data.views import View, inverse
from torso.structures import Batch

_TRIES = 16  # replacements of a damaged picture before the slot is given up
_STRIDE = 32  # sides of the network's input are multiples of it when they vary


class Order(Protocol):
    """What a sampler is to the samples."""

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch in the order they come: a pure function."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A batch (None when none of its pictures could be read), and the rows and reasons of what could not."""

    batch: Batch | None
    skipped: list[tuple[int, str]]


class Samples(Dataset[Loaded]):
    """Batches by (epoch, position) of each picture; lives in the workers.

    Args:
        index: the data.
        transforms: edits and mixes of views; without one that fits the canvas, a letterbox comes first.
        size: width and height of the network's input.
        seed: of the run.
        sampler: the order of an epoch.
        replace: whether the next picture of the order stands in for one that cannot be read.
        batch: pictures a batch.
        pictures: decodes and keeps them.
        mix_until: from this epoch on transforms that mix pictures are left out.
        multiscale: range of a factor of the size that each batch draws.
        mask_stride: give masks, of every so many rows and columns; 0 gives none.
    """

    def __init__(
        self,
        index: Index,
        transforms: Sequence[Edit | Mix],
        size: tuple[int, int],
        *,
        seed: int,
        sampler: Order,
        replace: bool,
        batch: int,
        pictures: Pictures,
        mix_until: int | None = None,
        multiscale: tuple[float, float] = (1.0, 1.0),
        mask_stride: int = 0,
    ) -> None:
        self.index = index
        self.size = size
        self.seed = seed
        self.sampler = sampler
        self.replace = replace
        self.batch_size = batch
        self.pictures = pictures
        self.mix_until = mix_until
        self.multiscale = multiscale
        self.mask_stride = mask_stride
        flat = _flat(transforms)
        self.transforms = _fitting(flat, size)
        self.unmixed = _fitting([one for one in flat if not mixes(one)], size)
        pictures.shared = any(map(mixes, self.transforms))
        self._memory = Memory()
        self._dtype = torch.uint16 if pictures.bits == 16 else torch.uint8
        self._order: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Loaded:
        """What a DataLoader calls for the keys of a batch."""
        return self.batch(keys)

    def batch(self, keys: Sequence[tuple[int, int]]) -> Loaded:
        """A batch; each picture is drawn straight into its place there, in shared memory where it has to travel."""
        size = self._size(*keys[0])
        images = self._memory.empty(len(keys), size[1], size[0], 3, dtype=self._dtype)
        canvases = images.numpy()
        samples: list[Sample] = []
        skipped: list[tuple[int, str]] = []
        for epoch, position in keys:
            sample = self._drawn(epoch, position, size, canvases[len(samples)], skipped)
            if sample is not None:
                samples.append(sample)
        if not samples:
            return Loaded(None, skipped)
        return Loaded(batch_of(images[: len(samples)], samples, len(self.index.classes)), skipped)

    def _size(self, epoch: int, position: int) -> tuple[int, int]:
        """The canvas of a batch."""
        if self.multiscale == (1.0, 1.0):
            return self.size
        generator = generator_of(self.seed, epoch, -2, position // self.batch_size)
        low, high = self.multiscale
        factor = low + (high - low) * float(torch.rand((), generator=generator))
        width, height = (max(round(side * factor / _STRIDE), 1) * _STRIDE for side in self.size)
        return width, height

    def _rows(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of an epoch in order, and how often each has come before in it."""
        if self._order is None or self._order[0] != epoch:
            rows = self.sampler.rows(self.seed, epoch)
            self._order = epoch, rows, _times(rows)
        return self._order[1:]

    def _drawn(
        self, epoch: int, position: int, size: tuple[int, int], canvas: Pixels, skipped: list[tuple[int, str]]
    ) -> Sample | None:
        """The sample at a position of an epoch; None where its picture cannot be read, which is noted."""
        rows, times = self._rows(epoch)
        bad: set[int] = set()
        # A damaged picture is replaced by the next one of the same order: still a pure function of the key.
        for step in range(_TRIES if self.replace else 1):
            at = (position + step) % len(rows)
            for _ in range(_TRIES):
                try:
                    return self._sample(epoch, at, int(rows[at]), int(times[at]), size, canvas, bad)
                except _Unreadable as error:
                    skipped.append((error.row, error.reason))
                    bad.add(error.row)
                    if error.row == rows[at]:
                        break  # a damaged partner only wants other partners
        return None

    def _sample(
        self, epoch: int, position: int, row: int, time: int, size: tuple[int, int], canvas: Pixels, bad: set[int]
    ) -> Sample:
        from torso.data.render import draw

        generator = generator_of(self.seed, epoch, row, *((time,) if time else ()))
        scene = self.scene(epoch, position, row, size, generator, bad)
        _check(scene.size, size)
        scene = draw(scene, self._pixels, canvas, lambda layer: layer_patch(layer, self.index))
        width, height = self.index.sizes[row].tolist()
        return Sample(
            row=row,
            objects=shown(scene, self.index, self.mask_stride),
            to_source=inverse(scene.layers[0].view.matrix),
            source_size=(width, height),
            classes=self._classes(scene),
            segments=None if self.index.segments is None else segments(scene, self.index, self._segment),
        )

    def scene(
        self, epoch: int, position: int, row: int, size: tuple[int, int], generator: Generator, bad: set[int]
    ) -> Scene:
        """What will be drawn for a row in an epoch: a pure function, no pixel is read."""
        mixing = self.mix_until is None or epoch < self.mix_until
        transforms = self.transforms if mixing else self.unmixed
        near = np.zeros(0, np.int64)
        if any(map(mixes, transforms)):
            rows = self._rows(epoch)[0]
            near = rows[pool(position, self.batch_size, len(rows))]
            near = near[~np.isin(near, list(bad))] if bad else near

        def made(other: int, generator: Generator, upto: int) -> Scene:
            width, height = self.index.sizes[other].tolist()

            def partners(number: int) -> Pool:
                return Pool(self.index, near, other, size, lambda row, g: made(row, g, number))

            start = Scene.of(other, (width, height), size)
            return composed(transforms[:upto], start, partners, generator, self.index)

        return made(row, generator, len(transforms))

    def _pixels(self, layer: Layer) -> Pixels:
        try:
            return self.pictures.of(layer)
        except DecodeError as error:
            raise _Unreadable(layer.row, error.reason) from error

    def _segment(self, layer: Layer) -> NDArray[np.uint8] | None:
        try:
            return self.index.segment(layer.row)
        except DecodeError as error:
            raise _Unreadable(layer.row, error.reason) from error

    def _classes(self, scene: Scene) -> tuple[tuple[int, float], ...]:
        labels = self.index.image_labels
        if labels is None:
            return ()
        total = sum(layer.weight for layer in scene.layers)
        return tuple((int(labels[layer.row]), layer.weight / total) for layer in scene.layers)


class _Unreadable(Exception):  # noqa: N818 (it never leaves this file)
    """A picture of a scene that cannot be read."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


def _flat(transforms: Sequence[Edit | Mix]) -> list[Edit | Mix]:
    """The transforms with the parts of ``joint`` in its place."""
    flat: list[Edit | Mix] = []
    for transform in transforms:
        if not hasattr(transform, "fits"):
            name = type(transform).__name__
            raise TorsoError(f"transform {name} does not edit views; the model normalises on the device")
        flat += _flat(transform.transforms) if isinstance(transform, Joint) else [transform]
    return flat


def _fitting(transforms: list[Edit | Mix], size: tuple[int, int]) -> list[Edit | Mix]:
    """The transforms, with a letterbox in front where none fits the canvas.

    Raises:
        TorsoError: they leave another canvas than the network takes.
    """
    if not any(transform.fits for transform in transforms):
        transforms = [Letterbox(), *transforms]
    edits = [transform for transform in transforms if not mixes(transform)]
    if len(edits) == len(transforms):
        view = View.of((40, 30), size)
        for edit in edits:
            view = edit(view, Generator())
        _check(view.size, size)
    return transforms


def _check(drawn: tuple[int, int], size: tuple[int, int]) -> None:
    if drawn != size:
        raise TorsoError(f"the transforms leave a canvas of {drawn}, the network takes {size}: add center_crop")


def _times(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each row has come before, ``[n]``."""
    order = np.argsort(rows, kind="stable")
    ranked = rows[order]
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]]) if len(rows) else np.zeros(0, np.bool_)
    starts = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    times = np.empty(len(rows), np.int64)
    times[order] = np.arange(len(rows)) - starts
    return times
