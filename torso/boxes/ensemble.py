"""Several detectors as one: side by side, or one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torso.boxes.fusion import WeightedFusion
from torso.boxes.ordered import Above, answer, check, padded, precise, same_class
from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections


class Ensemble(nn.Module):
    """Detectors that answer together; it predicts as each of them does.

    Parallel, all of them asked about every picture: ``fusion`` fuses their answers (`WeightedFusion`) and takes any
    detectors; ``scores`` takes the mean of their scores and boxes at every prior, ``logits`` that of the logits of the
    scores, before there is an answer: their priors must be the same. Serial, one after another: with ``serial`` a
    detection of the first stays only if each of the next has one of its class that overlaps it by more than
    ``overlap``; its score is the weighted geometric mean of theirs, its box that of the first.

    It is called in Python, with models: a recipe names none.

    Args:
        models: detectors of the same classes, with ``predict``; for means, with ``score`` and ``choose`` too.
        how: what becomes of their answers.
        weights: one a model, above 0: how much it counts; equal when None.
        overlap: IoU (0..1) of two boxes that mean the same object.
        max_detections: rows of the answer; means answer with as many as the first detector.

    Raises:
        ValueError: no models, models of different classes, an unknown way, or weights that do not fit.

    Source: own design; fusion is Weighted boxes fusion, 2019, arXiv:1910.13302.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        how: Literal["fusion", "scores", "logits", "serial"] = "fusion",
        weights: Sequence[float] | None = None,
        overlap: float = 0.55,
        max_detections: int = 300,
    ):
        super().__init__()
        check(max_detections, overlap=overlap)
        if how not in ("fusion", "scores", "logits", "serial"):
            raise ValueError(f"how is fusion, scores, logits or serial, got {how!r}")
        weights = [1.0] * len(models) if weights is None else [float(w) for w in weights]
        if not models or len(weights) != len(models) or not all(weight > 0 for weight in weights):
            raise ValueError(f"an ensemble needs models and a weight above 0 for each, got {len(models)} and {weights}")
        classes = {getattr(model, "num_classes", None) for model in models}
        if len(classes) > 1:
            raise ValueError(f"the models of an ensemble know the same classes, got {sorted(map(str, classes))}")
        self.models = nn.ModuleList(models)
        self.how, self.overlap, self.max_detections = how, overlap, max_detections
        self.above = Above(overlap)
        self.weights = [weight / sum(weights) for weight in weights]
        self.fusion = WeightedFusion(overlap, weights=weights, max_detections=max_detections)

    def forward(self, images: Tensor) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures."""
        if self.how in ("scores", "logits"):
            return self._mean(images)
        found = [model.predict(images) for model in self.models]  # type: ignore[operator]
        return self.fusion.fuse(found) if self.how == "fusion" else self.confirm(found)

    def predict(self, images: Tensor) -> Detections:
        """The same, by the name that detectors have for it."""
        found: Detections = self(images)
        return found

    def _mean(self, images: Tensor) -> Detections:
        said = [model.score(images) for model in self.models]  # type: ignore[operator]
        scores, boxes, counts = said[0]
        for other in said[1:]:
            if other[2] != counts or other[0].shape != scores.shape or other[1].shape != boxes.shape:
                raise ValueError(
                    f"the mean of detectors needs equal priors and classes, got {list(scores.shape)} and "
                    f"{list(other[0].shape)}, priors a level {list(counts)} and {list(other[2])}: use fusion"
                )
        mean = self._weighted([each[0].logit(eps=1e-7) if self.how == "logits" else each[0] for each in said])
        first: Any = self.models[0]
        found: Detections = first.choose(
            mean.sigmoid() if self.how == "logits" else mean,
            self._weighted([each[1] for each in said]),
            counts,
            (images.shape[-2], images.shape[-1]),
        )
        return found

    def _weighted(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([value * weight for value, weight in zip(values, self.weights, strict=True)]).sum(dim=0)

    def confirm(self, found: Sequence[Detections]) -> Detections:
        """What is left of the first answer when each of the next ones has been asked."""
        boxes, scores, labels = found[0][:3]
        logs = [scores.clamp(min=torch.finfo(scores.dtype).tiny).log()]
        stays = found[0].valid
        for other in found[1:]:
            overlap = self.above(pairwise_iou(precise(boxes), precise(other.boxes)))  # [B, D, D']
            meant = overlap & same_class(labels, other.labels) & other.valid.unsqueeze(1)
            best = torch.where(meant, other.scores.unsqueeze(1), 0.0).amax(dim=-1)
            stays = stays & (best > 0)
            logs.append(best.clamp(min=torch.finfo(best.dtype).tiny).log())
        scores = torch.where(stays, self._weighted(logs).exp(), 0.0)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        boxes = boxes.gather(1, order.unsqueeze(-1).expand_as(boxes))
        return answer(*padded(boxes, scores, labels.gather(1, order), self.max_detections))

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"how={self.how}, overlap={self.overlap}, max_detections={self.max_detections}"
