"""The losses of the first YOLOs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from torso.boxes.convert import cxcywh_to_xyxy
from torso.boxes.overlap import iou
from torso.losses.reduction import Loss


class YOLOv1(Loss):
    """Sum of squares over a grid, each cell of which has slots for boxes: ``[..., H, W, D]`` to ``[..., H, W]``.

    A slot is (x, y, root of width, root of height, confidence): the centre within the cell, in cells, and the roots of
    the box's shares of the picture. In the target a slot is (x, y, width, height, 1 where there is an object), and
    classes are one-hot. Sources disagree on the roots: here, as in the paper and its code, they are predicted; to take
    them of a predicted width has no finite gradient at 0.

    - ``"rivals"`` (the paper): a cell has one object. The prediction is ``num_slots`` slots, then C classes; the target
      one slot, then C classes. The slot that overlaps the object most is responsible (where none does, the nearest).
    - ``"own"``: a cell has an object for each slot, such as a large and a small one. Prediction and target alike are
      ``num_slots`` times a slot with C classes of its own.

    There may be no classes: C is what the last dimension leaves. This is the whole objective of a network that ends in
    a grid; the recipe ``yolov1`` makes the same of the parts of a dense detector (``mse`` and the assigner ``grid``).

    Args:
        num_slots: boxes a cell, >= 1.
        slots: whether they compete for one object.
        coordinate: factor of the four numbers of a box.
        nothing: factor of the confidence of slots without an object.
        confidence: what the confidence of a slot with an object should be: the ``"iou"`` of its box (the paper), or
            ``"one"``.

    Raises:
        ValueError: the last dimensions of prediction and target do not belong together.

    Source: You Only Look Once: Unified, Real-Time Object Detection, 2015, arXiv:1506.02640, equation 3
    """

    takes = "grid"

    def __init__(
        self,
        num_slots: int = 2,
        slots: Literal["rivals", "own"] = "rivals",
        coordinate: float = 5.0,
        nothing: float = 0.5,
        confidence: Literal["iou", "one"] = "iou",
    ):
        super().__init__()
        self.num_slots, self.slots = num_slots, slots
        self.coordinate, self.nothing, self.confidence = coordinate, nothing, confidence

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each cell costs."""
        guess, classes, truth, wanted = self._taken_apart(prediction, target.to(prediction.dtype))
        there = truth[..., 4]  # [..., H, W, 1 or K]
        overlap = self._overlap(guess.detach(), truth)  # [..., H, W, K]
        responsible = there.expand_as(overlap)
        if self.slots == "rivals":
            nearest = torch.where(overlap > 0, overlap, -_squares(guess.detach(), truth))
            responsible = responsible * functional.one_hot(nearest.argmax(-1), self.num_slots).to(there.dtype)
        sure = torch.ones_like(overlap) if self.confidence == "one" else overlap
        cost = self.coordinate * responsible * _squares(guess, truth)
        cost = cost + responsible * (guess[..., 4] - sure).square()
        cost = cost + self.nothing * (1 - responsible) * guess[..., 4].square()
        return cost.sum(-1) + (there * (classes - wanted).square().sum(-1)).sum(-1)

    def _taken_apart(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slots ``[..., K, 5]`` and classes ``[..., 1 or K, C]``, then those of the target."""
        count, total = self.num_slots, prediction.shape[-1]
        num_classes, rest = (total - 5 * count, 0) if self.slots == "rivals" else (total // count - 5, total % count)
        expected = total - 5 * (count - 1) if self.slots == "rivals" else total
        if num_classes < 0 or rest or target.shape[-1] != expected:
            raise ValueError(
                f"{count} slots of the kind {self.slots!r} do not fit a prediction {list(prediction.shape)} "
                f"and a target {list(target.shape)}"
            )
        if self.slots == "own":
            guess, truth = (x.reshape(*x.shape[:-1], count, 5 + num_classes) for x in (prediction, target))
            return guess[..., :5], guess[..., 5:], truth[..., :5], truth[..., 5:]
        slots, classes = prediction[..., : 5 * count], prediction[..., 5 * count :]
        slot, wanted = target[..., :5], target[..., 5:]
        slots = slots.reshape(*slots.shape[:-1], count, 5)
        return slots, classes.unsqueeze(-2), slot.unsqueeze(-2), wanted.unsqueeze(-2)

    def _overlap(self, guess: Tensor, truth: Tensor) -> Tensor:
        """IoU of predicted slots with those of the target, measured in cells from the corner of their own cell."""
        rows, columns = guess.shape[-4], guess.shape[-3]
        size = guess[..., 2:4].square()
        sides = [torch.stack([x[..., 0] * columns, x[..., 1] * rows], dim=-1) for x in (size, truth[..., 2:4])]
        mine, theirs = (torch.cat([x[..., :2], s], dim=-1) for x, s in zip((guess, truth), sides, strict=True))
        return iou(cxcywh_to_xyxy(mine), cxcywh_to_xyxy(theirs))


def _squares(guess: Tensor, truth: Tensor) -> Tensor:
    """Sum of the squared differences of x, y and the roots of the sides, ``[...]``."""
    place, size = guess[..., :2] - truth[..., :2], guess[..., 2:4] - truth[..., 2:4].clamp(min=0).sqrt()
    return place.square().sum(-1) + size.square().sum(-1)


class YOLOv3(Loss):
    """Boxes of YOLOv3: cross entropy of the place within the cell, half a square of the log sizes.

    Raw numbers ``[..., 4]`` (x, y, width, height) with encoded ones to ``[...]``. x and y are logits of both sides: a
    grid coder writes what its decoder takes the sigmoid of. The paper speaks of squares throughout; cross entropy is
    what its code does, where the gradient "truth less prediction" goes past the sigmoid. A cross entropy with a soft
    target is above 0 where it is right.

    The rest of the objective are other parts of the recipe: classes are not a softmax but ``class_loss:
    binary_cross_entropy``, and whether there is an object is ``objectness_loss: binary_cross_entropy`` of the criterion
    ``dense``, whose ``box_by: size`` counts small boxes up to twice.

    Source: YOLOv3: An Incremental Improvement, 2018, arXiv:1804.02767, section 2.1
    """

    takes = "deltas"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        place = functional.binary_cross_entropy_with_logits(
            prediction[..., :2], target[..., :2].sigmoid(), reduction="none"
        )
        size = 0.5 * (prediction[..., 2:] - target[..., 2:]).square()
        return place.sum(dim=-1) + size.sum(dim=-1)
