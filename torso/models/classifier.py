"""A classifier: backbone, head."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from torso.nn.normalize import normalizer
from torso.structures import Batch, Losses


class Classifier(nn.Module):
    """Pictures to the class of the whole picture.

    Args:
        backbone: pictures to features.
        head: features to logits ``[B, C]``.
        criterion: logits and targets to losses.
        num_classes: classes C.
        normalize: pixels to what the backbone expects; by the backbone's own mean and deviation when None.

    Source: own design.
    """

    task: ClassVar[str] = "classify"

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        criterion: nn.Module,
        num_classes: int,
        *,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        if hasattr(head, "scores"):
            raise ValueError(f"a classifier needs a head such as classify, got {type(head).__name__}")
        self.num_classes = num_classes
        self.stride: int = 1  # any size will do
        self.normalize = normalizer(normalize, backbone)
        self.backbone, self.head, self.criterion = backbone, head, criterion

    def forward(self, images: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in 0..255 to logits ``[B, C]``."""
        logits: Tensor = self.head(self.backbone(self.normalize(images)))
        return logits if logits.dtype.itemsize >= 4 else logits.float()

    def losses(self, batch: Batch) -> Losses:
        """The named losses of a batch."""
        losses: Losses = self.criterion(self(batch.images), batch.targets)
        return losses

    def predict(self, images: Tensor) -> Tensor:
        """Probabilities ``[B, C]``."""
        probabilities: Tensor = self(images).softmax(dim=1)
        return probabilities
