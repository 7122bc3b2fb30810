"""A detector of queries: a fixed number of questions to the picture, each answered with one object or none."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from torso.boxes.candidates import candidates
from torso.boxes.convert import clip
from torso.models.detector import precise
from torso.models.inside import Keep, go_on
from torso.nn.normalize import normalizer
from torso.nn.padding import frame_of, real_cells, real_pixels
from torso.structures import Batch, Detections, Losses, QueryOutput


class QueryDetector(nn.Module):
    """Backbone, neck and a head of queries, which learn to find every object once: no suppression is needed.

    The head is called with ``(features, real, size)``, where ``real`` says of every cell of every level whether the
    picture is there or its padding, and ``size`` is height, width of the input. A head that makes choices itself names
    what it makes them from in ``inside``, and is called with a fourth argument, ``keep`` (`torso.models.inside`).

    Args:
        backbone: pictures to features.
        neck: features to features.
        head: features to `QueryOutput`.
        criterion: what the network says, and the truth, to losses.
        suppress: candidates to detections.
        num_classes: classes C.
        threshold: score below which a query is no candidate of a class, 0..1.
        topk: pairs of query and class that the suppressor sees.
        one_class: a query answers with its best class only (DETR), not with every class whose score is high enough.
        fill: grey of the padding, 0..255.
        normalize: pixels to what the backbone expects; by the backbone's own mean and deviation when None.

    Raises:
        ValueError: a criterion that knows no queries, or one of a softmax for a head that proposes.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872
    """

    task: ClassVar[str] = "detect"

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        criterion: nn.Module,
        suppress: nn.Module,
        *,
        num_classes: int,
        threshold: float = 0.0,
        topk: int = 100,
        one_class: bool = False,
        fill: int = 114,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        if not getattr(criterion, "of_queries", False):
            raise ValueError(f"a detector of queries needs a criterion such as query, got {type(criterion).__name__}")
        if getattr(criterion, "background", False) and getattr(head, "two_stage", False):
            raise ValueError(
                "proposals have one score, so their class loss takes scores: class_loss=focal, or two_stage=false"
            )
        self.num_classes, self.threshold, self.topk = num_classes, threshold, topk
        self.one_class, self.fill = one_class, fill
        self.background: bool = getattr(criterion, "background", False)
        self.stride: int = max(backbone.strides)  # type: ignore[arg-type]
        self.strides: list[int] = neck.strides  # type: ignore[assignment]
        self.normalize = normalizer(normalize, backbone)
        self.backbone, self.neck = backbone, neck
        self.head, self.criterion, self.suppress = cast("Any", head), criterion, suppress
        self.inside: tuple[str, ...] = (*getattr(head, "inside", ()), "query_scores", "query_boxes")

    def forward(self, images: Tensor) -> QueryOutput:
        """Pictures ``[B, 3, H, W]`` in 0..255 to what every query says, after every layer."""
        return self._look(images, go_on)

    def _look(self, images: Tensor, keep: Keep) -> QueryOutput:
        features = self.neck(self.backbone(self.normalize(images)))
        real = real_pixels(images, self.fill)
        cells = real_cells(real, self.strides)
        size = (images.shape[-2], images.shape[-1])
        chooses = (keep,) if getattr(self.head, "inside", ()) else ()
        said: QueryOutput = self.head(features, cells, size, *chooses)
        said = said._replace(logits=precise(said.logits), boxes=precise(said.boxes))
        return said.within(frame_of(real), self.background)

    def losses(self, batch: Batch) -> Losses:
        """The named losses of a batch."""
        losses: Losses = self.criterion(self(batch.images), batch.targets)
        return losses

    def predict(self, images: Tensor) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures."""
        return self.answer(images, go_on)

    def answer(self, images: Tensor, keep: Keep) -> Detections:
        """`predict`, with the numbers of `inside` passed through ``keep``."""
        said = self._look(images, keep).layer(-1)
        boxes = clip(said.boxes, images.shape[-2], images.shape[-1])
        return self.choose(keep("query_scores", said.class_scores()), keep("query_boxes", boxes))

    def choose(self, scores: Tensor, boxes: Tensor) -> Detections:
        """The answer among scores ``[B, Q, C]`` and boxes ``[B, Q, 4]``."""
        if self.one_class:
            best = scores.argmax(dim=-1, keepdim=True)
            scores = torch.zeros_like(scores).scatter(2, best, scores.gather(2, best))
        chosen = candidates(scores, boxes, [boxes.shape[1]], threshold=self.threshold, topk=self.topk)
        found: Detections = self.suppress(*chosen)
        return found
