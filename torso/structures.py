"""What travels between the parts of torso, and the conventions all of them keep.

Conventions
-----------
- Boxes are ``xyxy`` in pixels, continuous, counted from 0 at the left edge of the first pixel: a box that
  covers the first pixel is ``(0, 0, 1, 1)``. Inside the network they are pixels of the network's input;
  ``Batch.to_source`` maps them back to the original picture.
- Images are ``[B, 3, H, W]``, RGB, ``uint8`` in 0..255 (or float in the same range). Models normalise.
- Class indices are contiguous from 0. There is no background class. Original ids and names stay in the data index.
- Objects are padded to a common number ``M`` of a batch; ``valid`` and ``ignore`` say which rows mean something,
  so assignment and losses are batched tensor code without a loop over images.
- Levels of features and of priors run from the finest (smallest stride) to the coarsest.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

Features = list[Tensor]
"""A pyramid: one ``[B, channels[i], H / strides[i], W / strides[i]]`` tensor a level, finest first."""

Losses = dict[str, Tensor]
"""Named scalar losses, already weighted; their sum is what is minimised."""

_T = TypeVar("_T", bound="_Movable")


class _Movable:
    """A dataclass of tensors that moves as one."""

    def to(self: _T, device: torch.device | str, non_blocking: bool = False) -> _T:
        """The same thing on another device; fields that hold no tensor are kept."""
        moved = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor | _Movable):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class Targets(_Movable):
    """What a batch of pictures really shows.

    A row with ``valid`` is an object to be found; a row with ``ignore`` is a region that counts neither way
    (COCO crowd, VOC difficult); a row with neither is padding. No row has both.
    """

    boxes: Tensor  # [B, M, 4] float32 xyxy, pixels of the network's input; padding is 0
    labels: Tensor  # [B, M] int64, 0..C-1; padding is 0
    valid: Tensor  # [B, M] bool
    ignore: Tensor  # [B, M] bool
    masks: Tensor | None = None  # [B, M, H, W] bool
    classes: Tensor | None = None  # [B] int64: the class of the whole picture (classification)
    probabilities: Tensor | None = None  # [B, C] float32: the classes of a mixed picture; rows sum to 1
    weights: Tensor | None = None  # [B, M] float32 in 0..1: how much an object of a mixed picture counts; None is 1
    keypoints: Tensor | None = None  # [B, M, K, 3] float32: x, y in pixels of the network's input, visibility 0, 1, 2
    segments: Tensor | None = None  # [B, H, W] uint8: the class of each pixel, 255 is ignored

    def with_a_row(self) -> Targets:
        """The same objects with at least one (padding) row, so that gathering needs no special case."""
        if self.boxes.shape[1]:
            return self
        rows = (len(self.boxes), 1)
        boxes, labels = self.boxes.new_zeros(*rows, 4), self.labels.new_zeros(rows)
        masks = None if self.masks is None else self.masks.new_zeros(*rows, *self.masks.shape[2:])
        return Targets(boxes, labels, self.valid.new_zeros(rows), self.ignore.new_zeros(rows), masks)

    @classmethod
    def of_classes(cls, classes: Tensor) -> Targets:
        """Targets of a classification batch: ``classes`` is ``[B]`` int64; there are no objects (M = 0)."""
        rows = (len(classes), 0)
        return cls(
            boxes=torch.zeros(*rows, 4, device=classes.device),
            labels=torch.zeros(rows, dtype=torch.int64, device=classes.device),
            valid=torch.zeros(rows, dtype=torch.bool, device=classes.device),
            ignore=torch.zeros(rows, dtype=torch.bool, device=classes.device),
            classes=classes,
        )


@dataclass(frozen=True)
class Batch(_Movable):
    """Pictures as the network takes them, with what they show and the way back to their files."""

    images: Tensor  # [B, 3, H, W] uint8 RGB, channels-last in memory
    targets: Targets
    index: Tensor  # [B] int64: rows of the data index
    to_source: Tensor  # [B, 3, 3] float64: pixels of the network's input -> pixels of the original picture
    source_size: Tensor  # [B, 2] int64: width, height of the original picture, upright
    proposals: Tensor | None = None  # [B, R, 4] float32 xyxy, as the targets' boxes; rows without area are padding

    def __len__(self) -> int:
        return len(self.images)


class Priors(NamedTuple):
    """Where a dense head looks: P boxes, level after level, row-major, the priors of a cell together."""

    boxes: Tensor  # [P, 4] xyxy pixels
    strides: Tensor  # [P, 2] pixels between neighbouring cells, along x and along y


class DenseOutput(NamedTuple):
    """What a dense detector says at all P priors: level after level, row-major, the priors of a cell together.

    ``extra`` holds what else the head says of every prior, raw: ``objectness``, ``centerness``, ``iou`` are logits
    ``[B, P]``; ``variance`` are the logarithms ``[B, P, 4]`` of the variances of the deltas.
    """

    logits: Tensor  # [B, P, C] raw class scores; [B, P, C + 1] with a background, the last
    deltas: Tensor  # [B, P, D] raw box regression in the coder's units (D = 4 for most coders)
    boxes: Tensor  # [B, P, 4] the decoded boxes, xyxy pixels of the network's input
    priors: Tensor  # [P, 4] xyxy pixels; [B, P, 4] where each picture has its own (regions)
    counts: tuple[int, ...]  # priors of each level; sums to P
    extra: dict[str, Tensor]  # what else a head says, each [B, P, ...]
    strides: Tensor  # [P, 2] pixels between neighbouring cells, along x and along y
    size: tuple[int, int]  # height, width of the network's input in pixels
    background: bool = False  # scores are a softmax over the classes and the background
    valid: Tensor | None = None  # [B, P] bool: priors that are no padding; all when None
    frame: Tensor | None = None  # [B, 4] xyxy pixels: where the picture lies in the input; all of it when None

    def class_scores(self) -> Tensor:
        """Probabilities of the classes at every prior, ``[B, P, C]`` in 0..1, without objectness or quality."""
        if self.background:
            return self.logits.softmax(dim=-1)[..., :-1]
        return self.logits.sigmoid()


class QueryOutput(NamedTuple):
    """What a detector of queries says: one box and one class a query, after every layer of its decoder.

    A head that does not see padding cannot say where in the network's input it lies: its boxes are shares of the
    picture alone, its ``frame``. ``layer(i)`` is what assigners and losses look at.
    """

    logits: Tensor  # [L, B, Q, C] raw class scores, the answer last; [L, B, Q, C + 1] with a background, the last
    boxes: Tensor  # [L, B, Q, 4] centre, width, height in 0..1 of the frame
    size: tuple[int, int]  # height, width of the network's input in pixels
    background: bool = False  # scores are a softmax over the classes and the background
    proposed: DenseOutput | None = None  # what the encoder says at every cell, `as_priors`; of one class, which is 0
    frame: Tensor | None = None  # [B, 4] xyxy pixels: where the picture lies in the input; all of it when None

    def layer(self, number: int) -> DenseOutput:
        """One layer's queries as priors."""
        return as_priors(self.logits[number], self.boxes[number], self.size, self.background, self.frame)

    def layers(self) -> DenseOutput:
        """The queries of all layers as priors of ``L * B`` pictures, layer after layer."""
        frame = None if self.frame is None else self.frame.repeat(self.logits.shape[0], 1)
        return as_priors(self.logits.flatten(0, 1), self.boxes.flatten(0, 1), self.size, self.background, frame)

    def within(self, frame: Tensor, background: bool = False) -> QueryOutput:
        """The same, said of pictures that lie at ``frame [B, 4]``, with what only the model knows."""
        found = self._replace(frame=frame, background=background)
        if self.proposed is None:
            return found
        said = self.proposed
        priors = as_priors(said.logits, said.deltas, self.size, background, frame)
        return found._replace(proposed=priors._replace(valid=said.valid))


def as_priors(
    logits: Tensor, said: Tensor, size: tuple[int, int], background: bool = False, frame: Tensor | None = None
) -> DenseOutput:
    """Queries as priors, each of the whole picture; ``deltas`` are the boxes as they were said.

    Args:
        logits: ``[B, Q, C]``.
        said: ``[B, Q, 4]``, centre, width and height in 0..1 of the frame.
        size: height, width of the network's input in pixels.
        background: scores are a softmax over the classes and the background.
        frame: ``[B, 4]`` xyxy pixels, where the pictures lie; all of the input when None.
    """
    batch, count = said.shape[:2]
    if frame is None:
        height, width = size
        whole = torch.stack([said.new_full((), side) for side in (0, 0, width, height)]).expand(batch, 4)
    else:
        whole = frame.to(said.dtype)
    whole = whole.unsqueeze(1).expand(-1, count, -1)  # [B, Q, 4]
    scale, half = whole[..., 2:] - whole[..., :2], said[..., 2:] / 2
    low, high = said[..., :2] - half, said[..., :2] + half
    boxes = torch.cat([whole[..., :2] + low * scale, whole[..., :2] + high * scale], dim=-1)
    strides = said.new_ones(count, 2)
    return DenseOutput(logits, said, boxes, whole, (count,), {}, strides, size, background, frame=frame)


class Assignment(NamedTuple):
    """Which prior learns which object. A prior that is neither positive nor negative is not learned from."""

    matched: Tensor  # [B, P] int64: row of the targets (0 where not positive)
    positive: Tensor  # [B, P] bool
    negative: Tensor  # [B, P] bool: learns "nothing here"
    quality: Tensor | None = None  # [B, P] in 0..1: soft target of the class score; None means 1


class Detections(NamedTuple):
    """The answer of a detector: at most D objects a picture, best first, padded with zeros."""

    boxes: Tensor  # [B, D, 4] xyxy pixels of the network's input
    scores: Tensor  # [B, D] in 0..1, falling
    labels: Tensor  # [B, D] int64
    valid: Tensor  # [B, D] bool
    masks: Tensor | None = None  # [B, D, S, S] in 0..1: the mask of each object over its box, S cells a side


class Pyramid(Protocol):
    """What backbones and necks tell about the features they return."""

    channels: list[int]
    strides: list[int]  # of stretched levels (MatrixNet) pairs, (height, width)
