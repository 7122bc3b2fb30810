"""Assignment by the cell: the priors of the cell that an object's centre lies in, or some of them, learn it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from torso.assigners.chunks import Claims, centres, ignored_priors, overlaps, slices
from torso.boxes.convert import xyxy_to_cxcywh
from torso.structures import Assignment, DenseOutput, Targets


class Grid(nn.Module):
    """Priors of the cell of an object's centre learn it; how many of them, and which, says ``match``.

    - ``"overlap"`` (YOLOv1): a cell learns one object, the first of several. Of its predictors the one whose decoded
      box overlaps the object most is responsible; where none does, the one whose box is least far off (squared
      differences of centre and size, as shares of the picture: darknet's choice, the paper says nothing).
    - ``"shape"`` (YOLOv2 and v3): of all levels the prior that overlaps the object most when both have the same
      centre; of equals the first. A prior that several objects take learns the one it fits best.
    - ``"ratio"`` (YOLOv5): on every level all priors whose width and height differ from the object's by less than a
      factor of ``ratio``, in the cell of the centre and the ``neighbours`` nearest to it. An object in its own cell
      goes before those of neighbouring cells, and then the one that fits best.

    A cell is one stride around its priors' centre, whatever the size of the priors; objects without area have none.

    Args:
        match: which priors of a cell.
        ignore_above: a negative prior whose decoded box overlaps any object more than this is not learned from; 0.6
            in YOLOv2, 0.5 in the paper of v3 and 0.7 in its code (darknet); 1 for none.
        fits_above: with ``"shape"``, every prior of the cell that fits better than this is taken too, unless another
            object fits it best (YOLOv4: 0.213); 1 for none.
        ratio: with ``"ratio"``, the largest factor between sides, above 1.
        neighbours: with ``"ratio"``, cells beside the object's: 2, the nearer along x and the nearer along y; 1, the
            nearer of these; or 0.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Raises:
        ValueError: a ratio that is not above 1.

    Source: You Only Look Once, 2015, arXiv:1506.02640; YOLO9000, 2016, arXiv:1612.08242; YOLOv3, 2018,
        arXiv:1804.02767; YOLOv4, 2020, arXiv:2004.10934; ``"ratio"`` from public descriptions of YOLOv5, 2020
    """

    def __init__(
        self,
        match: Literal["overlap", "shape", "ratio"] = "shape",
        ignore_above: float = 0.7,
        fits_above: float = 1.0,
        ratio: float = 4.0,
        neighbours: Literal[0, 1, 2] = 2,
        ignore_overlap: float = 0.5,
    ):
        super().__init__()
        if ratio <= 1:
            raise ValueError(f"ratio is above 1, got {ratio}")
        self.match, self.ignore_above, self.fits_above = match, ignore_above, fits_above
        self.ratio, self.neighbours, self.ignore_overlap = ratio, neighbours, ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        place, low = _cells(output)
        owner = self._owner(output, targets, low) if self.match == "overlap" else None
        neither = ignored_priors(output, targets, self.ignore_overlap)
        claims = Claims(output, targets)
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(output.priors.dtype)
            there = _there(boxes, targets.valid[:, rows])
            at = _position(boxes, output)
            own = [(u >= a) & (u < a + 1) & there for u, a in zip(at, low, strict=True)]  # along x, along y
            if owner is not None:
                row = torch.arange(boxes.shape[1], device=boxes.device)[:, None] + rows.start
                claim = _responsible(own[0] & own[1] & (owner[:, None] == row), boxes, output)
            elif self.match == "shape":
                claim = self._by_shape(own[0] & own[1], boxes, output)
            else:
                away = [(u - a).abs_() for u, a in zip(at, place, strict=True)]
                claim = self._by_ratio(own, away, there, boxes, output)
            claims.add(claim, rows.start)
            if self.ignore_above < 1:
                neither |= ((overlaps(boxes, output.boxes) > self.ignore_above) & there).any(dim=1)
        return claims.assignment(neither)

    def _owner(self, output: DenseOutput, targets: Targets, low: list[Tensor]) -> Tensor:
        """The row of the first object whose centre lies in each prior's cell, ``[B, P]``."""
        first = Claims(output, targets)
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(output.priors.dtype)
            own = _there(boxes, targets.valid[:, rows])
            for u, a in zip(_position(boxes, output), low, strict=True):
                own = own & (u >= a) & (u < a + 1)
            first.add(torch.where(own, 0.0, -math.inf).to(boxes.dtype), rows.start)
        return first.index

    def _by_shape(self, own: Tensor, boxes: Tensor, output: DenseOutput) -> Tensor:
        """Claims of the best shape in the object's cell, ``[B, m, P]``."""
        fit = _fit(boxes, output.priors).masked_fill_(~own, -math.inf)
        best = _first_highest(fit)
        if self.fits_above >= 1:
            return fit.masked_fill_(~best, -math.inf)
        return (fit + best).masked_fill_(~best & (fit <= self.fits_above), -math.inf)

    def _by_ratio(
        self, own: list[Tensor], away: list[Tensor], there: Tensor, boxes: Tensor, output: DenseOutput
    ) -> Tensor:
        """Claims of all similar shapes in the object's cell and its neighbours, ``[B, m, P]``."""
        cell = own[0] & own[1]
        mine = cell
        if self.neighbours:
            beside, above = (away[0] < 1) & own[1], (away[1] < 1) & own[0]
            if self.neighbours == 1:
                both = away[0] + away[1]  # seen from a neighbour along x, |x| is 1 less what it is from the own cell
                beside, above = beside & (both <= 1), above & (both < 1)
            mine = cell | beside | above
        width, height = _size(boxes)
        for side, prior in zip((width, height), _size(output.priors), strict=True):
            mine = mine & (side < prior * self.ratio) & (prior < side * self.ratio)
        return (_fit(boxes, output.priors) + cell).masked_fill_(~(mine & there), -math.inf)


def _cells(output: DenseOutput) -> tuple[list[Tensor], list[Tensor]]:
    """The centre and the low end of each prior's cell along x and along y, in strides, ``[P]`` each.

    Rounded, for the centre of an anchor with odd sides is not quite that of its cell.
    """
    place = (centres(output.priors) / output.strides * 64).round() / 64
    return list(place.unbind(dim=-1)), list((place - 0.5).unbind(dim=-1))


def _position(boxes: Tensor, output: DenseOutput) -> tuple[Tensor, Tensor]:
    """The centres of ``boxes [B, m, 4]`` along x and along y in the strides of each prior, ``[B, m, P]`` each."""
    middle = centres(boxes)[:, :, None]
    return middle[..., 0] / output.strides[:, 0], middle[..., 1] / output.strides[:, 1]


def _there(boxes: Tensor, valid: Tensor) -> Tensor:
    """Valid objects with an area, ``[B, m, 1]``."""
    return (valid & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1))[..., None]


def _size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights: ``[P]`` of ``[P, 4]``, ``[B, m, 1]`` of ``[B, m, 4]``, to compare with each other."""
    size = boxes[..., 2:] - boxes[..., :2]
    if boxes.ndim == 3:
        size = size[..., None, :]
    return size[..., 0], size[..., 1]


def _fit(boxes: Tensor, priors: Tensor) -> Tensor:
    """IoU of ``boxes [B, m, 4]`` and ``priors [P, 4]`` with their centres in one place, ``[B, m, P]``."""
    (width, height), (prior_width, prior_height) = _size(boxes), _size(priors)
    shared = torch.minimum(width, prior_width) * torch.minimum(height, prior_height)
    union = (width * height + prior_width * prior_height).sub_(shared)
    return shared.div_(union.clamp_(min=torch.finfo(shared.dtype).tiny))


def _responsible(mine: Tensor, boxes: Tensor, output: DenseOutput) -> Tensor:
    """Claims of the predictor with the best decoded box, ``[B, m, P]``: its IoU, or minus how far off it is."""
    height, width = output.size
    wanted, found = xyxy_to_cxcywh(boxes)[:, :, None], xyxy_to_cxcywh(output.boxes)[:, None]
    off = torch.zeros_like(mine, dtype=boxes.dtype)
    for i, side in enumerate((width, height, width, height)):
        off += ((wanted[..., i] - found[..., i]) / side).square_()
    overlap = overlaps(boxes, output.boxes)
    score = torch.where(overlap > 0, overlap, -off).masked_fill_(~mine, -math.inf)
    return score.masked_fill_(~_first_highest(score), -math.inf)


def _first_highest(score: Tensor) -> Tensor:
    """Marks the highest of ``score [B, m, P]`` of each object, the first of equals."""
    place = score.argmax(dim=-1, keepdim=True)
    return torch.arange(score.shape[-1], device=score.device) == place
