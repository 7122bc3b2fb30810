"""A model as it is shipped: pictures in, named tensors out.

Beside its answer a dense detector shows what the answer was chosen from (the score and box of every prior). They are no
output of the file that a user gets, but they stay in it under their names, and ``verify`` looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from torso.boxes.convert import clip
from torso.boxes.suppress import candidates
from torso.structures import DenseOutput, Detections

ANSWERS = {"detect": Detections._fields, "classify": ("probabilities",)}
INSIDE = ("prior_scores", "prior_boxes")


class Model(Protocol):
    """What of a model is shipped."""

    task: str
    num_classes: int
    stride: int

    def predict(self, images: Tensor) -> Detections | Tensor:
        """The answer to pictures ``[B, 3, H, W]``."""
        ...


class Shipped(nn.Module):
    """``images [B, 3, H, W]`` uint8 to the tensors named by ``names``; the first of them, ``answers``, are the answer.

    Args:
        model: a detector or a classifier, on the CPU, in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        # A dense detector can be asked for its two halves: what it sees at every prior, and the choice among these.
        self.dense = hasattr(model, "head") and hasattr(model, "suppress")
        self.answers: tuple[str, ...] = ANSWERS[cast("Model", model).task]
        self.names = (*self.answers, *(INSIDE if self.dense else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The answer, and behind it what it was chosen from."""
        if not self.dense:
            answer = cast("Model", self.model).predict(images)
            return (answer,) if isinstance(answer, Tensor) else tuple(answer)
        scores, boxes, counts = self.inside(images)
        return *self.choose(scores, boxes, counts), scores, boxes

    def inside(self, images: Tensor) -> tuple[Tensor, Tensor, Sequence[int]]:
        """Of every prior: scores ``[B, P, C]``, boxes ``[B, P, 4]``; and the priors of each level."""
        output: DenseOutput = self.model(images)
        scores: Tensor = self.model.head.scores(output.logits, output.extra)  # type: ignore[operator, union-attr]
        return scores, clip(output.boxes, images.shape[-2], images.shape[-1]), output.counts

    def choose(self, scores: Tensor, boxes: Tensor, counts: Sequence[int]) -> Detections:
        """The answer among what ``inside`` says: with it, and nothing else, ``model.predict``."""
        model = self.model
        chosen = candidates(scores, boxes, counts, threshold=model.threshold, topk=model.topk)  # type: ignore[arg-type]
        found: Detections = model.suppress(*chosen)  # type: ignore[operator]
        return found


def shipped(model: nn.Module) -> Shipped:
    """A copy of ``model`` on the CPU, in evaluation mode and float32, as it is shipped; the model is not touched."""
    copy = deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    return Shipped(copy).requires_grad_(False)
