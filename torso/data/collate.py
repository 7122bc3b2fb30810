"""From samples to a batch: what they show, padded to a common number of objects."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from torso.data.objects import Objects
from torso.data.views import Matrix
from torso.structures import Batch, Targets

_MULTIPLE = 8  # objects are padded to a multiple, so that few shapes are compiled
_KEPT = 3  # blocks of memory that wait to be used again


@dataclass(frozen=True)
class Sample:
    """What a picture shows as the network takes it; its pixels are in the batch already."""

    row: int
    objects: Objects
    to_source: Matrix  # [3, 3]
    source_size: tuple[int, int]
    classes: tuple[tuple[int, float], ...] = ()  # classification: classes and their shares
    segments: NDArray[np.uint8] | None = None  # [H, W]


def batch_of(images: Tensor, samples: Sequence[Sample], classes: int) -> Batch:
    """Pictures ``[B, H, W, 3]`` and their samples as a batch."""
    return Batch(
        images=images.permute(0, 3, 1, 2),  # no copy: channels-last
        targets=_targets(samples, classes),
        index=torch.tensor([sample.row for sample in samples]),
        to_source=torch.from_numpy(np.stack([sample.to_source for sample in samples])),
        source_size=torch.tensor([sample.source_size for sample in samples]),
    )


class Memory:
    """Memory of batches, used again as soon as nobody holds the last batch that lay there.

    Fresh memory costs a page fault every 4 KiB, which is a fifth of a millisecond for a picture of 640x640.
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []

    def empty(self, *shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """A tensor of whole numbers; in a worker in shared memory, or it would be copied there afterwards."""
        if get_worker_info() is not None:
            storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
            empty = torch.empty(0, dtype=dtype)
            empty.set_(storage, 0, shape)  # type: ignore[call-overload]
            return empty
        size = math.prod(shape) * dtype.itemsize
        for block in self._blocks:
            # Held by the list, by this loop and by the call: by no tensor any more.
            if len(block) >= size and sys.getrefcount(block) == 3:
                return torch.from_numpy(block)[:size].view(dtype).view(shape)
        self._blocks = [*self._blocks, np.empty(size, np.uint8)][-_KEPT:]
        return torch.from_numpy(self._blocks[-1]).view(dtype).view(shape)


def _targets(samples: Sequence[Sample], classes: int) -> Targets:
    """What the samples show."""
    targets = _class_targets(samples, classes) if samples[0].classes else _object_targets(samples)
    maps = [sample.segments for sample in samples if sample.segments is not None]
    return replace(targets, segments=torch.from_numpy(np.stack(maps))) if maps else targets


def _object_targets(samples: Sequence[Sample]) -> Targets:
    """Objects, padded to a common number, a multiple of eight."""
    found = [sample.objects for sample in samples]
    most = max(len(objects.rows) for objects in found)
    shape = (len(samples), max(-(-most // _MULTIPLE), 1) * _MULTIPLE)
    valid, ignore = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for i, objects in enumerate(found):
        n = len(objects.rows)
        valid[i, :n], ignore[i, :n] = ~objects.ignore, objects.ignore
    targets = Targets(
        boxes=_padded([objects.boxes for objects in found], shape[1], np.float32),
        labels=_padded([objects.labels for objects in found], shape[1], np.int64),
        valid=torch.from_numpy(valid),
        ignore=torch.from_numpy(ignore),
    )
    if any((objects.weights != 1).any() for objects in found):
        targets = replace(targets, weights=_padded([objects.weights for objects in found], shape[1], np.float32))
    if found[0].masks is not None:
        masks = [objects.masks for objects in found if objects.masks is not None]
        targets = replace(targets, masks=_padded(masks, shape[1], np.bool_))
    if found[0].keypoints is not None:
        keypoints = [objects.keypoints for objects in found if objects.keypoints is not None]
        targets = replace(targets, keypoints=_padded(keypoints, shape[1], np.float32))
    return targets


def _padded(columns: Sequence[NDArray[np.generic]], count: int, dtype: type) -> Tensor:
    """Rows ``[n, ...]`` of each sample as ``[B, count, ...]``, zero where there are none."""
    padded = np.zeros((len(columns), count, *columns[0].shape[1:]), dtype)
    for rows, column in zip(padded, columns, strict=True):
        rows[: len(column)] = column
    return torch.from_numpy(padded)


def _class_targets(samples: Sequence[Sample], classes: int) -> Targets:
    """Classes of pictures; the largest share names a mixed one."""
    best = [max(sample.classes, key=lambda pair: pair[1])[0] for sample in samples]
    targets = Targets.of_classes(torch.tensor(best))
    if all(len(sample.classes) == 1 for sample in samples):
        return targets
    probabilities = torch.zeros(len(samples), classes)
    for i, sample in enumerate(samples):
        for label, share in sample.classes:
            probabilities[i, label] += share
    return replace(targets, probabilities=probabilities)
