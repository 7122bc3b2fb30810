"""The priors of the YOLO family: sizes that k-means found in the boxes of a data set, and plain cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torso.boxes.cells import around_cells, pair
from torso.structures import Priors

Size = tuple[float, float]

# YOLO9000's are published in cells of 32 px, for an input of 416 px.
_VOC = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
_COCO = ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828))
# Width and height in pixels of the network's input, as their authors' k-means found them.
CLUSTERS: dict[str, list[Size]] = {
    "yolov2_voc": [(32 * width, 32 * height) for width, height in _VOC],
    "yolov2_coco": [(32 * width, 32 * height) for width, height in _COCO],
    # 416 px; PP-YOLO and YOLOv5 took them over for other sizes.
    "yolov3": [(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)],
    # 512 px.
    "yolov4": [(12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401)],
}


class KMeans(nn.Module):
    """Boxes of the sizes that k-means found, in the middle of every cell; the levels share them, small ones first.

    Sorted by area and dealt to the levels in order, finest first, equally many each where that is possible (the finer
    levels take one more where it is not): nine sizes on three levels are YOLOv3's three a level. ``torso data stats
    DIR --anchors 9 --size 416`` makes ``sizes`` for other data, by k-means with the distance 1 - IoU.

    Args:
        strides: pixels between cells, a level each (wired).
        clusters: published sizes: of YOLOv2 for VOC or COCO, YOLOv3, YOLOv4.
        sizes: sizes of your own instead, ``[[width, height], ...]`` in pixels of the network's input, above 0.
        scale: factor of all sizes, above 0, where they were made for another input: 608 / 416.

    Raises:
        ValueError: fewer sizes than levels, or a size or factor that is not above 0.

    Source: YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242
    """

    def __init__(
        self,
        strides: Sequence[int | tuple[int, int]],
        clusters: Literal["yolov2_voc", "yolov2_coco", "yolov3", "yolov4"] = "yolov3",
        sizes: Sequence[tuple[float, float]] | None = None,
        scale: float = 1.0,
    ):
        super().__init__()
        self.strides = [pair(stride) for stride in strides]
        chosen = list(CLUSTERS[clusters] if sizes is None else sizes)
        if scale <= 0 or any(len(size) != 2 or min(size) <= 0 for size in chosen):
            raise ValueError(f"kmeans needs pairs of width and height above 0, got sizes={chosen} with scale={scale}")
        if len(chosen) < len(self.strides):
            raise ValueError(
                f"kmeans has {len(chosen)} sizes for {len(self.strides)} levels: give at least one a level, "
                "torso data stats --anchors makes them"
            )
        chosen.sort(key=lambda size: size[0] * size[1])
        least, more = divmod(len(chosen), len(self.strides))
        self.per_cell = [least + (level < more) for level in range(len(self.strides))]
        start = 0
        for level, count in enumerate(self.per_cell):
            half = torch.tensor(chosen[start : start + count], dtype=torch.float32) * (scale / 2)  # [A, 2]
            self.register_buffer(f"cell{level}", torch.cat([-half, half], dim=1), persistent=False)
            start += count

    def forward(self, sizes: Sequence[tuple[int, int]]) -> Priors:
        """The boxes of levels of these (height, width)."""
        return around_cells(_cells(self), self.strides, sizes, offset=0.5)


class Grid(nn.Module):
    """The cells themselves, once for each of a cell's slots.

    One slot is YOLOX's; two of one size are the two predictors of a cell of YOLOv1, which say for themselves who is
    responsible; slots of different sizes divide the objects of a cell by size: ``[1, 4]`` a small one and a large one.

    Args:
        strides: pixels between cells, a level each (wired).
        slots: side of the box of each slot in cells, above 0.

    Raises:
        ValueError: no slot, or one without a size.

    Source: You Only Look Once: Unified, Real-Time Object Detection, 2015, arXiv:1506.02640
    """

    def __init__(self, strides: Sequence[int | tuple[int, int]], slots: Sequence[float] = (1.0,)):
        super().__init__()
        if not slots or min(slots) <= 0:
            raise ValueError(f"grid needs the side of at least one slot in cells, above 0, got slots={list(slots)}")
        self.strides = [pair(stride) for stride in strides]
        self.per_cell = [len(slots)] * len(self.strides)
        sides = torch.tensor([float(side) for side in slots])[:, None] / 2  # [A, 1]
        for level, (down, right) in enumerate(self.strides):
            half = torch.cat([sides * right, sides * down], dim=1)
            self.register_buffer(f"cell{level}", torch.cat([-half, half], dim=1), persistent=False)

    def forward(self, sizes: Sequence[tuple[int, int]]) -> Priors:
        """The cells of levels of these (height, width)."""
        return around_cells(_cells(self), self.strides, sizes, offset=0.5)


def _cells(prior: KMeans | Grid) -> list[Tensor]:
    return [getattr(prior, f"cell{level}") for level in range(len(prior.strides))]
