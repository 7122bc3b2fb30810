"""Models: parts put together.

Every model has ``task``, ``num_classes``, ``stride`` (pictures are padded to a multiple of it) and three faces:
``model(images)`` tensors to tensors in every mode, ``model.losses(batch)`` and ``model.predict(images)``. Pictures are
``[B, 3, H, W]`` RGB in 0..255; models normalise.
"""

from __future__ import annotations

from torso.models.classifier import Classifier
from torso.models.detector import Detector
from torso.models.query import QueryDetector
from torso.models.replace import append_head, replace_head
from torso.models.two_stage import TwoStage

__all__ = ["Classifier", "Detector", "QueryDetector", "TwoStage", "append_head", "replace_head"]
