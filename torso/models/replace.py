"""Another head, or one layer more, for a model that has learned; everything else stays."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from torso.config import ModelError
from torso.models.classifier import Classifier
from torso.models.detector import Detector
from torso.nn.transfer import Report, load_weights
from torso.structures import Features


def replace_head(model: Classifier | Detector, num_classes: int, head: nn.Module | None = None) -> Report:
    """Give a model other classes: the layers of class logits begin anew, all other weights stay as they are.

    A detector keeps its towers and its boxes. Device, numbers and mode are those of the old head.

    Args:
        model: changed in place; make its optimizer afterwards.
        num_classes: classes C.
        head: another head for these classes; it takes over what has the same name and shape. ``None`` changes the head
            that is there.

    Returns:
        what stayed (``loaded``) and what begins anew (``re-initialised``, or ``missing`` in the old head).

    Raises:
        ModelError: a head that cannot be given other classes (``reset_classes``); then give one.

    Source: How transferable are features in deep neural networks?, 2014, arXiv:1411.1792
    """
    _check(num_classes)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    if head is None:
        found = list(_with_classes(model.head))
        if not found:
            raise ModelError(
                f"the head {type(model.head).__name__} cannot be given other classes (it has no reset_classes): give "
                "another head"
            )
        for part in found:
            part.reset_classes(num_classes + getattr(model, "background", False))  # type: ignore[operator]
    else:
        model.head = _like(model.head, head)
    for part in _with_classes(model.criterion):  # AutoAssign learns something of each class
        part.reset_classes(num_classes)  # type: ignore[operator]
    model.num_classes = num_classes
    return load_weights(model, before, prefix="", minimum=0.0)


def append_head(model: Classifier, num_classes: int) -> Report:
    """Put one linear layer on the logits of a classifier: it says how the old classes make the new ones.

    Args:
        model: changed in place; make its optimizer afterwards.
        num_classes: classes C of the new layer.

    Returns:
        what stayed, and the new layer (``missing`` in the old head).

    Raises:
        ModelError: the model is no classifier.

    Source: own design; one layer on features that stay, as in CNN Features off-the-shelf, 2014, arXiv:1403.6382
    """
    _check(num_classes)
    if not isinstance(model, Classifier):
        raise ModelError(f"a layer is put on the logits of a classifier, not of a {type(model).__name__}")
    before = model.state_dict()
    model.head = _like(model.head, Appended(model.head, model.num_classes, num_classes))
    model.num_classes = num_classes
    return load_weights(model, before, prefix="", rename={"head.": "head.head."}, minimum=0.0)


class Appended(nn.Module):
    """A classification head and one linear layer on its logits.

    Args:
        head: features to logits ``[B, K]``.
        in_classes: classes K of ``head``.
        num_classes: classes C.

    Source: own design.
    """

    def __init__(self, head: nn.Module, in_classes: int, num_classes: int):
        super().__init__()
        self.head = head
        self.linear = nn.Linear(in_classes, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Features to logits ``[B, C]``."""
        logits: Tensor = self.linear(self.head(features))
        return logits

    def reset_classes(self, num_classes: int) -> None:
        """A new last layer; the old head stays."""
        self.linear = nn.Linear(self.linear.in_features, num_classes).to(self.linear.weight)


def _with_classes(part: nn.Module) -> Iterator[nn.Module]:
    """The topmost modules that can be given other classes."""
    if hasattr(part, "reset_classes"):
        yield part
    else:
        for child in part.children():
            yield from _with_classes(child)


def _like(old: nn.Module, new: nn.Module) -> nn.Module:
    first = next((x for x in old.parameters() if x.is_floating_point()), torch.empty(0))
    return new.to(device=first.device, dtype=first.dtype).train(old.training)


def _check(num_classes: int) -> None:
    if num_classes < 1:
        raise ModelError(f"a head needs at least one class, not {num_classes}")
