"""Masks of objects over their boxes: cut out of whole pictures to learn from, and laid back onto whole pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LIMIT = 1 << 28  # bytes of masks in floating point at one time, if a picture's do not need more


@torch.no_grad()
def cut(masks: Tensor, index: Tensor, boxes: Tensor, size: int) -> Tensor:
    """What of its mask a box sees, as ``size x size`` cells: RoI Align without half a cell, as many samples as pixels.

    As torchvision's Mask R-CNN: a cell is the mean of its samples, one for each pixel along a side, not rounded.
    The operator wants floating point; of a picture at most ``min(N, K)`` masks become that, of as many pictures at
    once as stay below `LIMIT`: the memory taken beside the masks is ``max(LIMIT, 4 min(N, K) H W)`` bytes in float32.

    Args:
        masks: ``[B, N, H, W]`` bool.
        index: ``[B, K]`` int64, the mask of each box.
        boxes: ``[B, K, 4]`` xyxy pixels of the masks.
        size: cells along a side.

    Returns:
        ``[B, K, size, size]`` in 0..1, in the type of ``boxes``.
    """
    import torchvision  # noqa: F401  brings the operator

    batch, objects, height, width = masks.shape
    count = min(objects, boxes.shape[1])
    step = max(LIMIT // max(count * height * width * boxes.dtype.itemsize, 1), 1)
    found = []
    for start in range(0, batch, step):
        some, number, place = (x[start : start + step] for x in (masks, index, boxes))
        if count < objects:  # a crowd: only masks that are asked for
            some = some[torch.arange(len(some), device=some.device)[:, None], number]
            number = torch.arange(count, device=some.device).expand(len(some), -1)
        first = torch.arange(len(some), device=some.device)[:, None] * count
        rows = torch.cat([(first + number).unsqueeze(-1).to(place.dtype), place], dim=-1)  # [b, K, 5]
        maps = some.flatten(0, 1).unsqueeze(1).to(place.dtype)
        # Scale 1, any number of samples, not moved by half a cell.
        found.append(torch.ops.torchvision.roi_align(maps, rows.flatten(0, 1), 1.0, size, size, -1, False))
    return torch.cat(found).view(batch, -1, size, size)


def paste(
    mask: NDArray[np.floating], box: NDArray[np.floating], to_source: NDArray[np.floating], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], int, int]:
    """A mask over its box as pixels of the original picture.

    A pixel belongs to the object where the mask, bilinear between the centres of its cells and 0 outside, is at least
    one half at the pixel's centre (Detectron2). torchvision first rounds the box to whole pixels and makes it one
    larger, so that its masks differ by up to a pixel at the rim.

    Args:
        mask: ``[S, S]`` in 0..1.
        box: ``[4]`` xyxy pixels of the network's input.
        to_source: ``[3, 3]`` affine, pixels of the network's input to those of the original picture.
        size: width, height of the original picture.

    Returns:
        the pixels ``[h, w]`` bool of a window of the picture, and its left and top; all outside it is empty.
    """
    corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]], dtype=np.float64)
    moved = corners @ to_source[:2, :2].T + to_source[:2, 2]
    left, top = np.clip(np.floor(moved.min(axis=0)), 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(moved.max(axis=0)), 0, size).astype(int).tolist()
    length = (corners[2] - corners[0]).clip(min=1e-9)
    if right <= left or bottom <= top or length.min() < 1e-6:
        return np.zeros((max(bottom - top, 0), max(right - left, 0)), np.bool_), left, top
    # From pixels of the picture to cells of the mask, the centre of the first cell at 0.
    back = np.linalg.inv(to_source)[:2]
    back = (back - np.array([[0, 0, box[0]], [0, 0, box[1]]])) * (mask.shape[-1] / length)[:, None]
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    if back[0, 1] or back[1, 0]:  # turned
        import cv2

        u, v = (row[0] * x + row[1] * y[:, None] + row[2] - 0.5 for row in back)
        values = cv2.remap(
            mask.astype(np.float32), u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderValue=0
        )
        return np.asarray(values) >= 0.5, left, top
    across = _weights(back[0, 0] * x + back[0, 2] - 0.5, mask.shape[-1])
    down = _weights(back[1, 1] * y + back[1, 2] - 0.5, mask.shape[-1])
    return np.asarray(down @ mask @ across.T >= 0.5), left, top


def _weights(at: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """How much of each cell a place ``at`` sees, ``[n, cells]``: bilinear, nothing outside."""
    return np.asarray((1 - np.abs(at[:, None] - np.arange(cells))).clip(min=0))
