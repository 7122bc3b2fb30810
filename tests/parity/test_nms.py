"""Suppression against torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor

from torso.boxes.suppress import NMS, BatchedNMS
from torso.structures import Detections

SIZES = [0, 1, 2, 30, 500, 3000]


def scene(count: int, whole: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Three pictures; with ``whole``, corners on a grid and few scores, so that ties and duplicates abound."""
    generator = torch.Generator().manual_seed(count)
    centre = torch.rand(3, count, 2, generator=generator, dtype=dtype) * 200
    half = torch.rand(3, count, 2, generator=generator, dtype=dtype) * 30 + 0.5
    boxes = torch.cat([centre - half, centre + half], dim=-1)
    scores = torch.rand(3, count, generator=generator, dtype=dtype)
    labels = torch.randint(0, 6, (3, count), generator=generator)
    return (boxes.round(), (scores * 40).ceil() / 40, labels) if whole else (boxes, scores, labels)


def assert_same(found: Detections, picture: int, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
    count = len(scores)
    assert int(found.valid[picture].sum()) == count
    assert torch.equal(found.boxes[picture, :count], boxes)
    assert torch.equal(found.scores[picture, :count], scores)
    assert torch.equal(found.labels[picture, :count], labels)


@pytest.mark.part("suppress/nms")
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("whole", [False, True], ids=["float", "whole"])
@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
def test_nms_is_torchvisions(count, whole, overlap):
    for dtype in (torch.float32, torch.float64):
        boxes, scores, labels = scene(count, whole, dtype)
        found = NMS(overlap, 300)(boxes, scores, labels)
        for i in range(3):
            keep = torchvision.ops.nms(boxes[i], scores[i], overlap)[:300]
            assert_same(found, i, boxes[i, keep], scores[i, keep], labels[i, keep])


@pytest.mark.part("suppress/batched_nms")
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
def test_batched_nms_is_torchvisions(count, overlap):
    # float64: torchvision moves each class to a place of its own for few boxes, and in float32 that rounds the boxes.
    boxes, scores, labels = scene(count, whole=False, dtype=torch.float64)
    found = BatchedNMS(overlap, 300)(boxes, scores, labels)
    for i in range(3):
        keep = torchvision.ops.batched_nms(boxes[i], scores[i], labels[i], overlap)[:300]
        assert_same(found, i, boxes[i, keep], scores[i, keep], labels[i, keep])


@pytest.mark.part("suppress/batched_nms")
@pytest.mark.parametrize("count", SIZES)
def test_batched_nms_is_torchvisions_class_by_class(count):
    boxes, scores, labels = scene(count, whole=True)
    found = BatchedNMS(0.5, 300)(boxes, scores, labels)
    for i in range(3):
        keep = torch.zeros(count, dtype=torch.bool)
        for label in labels[i].unique():
            rows = (labels[i] == label).nonzero().flatten()
            keep[rows[torchvision.ops.nms(boxes[i, rows], scores[i, rows], 0.5)]] = True
        rows = keep.nonzero().flatten()
        rows = rows[scores[i, rows].sort(descending=True, stable=True).indices][:300]
        assert_same(found, i, boxes[i, rows], scores[i, rows], labels[i, rows])
