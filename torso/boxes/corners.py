"""From maps of corners to boxes: peaks, pairs, and the centres that confirm them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from torso.boxes.candidates import best, rows
from torso.boxes.heatmap import peaks


class Found(NamedTuple):
    """The K best points of one kind, in no order; where there are fewer the rest has score 0."""

    scores: Tensor  # [B, K]
    labels: Tensor  # [B, K] int64
    places: Tensor  # [B, K] int64: of a cell, row by row
    points: Tensor  # [B, K, 2]: x, y in pixels


def points(heat: Tensor, offsets: Tensor, stride: tuple[int, int], window: int, topk: int) -> Found:
    """The best peaks of all classes.

    Args:
        heat: ``[B, C, H, W]`` in 0..1.
        offsets: where in its cell a point is, ``[B, 2, H, W]`` x and y in strides.
        stride: pixels between cells, down and right.
        window: side in cells in which a peak is the highest of its class.
        topk: how many points K.
    """
    batch, classes, height, width = heat.shape
    cells = height * width
    flat = functional.pad(peaks(heat, window).reshape(batch, classes * cells), (0, topk))
    at = best(flat, topk)
    scores, at = flat.gather(1, at), at.clamp(max=classes * cells - 1)
    label = at // cells
    place = at - label * cells  # % of a side that is not known has no ONNX
    row = place // width
    column = place - row * width
    moved = rows(offsets.reshape(batch, 2, cells).transpose(1, 2), place)
    x, y = (column + moved[..., 0]) * stride[1], (row + moved[..., 1]) * stride[0]
    return Found(scores, label, place, torch.stack([x, y], dim=-1))


def pairs(
    first: Found, second: Found, embeddings: Tensor, distance: float, threshold: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of top left and bottom right corners of one class whose embeddings are near each other.

    A score is the mean of those of the corners. The first one lies left of and above the other.

    Args:
        first: top left corners, K.
        second: bottom right corners, K.
        embeddings: ``[B, 2, H, W]``, of a top left and of a bottom right corner at each cell.
        distance: how far embeddings of one object are apart at most.
        threshold: what a score has to exceed.
        count: how many pairs D.

    Returns:
        ``boxes [B, D, 4]``, ``scores [B, D]`` (0 where there are fewer), ``labels [B, D]``.
    """
    size = first.scores.shape[1]
    one, two = (
        x.flatten(1).gather(1, found.places) for x, found in zip(embeddings.unbind(1), (first, second), strict=True)
    )
    score = (first.scores.unsqueeze(2) + second.scores.unsqueeze(1)) / 2  # [B, K, K]
    fits = first.labels.unsqueeze(2) == second.labels.unsqueeze(1)
    fits &= (one.unsqueeze(2) - two.unsqueeze(1)).abs() <= distance
    fits &= (first.points.unsqueeze(2) < second.points.unsqueeze(1)).all(dim=-1)
    fits &= (first.scores > 0).unsqueeze(2) & (second.scores > 0).unsqueeze(1) & (score > threshold)
    flat = functional.pad(torch.where(fits, score, 0.0).flatten(1), (0, count))
    at = best(flat, count)
    scores, at = flat.gather(1, at), at.clamp(max=size * size - 1)
    boxes = torch.cat([rows(first.points, at // size), rows(second.points, at % size)], dim=-1)
    return boxes, scores, first.labels.gather(1, at // size)


def central(boxes: Tensor, parts: tuple[int, int], large: float) -> Tensor:
    """The middle of each box ``[..., 4]``: one of n equal parts along both axes.

    Args:
        boxes: ``xyxy`` pixels.
        parts: n of small boxes and of large ones, odd.
        large: the root of its area from above which a box is large.

    Source: CenterNet: Keypoint Triplets for Object Detection, 2019, arXiv:1904.08189, equation 1
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    big = (high - low).prod(dim=-1, keepdim=True) > large**2
    n = torch.where(big, float(parts[1]), float(parts[0])).to(boxes.dtype)
    return torch.cat([((n + 1) * low + (n - 1) * high) / (2 * n), ((n - 1) * low + (n + 1) * high) / (2 * n)], dim=-1)


def confirmed(
    boxes: Tensor, scores: Tensor, labels: Tensor, centres: Found, parts: tuple[int, int], large: float
) -> Tensor:
    """Scores ``[B, D]`` of pairs: the mean of their corners' and the best centre's of their class in the middle; or 0.

    Args:
        boxes: ``[B, D, 4]``.
        scores: of two corners, ``[B, D]``.
        labels: ``[B, D]``.
        centres: K points; memory is one table ``B x D x K``.
        parts: see `central`.
        large: see `central`.
    """
    middle = central(boxes, parts, large).unsqueeze(2)  # [B, D, 1, 4]
    point = centres.points.unsqueeze(1)  # [B, 1, K, 2]
    inside = ((point > middle[..., :2]) & (point < middle[..., 2:])).all(dim=-1)
    inside &= labels.unsqueeze(2) == centres.labels.unsqueeze(1)
    centre = torch.where(inside, centres.scores.unsqueeze(1), 0.0).amax(dim=-1)  # [B, D]
    return torch.where((centre > 0) & (scores > 0), (2 * scores + centre) / 3, 0.0)
