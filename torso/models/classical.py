"""A detector from before networks: a window slides over a pyramid of pictures, and a plane says what is in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.candidates import candidates, rows
from torso.boxes.convert import clip
from torso.boxes.overlap import iou
from torso.models.inside import Keep, go_on
from torso.models.mining import HardNegatives, Mining
from torso.nn.hog import HOG
from torso.nn.normalize import eight_bits
from torso.structures import Assignment, Batch, DenseOutput, Detections, Losses


class Planes(nn.Module):
    """A plane for each shape of window and each class: how far a window lies on its right side.

    They are buffers, for no gradient reaches them: `torso.models.mining` finds them.

    Args:
        channels: numbers N of a block.
        shapes: width and height of each kind of window in blocks.
        num_classes: classes C.
    """

    def __init__(self, channels: int, shapes: Sequence[tuple[int, int]], num_classes: int):
        super().__init__()
        self.channels, self.shapes = channels, list(shapes)
        self.reset_classes(num_classes)

    def forward(self, blocks: Tensor) -> list[Tensor]:
        """Blocks ``[B, N, H, W]`` of a picture to margins ``[B, C, ...]`` of its windows of each shape.

        A plane times the blocks of every window is a convolution.
        """
        return [
            functional.conv2d(blocks, self.get_buffer(f"weight{i}"), self.get_buffer(f"bias{i}"))
            for i in range(len(self.shapes))
        ]

    def reset_classes(self, num_classes: int) -> None:
        """Planes of which nothing is known yet: no window is on the right side."""
        for number, (wide, high) in enumerate(self.shapes):
            self.register_buffer(f"weight{number}", torch.zeros(num_classes, self.channels, high, wide))
            self.register_buffer(f"bias{number}", torch.full((num_classes,), -1.0))

    @torch.no_grad()
    def set(self, shape: int, label: int, weight: Tensor, bias: float) -> None:
        """The plane of a class and a shape of window; ``weight [N * H * W]``."""
        kept = self.get_buffer(f"weight{shape}")
        kept[label] = weight.reshape(kept.shape[1:]).to(kept)
        self.get_buffer(f"bias{shape}")[label] = bias


class Level(NamedTuple):
    """A picture of the pyramid."""

    blocks: Tensor  # [B, N, H, W]
    step: tuple[float, float]  # pixels of the network's input between neighbouring cells, along x and along y


class Scale(NamedTuple):
    """Side of a picture of the pyramid as a share of the input's; whole numbers, for an export computes with them."""

    over: int
    under: int
    times: int  # that the picture is halved first

    @classmethod
    def of(cls, scale: float) -> Scale:
        """The nearest share with a small denominator."""
        over, under = Fraction(scale).limit_denominator(64).as_integer_ratio()
        return cls(over, under, max(math.floor(math.log2(under / over)), 0))


class SlidingWindow(nn.Module):
    """Windows of fixed shapes at every cell of every level of a pyramid; blocks of a level are computed once.

    A score is the logistic function of the margin: 0.5 on the plane itself.

    Args:
        hog: pictures to blocks.
        assigner: windows to objects, by overlap.
        suppress: candidates to detections.
        mining: how its planes are found.
        num_classes: classes C.
        shapes: width and height of each kind of window in cells.
        scales: sides of the pictures of the pyramid, as shares of the network's input; above 1 finds what is smaller
            than a window. A picture too small for a window has none.
        threshold: score below which a window is no candidate, 0..1.
        topk: candidates at most.

    Raises:
        ValueError: a window smaller than a block, or a scale below 1/64.

    Source: Histograms of Oriented Gradients for Human Detection, 2005
    """

    task: ClassVar[str] = "detect"
    stride: ClassVar[int] = 1  # any size will do

    def __init__(
        self,
        hog: HOG,
        assigner: nn.Module,
        suppress: nn.Module,
        mining: Mining = Mining(),  # noqa: B008  it cannot be changed
        *,
        num_classes: int,
        shapes: Sequence[tuple[int, int]] = ((8, 8),),
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        threshold: float = 0.25,
        topk: int = 1000,
    ):
        super().__init__()
        if not shapes or min(map(min, shapes)) < hog.block:
            raise ValueError(f"a window has sides of at least a block, {hog.block} cells, got {list(shapes)}")
        if not scales or min(scales) < 1 / 64:
            raise ValueError(f"scales are 1/64 or more, got {list(scales)}")
        self.num_classes, self.threshold, self.topk = num_classes, threshold, topk
        self.shapes = [(int(wide), int(high)) for wide, high in shapes]
        self.scales = [Scale.of(scale) for scale in sorted(scales, reverse=True)]
        self.hog, self.assigner, self.suppress, self.mining = hog, assigner, suppress, mining
        less = hog.block - 1
        self.head = Planes(hog.channels, [(wide - less, high - less) for wide, high in self.shapes], num_classes)
        self.inside: tuple[str, ...] = (*(f"level{i}" for i in range(len(self.scales))), "window_scores")

    def forward(self, images: Tensor) -> DenseOutput:
        """Pictures ``[B, 3, H, W]`` in 0..255 to the margin of every window and class; windows are priors."""
        return self.look(images)[0]

    def look(self, images: Tensor, keep: Keep = go_on) -> tuple[DenseOutput, list[Level]]:
        """What `forward` says, and the levels: its windows are those of a level and shape, row by row, then the next.

        Which bin a direction falls into is a choice, so the pictures of the pyramid pass through ``keep``.

        Raises:
            ValueError: no level is as large as a window.
        """
        size = (images.shape[-2], images.shape[-1])
        images = eight_bits(images) / 255  # so that what rounding leaves of flat regions is small against an epsilon
        levels, margins, windows, strides, counts = [], [], [], [], []
        for number, resized in enumerate(pyramid(images, self.scales)):
            picture = keep(f"level{number}", resized)
            high, wide = picture.shape[-2:]
            if any(high < self.hog.cell * down or wide < self.hog.cell * across for across, down in self.shapes):
                continue
            level = Level(self.hog(picture), (self.hog.cell * size[1] / wide, self.hog.cell * size[0] / high))
            levels.append(level)
            for shape, said in zip(self.shapes, self.head(level.blocks), strict=True):
                margins.append(said.flatten(2).transpose(1, 2))
                windows.append(_windows(level.step, shape, said))
                strides.append(torch.stack([torch.ones_like(windows[-1][:, 0]) * step for step in level.step], dim=-1))
                counts.append(said.shape[-2] * said.shape[-1])
        if not levels:
            raise ValueError(
                f"a window of {self.shapes} cells is larger than every level of a {size[1]}x{size[0]} picture"
            )
        logits, priors = torch.cat(margins, dim=1), torch.cat(windows)
        boxes = priors.expand(images.shape[0], -1, -1)
        nothing = boxes[..., :0]
        return DenseOutput(logits, nothing, boxes, priors, tuple(counts), {}, torch.cat(strides), size), levels

    def assign(self, output: DenseOutput, batch: Batch) -> tuple[Assignment, Tensor, Tensor]:
        """Which window is of which object; of each the object's class and their overlap, both ``[B, P]``."""
        targets = batch.targets.with_a_row()
        assigned: Assignment = self.assigner(output, targets)
        labels = targets.labels.gather(1, assigned.matched)
        overlap = iou(rows(targets.boxes.to(output.boxes.dtype), assigned.matched), output.boxes)
        return assigned, labels, overlap

    def losses(self, batch: Batch) -> Losses:
        """The mean squared hinge over all windows that are of an object, or of none: what is learned, but not how."""
        output = self(batch.images)
        assigned, labels, _ = self.assign(output, batch)
        counted = assigned.positive | assigned.negative
        right = functional.one_hot(labels, self.num_classes).bool() & assigned.positive.unsqueeze(-1)
        cost = (1 - torch.where(right, output.logits, -output.logits)).relu().square().sum(dim=-1)  # [B, P]
        return {"hinge": torch.where(counted, cost, 0.0).sum() / counted.sum().clamp(min=1)}

    def learner(self, seed: int) -> HardNegatives:
        """What finds its planes, round by round."""
        return HardNegatives(self, self.mining, seed)

    def predict(self, images: Tensor) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures."""
        return self.answer(images, go_on)

    def answer(self, images: Tensor, keep: Keep) -> Detections:
        """`predict`, with the numbers of `inside` passed through ``keep``."""
        output, _ = self.look(images, keep)
        scores, boxes = keep("window_scores", output.logits.sigmoid()), clip(output.boxes, *output.size)
        found: Detections = self.suppress(*candidates(scores, boxes, [boxes.shape[1]], self.threshold, self.topk))
        return found


def pyramid(images: Tensor, scales: Sequence[Scale]) -> list[Tensor]:
    """``[B, 3, H, W]`` at each scale, which fall: halved by means of 2x2 pixels, and what is left of it bilinearly."""
    halves, found = [images], []
    for over, under, times in scales:
        while len(halves) <= times:
            halves.append(functional.avg_pool2d(halves[-1], 2))
        side = [images.shape[-2] * over // under, images.shape[-1] * over // under]
        exact = over * 2**times == under
        found.append(halves[times] if exact else functional.interpolate(halves[times], side, mode="bilinear"))
    return found


def _windows(step: tuple[float, float], shape: tuple[int, int], said: Tensor) -> Tensor:
    """Boxes ``[P, 4]``, ``xyxy`` pixels, of all windows of a level, row by row."""
    high, wide = said.shape[-2:]
    row, column = (torch.arange(count, device=said.device, dtype=said.dtype) for count in (high, wide))
    y, x = (at.reshape(-1) for at in torch.meshgrid(row, column, indexing="ij"))
    # Sizes may be symbols of an export, which a tensor made of numbers would not keep.
    across, down = step
    return torch.stack([x * across, y * down, (x + shape[0]) * across, (y + shape[1]) * down], dim=-1)
