"""Windows over real microscope pictures: what is found through them is what is found in the whole picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from torso.boxes.overlap import pairwise_iou
from torso.data import open_index
from torso.data.decode import decode
from torso.deploy.tiled import Tiled
from torso.structures import Detections

SIZE = (256, 192)
SHARED = [int(0.4 * side) for side in SIZE]  # what is no larger lies whole in a window


def spots(red: np.ndarray) -> np.ndarray:
    """The boxes ``[K, 4]`` of bright connected spots; the grey around a picture is none."""
    bright = ((red > 30) & (red != 114)).astype(np.uint8)
    count, _, table, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    boxes = table[1:count, :4].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


class Spots:
    """Finds what is bright: it has learned nothing, and needs no more than the pixels it is shown."""

    task, num_classes, stride = "detect", 1, 32

    def predict(self, images: Tensor) -> Detections:
        found = [spots(image[0].numpy()) for image in images]
        boxes = torch.zeros(len(found), max(map(len, found)) + 1, 4)
        for row, each in zip(boxes, found, strict=True):
            row[: len(each)] = torch.from_numpy(each)
        scores = ((boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) > 0).float() * 0.9
        return Detections(boxes, scores, scores.long() * 0, scores > 0)


@pytest.mark.part("deploy/tiled")
def test_spots_are_found_once_and_where_they_are(shared_data: Path) -> None:
    """All that are no larger than the overlap, to the pixel; and beside them only what is larger, or pieces of it."""
    index = open_index(shared_data / "dsb2018", "val")
    large = [row for row in range(len(index)) if (index.sizes[row] > SIZE).all()]
    pictures = [decode(index.picture(row)) for row in large]
    pictures = [np.where(picture == 114, 113, picture).astype(np.uint8) for picture in pictures]
    total = 0
    for picture in [each for each in pictures if np.median(each) < 30]:  # bright nuclei on dark
        truth = spots(picture[..., 0])
        fits = ((truth[:, 2:] - truth[:, :2]) <= SHARED).all(axis=1)
        found = Tiled(Spots(), SIZE, overlap=0.4, batch=4).predict(picture)
        said = found.boxes[0][found.valid[0]].numpy()
        same = (said[:, None] == truth).all(axis=-1)  # [found, true]
        assert (same.sum(axis=0) <= 1).all()
        # Of two whose boxes overlap by half one may go, as it may in the whole picture.
        overlap = pairwise_iou(torch.from_numpy(truth), torch.from_numpy(truth)).fill_diagonal_(0) > 0.5
        assert same[:, fits & ~overlap.any(dim=1).numpy()].any(axis=0).all()
        big, each = truth[~fits], said[:, None]
        inside = ((each[..., :2] >= big[:, :2]) & (each[..., 2:] <= big[:, 2:])).all(axis=-1)
        assert (same.any(axis=1) | inside.any(axis=1)).all()
        total += int(fits.sum())
    assert total > 500
