"""A model as it is shipped: pictures in, named tensors out.

Beside its answer a detector shows what the answer was chosen from (the score and box of every prior). They are no
output of the file that a user gets, but they stay in it under their names, and ``verify`` looks at them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from torso.models.inside import Keep, Kept
from torso.structures import Detections

ANSWERS = {"detect": ("boxes", "scores", "labels", "valid"), "classify": ("probabilities",)}


class Model(Protocol):
    """What of a model is shipped. One that makes choices also has ``inside`` and ``answer``, see `torso.models.inside`.

    A detector of masks has ``masks = True``: its answer then has them, too.
    """

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
        self.answers = ANSWERS[cast("Model", model).task] + (("masks",) if getattr(model, "masks", False) else ())
        self.inside: tuple[str, ...] = getattr(model, "inside", ())
        self.names = (*self.answers, *self.inside)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The answer, and behind it what it was chosen from."""
        kept = Kept()
        answer = self.answer(images, kept)
        return *answer, *(kept[name] for name in self.inside)

    def answer(self, images: Tensor, keep: Keep) -> tuple[Tensor, ...]:
        """The tensors of ``answers``."""
        model: Any = self.model
        found = model.answer(images, keep) if self.inside else model.predict(images)
        return (found,) if isinstance(found, Tensor) else tuple(x for x in found if x is not None)


def shipped(model: nn.Module) -> Shipped:
    """A copy of ``model`` on the CPU, in evaluation mode and float32, as it is shipped; the model is not touched."""
    copy = deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    return Shipped(copy).requires_grad_(False)
