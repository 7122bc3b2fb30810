"""A model as it is shipped: pictures in, named tensors out.

Beside its answer a dense detector shows what the answer was chosen from (the score and box of every prior). They are no
output of the file that a user gets, but they stay in it under their names, and ``verify`` looks at them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from torso.models import Detector
from torso.structures import Detections

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
        self.answers: tuple[str, ...] = ANSWERS[cast("Model", model).task]
        self.names = (*self.answers, *(INSIDE if isinstance(model, Detector) else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The answer, and behind it what it was chosen from."""
        if not isinstance(self.model, Detector):
            answer = cast("Model", self.model).predict(images)
            return (answer,) if isinstance(answer, Tensor) else tuple(answer)
        scores, boxes, counts = self.model.score(images)
        return *self.model.choose(scores, boxes, counts), scores, boxes


def shipped(model: nn.Module) -> Shipped:
    """A copy of ``model`` on the CPU, in evaluation mode and float32, as it is shipped; the model is not touched."""
    copy = deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    return Shipped(copy).requires_grad_(False)
