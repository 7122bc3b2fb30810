"""The objective of classification."""

from __future__ import annotations

from torch import Tensor, nn

from torso.structures import Losses, Targets


class ClassifyCriterion(nn.Module):
    """The class of the whole picture: ``{"class": mean loss}``.

    Args:
        class_loss: a loss that takes ``"classes"`` (cross entropy).

    Source: own design.
    """

    def __init__(self, class_loss: nn.Module):
        super().__init__()
        if getattr(class_loss, "takes", None) != "classes":
            raise ValueError(f"a classifier needs a loss of classes such as cross_entropy, got {class_loss}")
        self.class_loss = class_loss

    def forward(self, logits: Tensor, targets: Targets) -> Losses:
        """Logits ``[B, C]`` against ``targets.probabilities [B, C]`` of mixed pictures, else ``classes [B]``."""
        target = targets.classes if targets.probabilities is None else targets.probabilities
        return {"class": self.class_loss(logits, target, reduction="mean")}
