"""What assigners share: objects in chunks, which object a prior learns, and which priors an ignored region covers.

All pairs of a crowded picture do not fit into memory: 3,000 objects and 200,000 priors are 600 million. So an assigner
compares the priors with ``CHUNK`` objects at a time and keeps what it has to know of each prior::

    for rows in slices(targets.boxes, priors):
        claims.add(closeness(targets.boxes[:, rows]), rows.start)

No more than 12 tables of ``B x CHUNK x P`` numbers live at a time: with 16 pictures and 20,000 priors half a gigabyte,
whether there are 30 objects or 3,000.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torso.boxes.convert import area
from torso.structures import Assignment, DenseOutput, Targets

# Objects compared with all priors at a time: a table takes B x CHUNK x P numbers, however crowded a picture is.
CHUNK = 32
# On a CPU fewer where priors are many: a table of so many numbers stays in the cache.
NUMBERS = 1 << 18


def slices(boxes: Tensor, priors: Tensor) -> list[slice]:
    """The rows of ``boxes [B, M, 4]`` in chunks of at most ``CHUNK``, to compare with ``priors``, ``[..., P, 4]``.

    The last one is open: so the compiler keeps a graph a number of chunks, not a graph a number of objects.
    """
    batch, count = boxes.shape[:2]
    size = CHUNK
    if priors.is_cpu and not torch.compiler.is_compiling():
        size = max(min(CHUNK, NUMBERS // max(batch * priors.shape[-2], 1)), min(CHUNK, 4))
    chunks = -(-count // size)
    return [slice(i * size, (i + 1) * size if i < chunks - 1 else None) for i in range(chunks)]


class Claims:
    """Which object each prior learns: the one with the highest claim on it, the first of equals.

    Args:
        output: what the detector says, for its priors.
        targets: what the pictures show, for its objects.
    """

    def __init__(self, output: DenseOutput, targets: Targets):
        shape = (len(targets.boxes), output.priors.shape[-2])
        self.best = output.priors.new_full(shape, -math.inf)  # [B, P]
        self.index = torch.zeros(shape, dtype=torch.int64, device=output.priors.device)  # [B, P]

    def add(self, claim: Tensor, start: int) -> None:
        """The claims ``[B, m, P]`` of the objects from row ``start`` on; ``-inf`` where there is none."""
        value, place = claim.max(dim=1)  # the first of equals, as torch promises
        self.index = torch.where(value > self.best, place + start, self.index)
        self.best = torch.maximum(self.best, value)

    @property
    def positive(self) -> Tensor:
        """Priors that any object claims, ``[B, P]``."""
        return self.best > -math.inf

    def assignment(self, neither: Tensor, quality: Tensor | None = None) -> Assignment:
        """Claimed priors are positive; the others are negative but for those of ``neither [B, P]``."""
        positive = self.positive
        return Assignment(torch.where(positive, self.index, 0), positive, ~positive & ~neither, quality)


def centres(boxes: Tensor) -> Tensor:
    """The middle ``[..., 2]`` of ``xyxy`` boxes ``[..., 4]``."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def sides(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How far points, ``[P, 2]`` or ``[B, P, 2]``, are inside of the left, top, right and bottom side of boxes.

    With ``boxes [B, m, 4]`` each is ``[B, m, P]``, in pixels, and negative outside.
    """
    box = boxes[:, :, None]
    x, y = _columns(points.unsqueeze(-3))
    return x - box[..., 0], y - box[..., 1], box[..., 2] - x, box[..., 3] - y


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points, ``[P, 2]`` or ``[B, P, 2]``, lie inside of ``boxes [B, m, 4]``, not on a side: ``[B, m, P]``."""
    left, top, right, bottom = sides(points, boxes)
    return torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom)) > 0


def near(points: Tensor, boxes: Tensor, reach: Tensor) -> Tensor:
    """Whether ``points [P, 2]`` lie within ``reach [P, 2]`` of the centres of ``boxes [B, m, 4]``: ``[B, m, P]``."""
    (x, y), (right, down) = _columns(points), _columns(reach)
    centre_x, centre_y = centres(boxes)[:, :, None].unbind(dim=-1)
    return torch.minimum(right - (x - centre_x).abs_(), down - (y - centre_y).abs_()) > 0


def intersection(boxes: Tensor, priors: Tensor) -> Tensor:
    """Shared area of ``boxes [B, m, 4]`` and ``priors``, ``[P, 4]`` or ``[B, P, 4]``: ``[B, m, P]``."""
    left, top, right, bottom = boxes[:, :, None].unbind(dim=-1)  # each [B, m, 1]
    x1, y1, x2, y2 = _columns(priors.unsqueeze(-3))
    width = torch.minimum(right, x2).sub_(torch.maximum(left, x1))
    height = torch.minimum(bottom, y2).sub_(torch.maximum(top, y1))
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def _columns(rows: Tensor) -> tuple[Tensor, ...]:
    """The last dimension apart, each column in one piece: with gaps between, a CPU takes several times as long."""
    return tuple(column.contiguous() for column in rows.unbind(dim=-1))


def overlaps(boxes: Tensor, priors: Tensor) -> Tensor:
    """IoU of ``boxes [B, m, 4]`` and ``priors``, ``[P, 4]`` or ``[B, P, 4]``: ``[B, m, P]``; 0 without an area."""
    shared = intersection(boxes, priors)
    union = (area(boxes)[..., None] + area(priors).unsqueeze(-2)).sub_(shared)
    return shared.div_(union.clamp_(min=torch.finfo(shared.dtype).tiny))


def lowest(cost: Tensor, k: int) -> Tensor:
    """Marks the ``k`` lowest of ``cost [..., P]``, all where there are fewer; of equals the first.

    ``topk`` alone promises nothing about equals, and priors of one cell are equally far from everything.
    """
    if k >= cost.shape[-1]:
        return torch.ones_like(cost, dtype=torch.bool)
    last = cost.topk(k, dim=-1, largest=False).values[..., -1:]
    lower, equal = cost < last, cost == last
    room = k - lower.sum(dim=-1, keepdim=True, dtype=torch.int32)
    return lower | (equal & (equal.cumsum(dim=-1, dtype=torch.int32) <= room))


def ignored_priors(output: DenseOutput, targets: Targets, share: float | None = 0.5) -> Tensor:
    """Priors in an ignored region, ``[B, P]``: those learn nothing unless an object claims them.

    Args:
        output: what the detector says, for its priors.
        targets: what the pictures show, for its ignored regions.
        share: a prior lies in a region that covers at least this share of its area; by its centre when None, which
            suits points. Priors without area always go by their centre.
    """
    priors = output.priors
    points, size = centres(priors), area(priors).unsqueeze(-2)
    found = torch.zeros(len(targets.boxes), priors.shape[-2], dtype=torch.bool, device=priors.device)
    for rows in slices(targets.boxes, priors):
        regions = targets.boxes[:, rows].to(priors.dtype)
        covered = inside(points, regions)
        if share is not None:
            enough = intersection(regions, priors) >= share * size
            covered = torch.where(size > 0, enough, covered)
        found |= (covered & targets.ignore[:, rows, None]).any(dim=1)
    return found
