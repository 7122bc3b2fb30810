"""Scenes for assigners, full of what goes wrong, and what their slow references share, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from torso.boxes.cells import around_cells
from torso.structures import Assignment, DenseOutput, Targets

Box = list[float]
SIDE = 64
FIELDS = ("matched", "positive", "negative")


def shapes(*sides: tuple[float, float]) -> Tensor:
    """Boxes of these (width, height) around 0."""
    half = torch.tensor(sides, dtype=torch.float64) / 2
    return torch.cat([-half, half], dim=1)


SQUARE = {stride: shapes((stride, stride)) for stride in (4, 8, 16, 32)}
THREE = shapes((10, 13), (16, 30), (33, 23))
MORE = shapes((30, 61), (62, 45), (10, 13))  # the last is there twice
# Strides (height, width) of each level, and the boxes around the cells of each.
LEVELS: dict[str, tuple[list[tuple[int, int]], list[Tensor]]] = {
    "points": ([(8, 8), (16, 16), (32, 32)], [SQUARE[8], SQUARE[16], SQUARE[32]]),
    "one level": ([(8, 8)], [SQUARE[8]]),
    "anchors": ([(8, 8), (16, 16), (32, 32)], [THREE, MORE, MORE * 2]),
    "one level of anchors": ([(16, 16)], [torch.cat([THREE, MORE])]),
    "sides": (
        [(8, 8), (8, 16), (16, 8), (16, 16)],
        [SQUARE[8], shapes((16, 8)), shapes((8, 16)), SQUARE[16]],
    ),
}


def detector_output(kind: str, batch: int, seed: int = 0, offset: float = 0.5, side: int = SIDE) -> DenseOutput:
    """Priors of a kind of levels in a square picture, with decoded boxes somewhere around them."""
    strides, cells = LEVELS[kind]
    sizes = [(side // down, side // right) for down, right in strides]
    priors, steps = around_cells(cells, strides, sizes, offset)
    counts = tuple(h * w * len(cell) for (h, w), cell in zip(sizes, cells, strict=True))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, len(priors), 3, generator=generator, dtype=torch.float64)
    boxes = priors + torch.randint(-4, 5, (batch, len(priors), 4), generator=generator)
    return DenseOutput(logits, torch.zeros_like(boxes), boxes, priors, counts, {}, steps, (side, side))


def scene(
    kind: str, seed: int, counts: Sequence[int] = (7, 0, 12), regions: int = 2, offset: float = 0.5
) -> tuple[DenseOutput, Targets]:
    """Objects with half and whole corners, so that ties abound; some twice, some without area, some outside."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        size = torch.randint(1, 60, (count, 2), generator=generator).double()
        middle = torch.randint(0, SIDE, (count, 2), generator=generator)
        return torch.cat([middle - size / 2, middle + size / 2], dim=1)

    rows = max(counts) + regions + 1  # the last is padding
    boxes = torch.zeros(len(counts), rows, 4, dtype=torch.float64)
    valid, ignore = torch.zeros(2, len(counts), rows, dtype=torch.bool)
    for image, count in enumerate(counts):
        boxes[image, :count] = draw(count)
        if count > 5:
            boxes[image, 1] = boxes[image, 0]
            boxes[image, 2, 2] = boxes[image, 2, 0]  # no width
            boxes[image, 3] = torch.tensor([-40.0, 10, -8, 50])  # outside
            boxes[image, 4] = torch.tensor([16.0, 16, 48, 48])  # its centre is a corner of cells of all levels
        boxes[image, count : count + regions] = draw(regions)
        valid[image, :count] = True
        ignore[image, count : count + regions] = True
    labels = torch.randint(0, 3, (len(counts), rows), generator=generator)
    return detector_output(kind, len(counts), seed, offset), Targets(boxes, labels, valid, ignore)


@st.composite
def drawn_targets(draw: st.DrawFn) -> Targets:
    """One picture with up to eight objects or ignored regions whose corners are multiples of 4, inside or not."""
    corner = st.integers(-3, 18).map(lambda n: n * 4.0)
    side = st.integers(0, 15).map(lambda n: n * 4.0)
    found = draw(st.lists(st.tuples(corner, corner, side, side, st.integers(0, 2)), min_size=1, max_size=8))
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, _ in found], dtype=torch.float64)[None]
    kind = torch.tensor([kind for *_, kind in found])[None]
    return Targets(boxes, torch.zeros_like(kind), kind > 0, kind == 0)


def crowd(count: int, side: int = SIDE) -> Targets:
    """One picture full of objects, a tenth of them ignored regions."""
    generator = torch.Generator().manual_seed(count)
    low = torch.rand(1, count, 2, generator=generator) * side
    boxes = torch.cat([low, low + torch.rand(1, count, 2, generator=generator) * 40 + 2], dim=-1)
    ignore = (torch.arange(count) % 10 == 9)[None]
    return Targets(boxes, torch.zeros(1, count, dtype=torch.int64), ~ignore, ignore)


def single(output: DenseOutput) -> DenseOutput:
    """The same in float32."""
    tensors = {name: x.float() for name, x in output._asdict().items() if isinstance(x, Tensor)}
    return output._replace(**tensors)


# What the slow references share.


def middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def size(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def distances(point: tuple[float, float], box: Box) -> list[float]:
    """To the left, top, right and bottom."""
    x, y = point
    return [x - box[0], y - box[1], box[2] - x, box[3] - y]


def level_of(output: DenseOutput) -> list[int]:
    """The level of each prior."""
    return [level for level, count in enumerate(output.counts) for _ in range(count)]


def objects(targets: Targets, image: int) -> dict[int, Box]:
    """The objects of a picture, by row."""
    boxes = targets.boxes[image].tolist()
    return {m: box for m, box in enumerate(boxes) if targets.valid[image, m]}


def in_region(targets: Targets, image: int, prior: Box, share: float | None) -> bool:
    """Whether an ignored region has the centre of a prior (``share`` None) or so much of its area."""
    for m, region in enumerate(targets.boxes[image].tolist()):
        if not targets.ignore[image, m]:
            continue
        if share is None:
            covered = min(distances(middle(prior), region)) > 0
        else:
            width = min(prior[2], region[2]) - max(prior[0], region[0])
            height = min(prior[3], region[3]) - max(prior[1], region[1])
            covered = max(width, 0) * max(height, 0) >= share * size(prior)[0] * size(prior)[1]
        if covered:
            return True
    return False


def check_learns(
    assigned: Assignment, image: int, learns: Sequence[int | None], neither: Sequence[bool] | None = None
) -> None:
    """A picture is assigned as said: the object each prior learns or None, and what it is not to learn from."""
    assert assigned.positive[image].tolist() == [m is not None for m in learns]
    assert assigned.matched[image].tolist() == [m or 0 for m in learns]
    if neither is not None:
        negative = [m is None and not n for m, n in zip(learns, neither, strict=True)]
        assert assigned.negative[image].tolist() == negative


def check_same(first: Assignment, second: Assignment) -> None:
    """Two assignments are one."""
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(second, field)), field
