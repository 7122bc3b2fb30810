"""A dense detector: backbone, neck, head, and what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from torso.boxes.candidates import candidates, candidates_of_classes
from torso.boxes.coders import Coder
from torso.boxes.convert import clip
from torso.boxes.heatmap import peaks_of_levels
from torso.heads.dense import HeadOutput
from torso.models.inside import Keep, go_on
from torso.nn.normalize import normalizer
from torso.structures import Batch, DenseOutput, Detections, Features, Losses, Priors


class Detector(nn.Module):
    """One network that says at every prior what is there and where.

    Args:
        backbone: pictures to features.
        neck: features to features of equal channels.
        head: features to logits and deltas at every prior.
        prior: the boxes the head looks at.
        coder: deltas and priors to boxes.
        criterion: what the network says, and the truth, to losses; the head was made with its ``branches`` and, where
            it has a ``background``, one class more.
        suppress: candidates to detections.
        num_classes: classes C.
        threshold: score below which a prior is no candidate, 0..1.
        topk: candidates of a level at most, or of a class.
        topk_of: which of the two (SSD: class).
        score_powers: of the three factors of a score: class probability, objectness, and quality (centerness or IoU);
            a factor that the head does not say is 1. FCOS takes the root, (0.5, 1, 0.5); PP-YOLO (1, 0.6, 0.4).
        peaks: a class is a candidate only where none is higher within a window of so many cells of its level, odd;
            everywhere when None (CenterNet: 3).
        normalize: pixels to what the backbone expects; by the backbone's own mean and deviation when None.

    Source: own design; with RetinaNet's parts it is Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002
    """

    task: ClassVar[str] = "detect"
    inside: ClassVar[tuple[str, ...]] = ("prior_scores", "prior_boxes")

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        prior: nn.Module,
        coder: Coder,
        criterion: nn.Module,
        suppress: nn.Module,
        *,
        num_classes: int,
        threshold: float = 0.05,
        topk: int = 1000,
        topk_of: Literal["level", "class"] = "level",
        score_powers: tuple[float, float, float] = (1.0, 1.0, 1.0),
        peaks: int | None = None,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        if not hasattr(head, "num_priors"):
            raise ValueError(f"a detector needs a dense head such as retina, got {type(head).__name__}")
        asked = getattr(criterion, "branches", ())
        silent = [name for name in getattr(suppress, "extra", ()) if name not in ("level", *asked)]
        if silent:
            raise ValueError(
                f"{type(suppress).__name__} wants the {silent[0]} of every box, but the criterion asks the head for "
                f"{list(asked) or 'nothing beside'}: take another suppressor, or a loss that learns it (kl_box)"
            )
        if peaks is not None and (peaks < 1 or peaks % 2 == 0):
            raise ValueError(f"a window of cells has a middle: peaks is odd, got {peaks}")
        self.num_classes, self.threshold, self.topk, self.peaks = num_classes, threshold, topk, peaks
        self.score_powers, self.topk_of = score_powers, topk_of
        self.background: bool = getattr(criterion, "background", False)
        self.stride: int = max(backbone.strides)  # type: ignore[arg-type]
        self.normalize = normalizer(normalize, backbone)
        self.backbone, self.neck, self.head = backbone, neck, head
        self.prior, self.coder, self.criterion, self.suppress = prior, coder, criterion, suppress

    def forward(self, images: Tensor) -> DenseOutput:
        """Pictures ``[B, 3, H, W]`` in 0..255 to what the network says at every prior."""
        features: Features = self.neck(self.backbone(self.normalize(images)))
        size = (images.shape[-2], images.shape[-1])
        return look(features, self.head, self.prior, self.coder, size, self.background)

    def losses(self, batch: Batch) -> Losses:
        """The named losses of a batch."""
        losses: Losses = self.criterion(self(batch.images), batch.targets)
        return losses

    def predict(self, images: Tensor) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures."""
        return self.answer(images, go_on)

    def answer(self, images: Tensor, keep: Keep) -> Detections:
        """`predict`, with the numbers of `inside` passed through ``keep``."""
        scores, boxes, counts = self.score(images)
        size = (images.shape[-2], images.shape[-1])
        return self.choose(keep("prior_scores", scores), keep("prior_boxes", boxes), counts, size)

    def score(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Of every prior: scores ``[B, P, C]`` in 0..1 and boxes ``[B, P, 4]``; and how many priors each level has.

        What the suppressor wants to know beside (its ``extra``) follows the four numbers of a box.
        """
        output: DenseOutput = self(images)
        boxes = clip(output.boxes, images.shape[-2], images.shape[-1])
        more = [beside(output, name) for name in getattr(self.suppress, "extra", ())]
        return self._scores(output), torch.cat([boxes, *more], dim=-1) if more else boxes, output.counts

    def _scores(self, output: DenseOutput) -> Tensor:
        """Class probability, objectness and quality, each to its power: ``[B, P, C]``."""
        of_class, of_object, of_quality = self.score_powers
        scores = _power(output.class_scores(), of_class)
        for names, power in ((("objectness",), of_object), (("centerness", "iou"), of_quality)):
            for name in names:
                if name in output.extra:
                    scores = scores * _power(output.extra[name].sigmoid(), power).unsqueeze(-1)
        return scores

    def choose(self, scores: Tensor, boxes: Tensor, counts: Sequence[int], size: tuple[int, int]) -> Detections:
        """The answer among what `score` says of pictures of this height and width."""
        if self.peaks is not None:
            strides: Sequence[int | tuple[int, int]] = self.neck.strides  # type: ignore[assignment]
            scores = peaks_of_levels(scores, counts, strides, size, self.peaks)
        if self.topk_of == "class":
            chosen = candidates_of_classes(scores, boxes, threshold=self.threshold, topk=self.topk)
        else:
            chosen = candidates(scores, boxes, counts, threshold=self.threshold, topk=self.topk)
        found: Detections = self.suppress(*chosen)
        return found


def look(
    features: Features, head: nn.Module, prior: nn.Module, coder: Coder, size: tuple[int, int], background: bool
) -> DenseOutput:
    """What a dense head says about features, with its boxes.

    Args:
        features: of the levels.
        head: logits and deltas at every prior.
        prior: the boxes it looks at.
        coder: deltas and priors to boxes.
        size: height, width of the network's input in pixels.
        background: see `torso.structures.DenseOutput`.
    """
    output: HeadOutput = head(features)
    sizes = [(x.shape[-2], x.shape[-1]) for x in features]
    priors: Priors = prior(sizes)
    logits, deltas = precise(output.logits), precise(output.deltas)
    extra = {name: precise(x) for name, x in output.extra.items()}
    boxes = coder.decode(deltas, priors.boxes, priors.strides)  # [B, P, 4]
    per_cell: list[int] = prior.per_cell  # type: ignore[assignment]
    counts = tuple(height * width * count for (height, width), count in zip(sizes, per_cell, strict=True))
    return DenseOutput(logits, deltas, boxes, priors.boxes, counts, extra, priors.strides, size, background)


def precise(x: Tensor) -> Tensor:
    """The network may have run in bfloat16: boxes and losses need at least float32."""
    return x if x.dtype.itemsize >= 4 else x.float()


def beside(output: DenseOutput, name: str) -> Tensor:
    """What a suppressor wants to know of every prior: a branch of the head, or the ``level``; ``[B, P, E]``."""
    if name == "level":
        level = torch.cat([output.boxes.new_full((count, 1), float(i)) for i, count in enumerate(output.counts)])
        return level.expand(output.boxes.shape[0], -1, -1)  # len() would be a constant under torch.export
    found = output.extra[name]
    return found if found.ndim == 3 else found.unsqueeze(-1)


def _power(x: Tensor, power: float) -> Tensor:
    if power == 1:
        return x
    return x.sqrt() if power == 0.5 else x**power
