"""Proposals that are given: boxes in which something may be, of every picture of an index."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.index import Index
from torso.structures import Batch

_MULTIPLE = 8  # rows are padded to a multiple, so that few shapes are compiled


@dataclass(frozen=True)
class Proposals:
    """Boxes of N pictures, those of picture i in the rows ``offsets[i]:offsets[i + 1]``, best first."""

    boxes: NDArray[np.float64]  # [K, 4] xyxy, pixels of the original picture
    offsets: NDArray[np.int64]  # [N + 1]

    @classmethod
    def read(cls, paths: Sequence[str | Path], index: Index, most: int = 2000) -> Proposals:
        """Those of files of COCO results, ``[{"image_id": 7, "bbox": [x, y, width, height], "score": 0.9}, ...]``.

        Pictures that the index has not are passed over; a row without a score is as good as any other.

        Args:
            paths: the files.
            index: the pictures, by their original ids.
            most: kept of a picture, those of the highest scores.

        Raises:
            DataError: a file that is no such list, a box without four numbers, or no box of any picture.
        """
        row_of = {image: row for row, image in enumerate(index.image_ids)}
        rows = [one for path in paths for one in _of_file(path, row_of)]
        if not rows:
            raise DataError(
                f"{', '.join(map(str, paths))}: no proposal is of a picture of {index.root}, whose ids are such as "
                f"{index.image_ids[0]!r}"
            )
        table = np.array(rows, np.float64)  # picture, score, x, y, width, height
        table = table[np.lexsort((-table[:, 1], table[:, 0]))]  # stable: of equals the first in the files
        picture = table[:, 0].astype(np.int64)
        kept = np.arange(len(picture)) - np.searchsorted(picture, picture) < most
        corners = np.concatenate([table[kept, 2:4], table[kept, 2:4] + table[kept, 4:]], axis=1)
        counts = np.bincount(picture[kept], minlength=len(index.image_ids))
        return cls(corners, np.concatenate([[0], np.cumsum(counts)]))

    @property
    def size(self) -> int:
        """Rows a picture: the same for all batches."""
        return -(-int(np.diff(self.offsets).max()) // _MULTIPLE) * _MULTIPLE

    def given_to(self, batch: Batch) -> Batch:
        """The batch with ``proposals [B, R, 4]``, in pixels of the network's input and cut to it."""
        rows = batch.index.numpy()
        found = np.zeros((len(rows), self.size, 4))
        for table, row in zip(found, rows, strict=True):
            boxes = self.boxes[self.offsets[row] : self.offsets[row + 1]]
            table[: len(boxes)] = boxes
        way = np.linalg.inv(batch.to_source.numpy())  # original pixels -> the network's
        corners = found[..., [[0, 1], [2, 1], [0, 3], [2, 3]]]  # [B, R, 4, 2]
        moved = corners @ way[:, None, :2, :2].swapaxes(-1, -2) + way[:, None, None, :2, 2]
        height, width = batch.images.shape[-2:]
        limits = np.array([width, height])
        low, high = (np.clip(x, 0, limits) for x in (moved.min(axis=2), moved.max(axis=2)))
        boxes = np.concatenate([low, high], axis=2)
        boxes[~((high - low) > 0).all(axis=2)] = 0  # padding, and what lies outside of a crop
        return replace(batch, proposals=torch.from_numpy(boxes.astype(np.float32)))


def _of_file(path: str | Path, row_of: Mapping[int | str, int]) -> Iterator[tuple[float, ...]]:
    """Row of the picture, score, and four numbers of each box of a picture that is among ``row_of``."""
    for place, found in enumerate(_rows(path)):
        try:
            picture, box = row_of.get(found["image_id"]), [float(x) for x in found["bbox"]]
            row = (float(found.get("score", 0.0)), *box)
            if len(row) != 5 or not all(map(math.isfinite, row)):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(
                f'{path}: row {place} is no proposal: expected {{"image_id": ..., "bbox": [x, y, width, height], '
                f'"score": ...}}, got {str(found)[:80]}'
            ) from None
        if picture is not None:
            yield picture, *row


def _rows(path: str | Path) -> list[Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as proposals: {error}") from error
    if not isinstance(found, list):
        raise DataError(f"{path} holds no proposals: expected a list of COCO results, such as torso eval writes")
    return found
