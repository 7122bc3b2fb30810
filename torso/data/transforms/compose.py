"""Several transforms as one, all of them or by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Generator

from torso.config import Role
from torso.data.draws import uniform
from torso.data.scene import Edit
from torso.data.views import View


class Joint:
    """Several transforms as one: picture, boxes and all that follows share a single matrix.

    Args:
        transforms: they run in this order.

    Source: torchvision v2.Compose with tv_tensors.
    """

    def __init__(self, transforms: Annotated[list[Edit], Role("transform")]) -> None:
        self.transforms: Sequence[Edit] = transforms

    @property
    def fits(self) -> bool:
        """Whether one of the parts decides the canvas."""
        return any(transform.fits for transform in self.transforms)

    @property
    def sees_boxes(self) -> bool:
        """Whether one of the parts wants to know the objects."""
        return sees_boxes(self.transforms)

    def __call__(self, view: View, generator: Generator) -> View:
        """The view after all of them, in order."""
        return all_of(self.transforms, view, generator)


class RandomApply:
    """Does all of its transforms with probability ``p``, or none of them.

    Args:
        transforms: transforms that leave the canvas's size as it is.
        p: probability.

    Raises:
        ValueError: one of them mixes pictures (it has a probability of its own).

    Source: torchvision v2.RandomApply.
    """

    def __init__(self, transforms: Annotated[list[Edit], Role("transform")], p: float = 0.5) -> None:
        self.parts = _edits(transforms)
        self.p = p

    @property
    def fits(self) -> bool:
        """Whether its transforms decide the canvas, which they can do only where they always run."""
        return self.p >= 1 and any(transform.fits for transform in self.parts)

    @property
    def sees_boxes(self) -> bool:
        """Whether one of the parts wants to know the objects."""
        return sees_boxes(self.parts)

    def __call__(self, view: View, generator: Generator) -> View:
        """The view after all of them, or as it was."""
        return all_of(self.parts, view, generator) if uniform(generator, 0, 1) < self.p else view


class OneOf:
    """Does one of its transforms.

    Args:
        transforms: to draw from.
        weights: how often each, relative to the others; empty is all alike.

    Raises:
        ValueError: one of them mixes pictures (it has a probability of its own).

    Source: torchvision v2.RandomChoice.
    """

    def __init__(self, transforms: Annotated[list[Edit], Role("transform")], weights: tuple[float, ...] = ()) -> None:
        self.parts = _edits(transforms)
        self.weights = torch.tensor(weights or [1.0] * len(transforms), dtype=torch.float64)

    @property
    def fits(self) -> bool:
        """Whether whatever is drawn decides the canvas."""
        return all(transform.fits for transform in self.parts)

    @property
    def sees_boxes(self) -> bool:
        """Whether one of the parts wants to know the objects."""
        return sees_boxes(self.parts)

    def __call__(self, view: View, generator: Generator) -> View:
        """The view after one of them."""
        drawn = int(torch.multinomial(self.weights, 1, generator=generator))
        return all_of([self.parts[drawn]], view, generator)


def sees_boxes(transforms: Sequence[Edit]) -> bool:
    """Whether one of them wants to know the objects."""
    return any(getattr(transform, "sees_boxes", False) for transform in transforms)


def _edits(transforms: Sequence[Edit]) -> Sequence[Edit]:
    """The transforms, where all of them edit views."""
    for transform in transforms:
        if not hasattr(transform, "fits") or getattr(transform, "mixes", False):
            raise ValueError(f"{type(transform).__name__} cannot stand inside of random_apply or one_of")
    return transforms


def all_of(transforms: Sequence[Edit], view: View, generator: Generator) -> View:
    """The view after all of them, in order."""
    for transform in transforms:
        view = transform(view, generator)
    return view
