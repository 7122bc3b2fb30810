"""Learned and random policies: which of 15 operations, how often, how strong. Boxes follow the geometric ones.

The operations and their strengths are torchvision's; positions between pixels are read bilinearly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms import filters
from torso.data.transforms.motions import filled, turned
from torso.data.transforms.pixelwise import inverting
from torso.data.transforms.policies_learned import LEARNED
from torso.data.views import View, shifting

Spread = tuple[float, float]

OPERATIONS: dict[str, Callable[[View, float], View]] = {
    "Identity": lambda view, x: view,
    "ShearX": lambda view, x: view.then(np.array([[1.0, -x, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])),
    "ShearY": lambda view, x: view.then(np.array([[1.0, 0.0, 0.0], [-x, 1.0, 0.0], [0.0, 0.0, 1.0]])),
    "TranslateX": lambda view, x: view.then(shifting(int(x), 0)),
    "TranslateY": lambda view, x: view.then(shifting(0, int(x))),
    "Rotate": turned,
    "Brightness": lambda view, x: view.filtered(filters.Brighten(1 + x)),
    "Color": lambda view, x: view.filtered(filters.Saturate(1 + x)),
    "Contrast": lambda view, x: view.filtered(filters.Contrast(1 + x)),
    "Sharpness": lambda view, x: view.filtered(filters.Sharpness(1 + x)),
    "Posterize": lambda view, x: view.filtered(filters.Posterize(int(x))),
    "Solarize": lambda view, x: view.filtered(filters.Solarize(255 * x)),
    "AutoContrast": lambda view, x: view.filtered(filters.AutoContrast()),
    "Equalize": lambda view, x: view.filtered(filters.Equalize()),
    "Invert": lambda view, x: view.tinted(inverting()),
}
"""Name -> what it does to a view at a magnitude in its own units."""

SIGNED = frozenset(
    {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}
)
"""Operations whose magnitude is negative half of the time."""

SPACE: dict[str, Spread] = {
    "ShearX": (0.0, 0.3),
    "ShearY": (0.0, 0.3),
    "TranslateX": (0.0, 150 / 331),  # of the width
    "TranslateY": (0.0, 150 / 331),  # of the height
    "Rotate": (0.0, 30.0),
    "Brightness": (0.0, 0.9),
    "Color": (0.0, 0.9),
    "Contrast": (0.0, 0.9),
    "Sharpness": (0.0, 0.9),
    "Posterize": (8.0, 4.0),
    "Solarize": (1.0, 0.0),
}
"""Magnitudes from the weakest to the strongest, of AutoAugment and RandAugment."""

WIDE: dict[str, Spread] = {
    **dict.fromkeys(("ShearX", "ShearY", "Brightness", "Color", "Contrast", "Sharpness"), (0.0, 0.99)),
    "TranslateX": (0.0, 32.0),  # pixels
    "TranslateY": (0.0, 32.0),
    "Rotate": (0.0, 135.0),
    "Posterize": (8.0, 2.0),
    "Solarize": (1.0, 0.0),
}
"""The same of TrivialAugment."""

_CHOICE = tuple(name for name in OPERATIONS if name != "Invert")  # what is drawn without being learned


def magnitude(name: str, step: int, bins: int, size: tuple[int, int], space: dict[str, Spread]) -> float:
    """The strength of an operation at a step of ``0..bins - 1``, on a canvas of (width, height)."""
    if name not in space:
        return 0.0
    weak, strong = space[name]
    value = weak + (strong - weak) * step / (bins - 1)
    if name == "Posterize":
        return float(round(value))
    if space is SPACE and name in ("TranslateX", "TranslateY"):
        value *= size[0] if name == "TranslateX" else size[1]
    return value


class AutoAugment:
    """Two operations out of one of 25 pairs that were learned on a data set.

    Args:
        policy: the data set.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: AutoAugment: Learning Augmentation Policies from Data, 2018, arXiv:1805.09501 (as in torchvision).
    """

    fits: ClassVar[bool] = False

    def __init__(self, policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet", fill: int | None = None) -> None:
        self.pairs = LEARNED[policy]
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        view = filled(view, self.fill)
        pair = self.pairs[int(torch.randint(len(self.pairs), (), generator=generator))]
        for name, p, step in pair:
            if uniform(generator, 0, 1) < p:
                strength = magnitude(name, step, 10, view.size, SPACE)
                view = OPERATIONS[name](view, _signed(name, strength, generator))
        return view


class RandAugment:
    """A number of operations drawn at random, all of one strength.

    Args:
        count: operations a picture.
        strength: step of ``0..bins - 1``.
        bins: steps.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: RandAugment: Practical automated data augmentation with a reduced search space, 2019, arXiv:1909.13719
    (as in torchvision).
    """

    fits: ClassVar[bool] = False

    def __init__(self, count: int = 2, strength: int = 9, bins: int = 31, fill: int | None = None) -> None:
        self.count = count
        self.strength = strength
        self.bins = bins
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        view = filled(view, self.fill)
        for _ in range(self.count):
            name = _CHOICE[int(torch.randint(len(_CHOICE), (), generator=generator))]
            strength = magnitude(name, self.strength, self.bins, view.size, SPACE)
            view = OPERATIONS[name](view, _signed(name, strength, generator))
        return view


class TrivialAugment:
    """One operation drawn at random, of a strength drawn at random from a wide range.

    Args:
        bins: steps of the strength.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, 2021, arXiv:2103.10158 (the wide
    space, as in torchvision).
    """

    fits: ClassVar[bool] = False

    def __init__(self, bins: int = 31, fill: int | None = None) -> None:
        self.bins = bins
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        view = filled(view, self.fill)
        name = _CHOICE[int(torch.randint(len(_CHOICE), (), generator=generator))]
        step = int(torch.randint(self.bins, (), generator=generator))
        strength = magnitude(name, step, self.bins, view.size, WIDE)
        return OPERATIONS[name](view, _signed(name, strength, generator))


def _signed(name: str, strength: float, generator: Generator) -> float:
    if name in SIGNED and uniform(generator, 0, 1) < 0.5:
        return -strength
    return math.fabs(strength)
