"""A dense detector: backbone, neck, head, and what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from torso.boxes.coders import Coder
from torso.boxes.convert import clip
from torso.boxes.suppress import candidates
from torso.heads.dense import HeadOutput
from torso.nn.normalize import normalizer
from torso.structures import Batch, DenseOutput, Detections, Features, Losses


class Detector(nn.Module):
    """One network that says at every prior what is there and where.

    Args:
        backbone: pictures to features.
        neck: features to features of equal channels.
        head: features to logits and deltas at every prior.
        prior: the boxes the head looks at.
        coder: deltas and priors to boxes.
        criterion: what the network says, and the truth, to losses.
        suppress: candidates to detections.
        num_classes: classes C.
        threshold: score below which a prior is no candidate, 0..1.
        topk: candidates of a level at most.
        normalize: pixels to what the backbone expects; by the backbone's own mean and deviation when None.

    Source: own design; with RetinaNet's parts it is Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002
    """

    task: ClassVar[str] = "detect"

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
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        if not hasattr(head, "scores"):
            raise ValueError(f"a detector needs a dense head such as retina, got {type(head).__name__}")
        self.num_classes, self.threshold, self.topk = num_classes, threshold, topk
        self.stride: int = max(backbone.strides)  # type: ignore[arg-type]
        self.normalize = normalizer(normalize, backbone)
        self.backbone, self.neck, self.head = backbone, neck, head
        self.prior, self.coder, self.criterion, self.suppress = prior, coder, criterion, suppress

    def forward(self, images: Tensor) -> DenseOutput:
        """Pictures ``[B, 3, H, W]`` in 0..255 to what the network says at every prior."""
        features: Features = self.neck(self.backbone(self.normalize(images)))
        output: HeadOutput = self.head(features)
        sizes = [(x.shape[-2], x.shape[-1]) for x in features]
        priors: Tensor = self.prior(sizes)  # [P, 4]
        # The network may have run in bfloat16: boxes and losses need at least float32.
        logits, deltas = (x if x.dtype.itemsize >= 4 else x.float() for x in (output.logits, output.deltas))
        boxes = self.coder.decode(deltas, priors)  # [B, P, 4]
        counts = tuple(height * width * self.prior.per_cell for height, width in sizes)  # type: ignore[operator]
        return DenseOutput(logits, deltas, boxes, priors, counts, output.extra)  # type: ignore[arg-type]

    def losses(self, batch: Batch) -> Losses:
        """The named losses of a batch."""
        losses: Losses = self.criterion(self(batch.images), batch.targets)
        return losses

    def predict(self, images: Tensor) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures."""
        return self.choose(*self.score(images))

    def score(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Of every prior: scores ``[B, P, C]`` in 0..1 and boxes ``[B, P, 4]``; and how many priors each level has."""
        output = self(images)
        scores: Tensor = self.head.scores(output.logits, output.extra)  # type: ignore[operator]
        return scores, clip(output.boxes, images.shape[-2], images.shape[-1]), output.counts

    def choose(self, scores: Tensor, boxes: Tensor, counts: Sequence[int]) -> Detections:
        """The answer among what `score` says."""
        chosen = candidates(scores, boxes, counts, threshold=self.threshold, topk=self.topk)
        found: Detections = self.suppress(*chosen)
        return found
