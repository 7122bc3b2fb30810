"""Transforms of pixels by chance: each adds one filter, or one colour matrix, with probability ``p``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms import filters, filters_noise
from torso.data.transforms.color import color_matrix
from torso.data.transforms.elastic import seed_of
from torso.data.views import Matrix, View


class Grayscale:
    """Takes the colour away.

    Args:
        p: probability.

    Source: torchvision v2.RandomGrayscale.
    """

    fits: ClassVar[bool] = False

    def __init__(self, p: float = 0.1) -> None:
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.tinted(color_matrix(saturation=0.0)) if uniform(generator, 0, 1) < self.p else view


class Invert:
    """Turns every value into 255 minus it.

    Args:
        p: probability.

    Source: torchvision v2.RandomInvert.
    """

    fits: ClassVar[bool] = False

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.tinted(inverting()) if uniform(generator, 0, 1) < self.p else view


def inverting() -> Matrix:
    """The colour matrix of a negative."""
    return np.hstack([-np.eye(3), np.full((3, 1), 255.0)])


class Posterize:
    """Keeps the highest bits of each value.

    Args:
        bits: how many, 1..8.
        p: probability.

    Source: torchvision v2.RandomPosterize.
    """

    fits: ClassVar[bool] = False

    def __init__(self, bits: int = 4, p: float = 0.5) -> None:
        self.bits = bits
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.filtered(filters.Posterize(self.bits)) if uniform(generator, 0, 1) < self.p else view


class Solarize:
    """Inverts bright values.

    Args:
        threshold: from which value on, 0..255.
        p: probability.

    Source: torchvision v2.RandomSolarize.
    """

    fits: ClassVar[bool] = False

    def __init__(self, threshold: float = 128.0, p: float = 0.5) -> None:
        self.threshold = threshold
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.filtered(filters.Solarize(self.threshold)) if uniform(generator, 0, 1) < self.p else view


class AutoContrast:
    """Stretches each channel until its darkest value is 0 and its brightest 255.

    Args:
        p: probability.

    Source: torchvision v2.RandomAutocontrast.
    """

    fits: ClassVar[bool] = False

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.filtered(filters.AutoContrast()) if uniform(generator, 0, 1) < self.p else view


class Equalize:
    """Makes all values of a channel evenly frequent.

    Args:
        p: probability.

    Source: torchvision v2.RandomEqualize.
    """

    fits: ClassVar[bool] = False

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.filtered(filters.Equalize()) if uniform(generator, 0, 1) < self.p else view


class Sharpness:
    """Sharpens, or smooths a little.

    Args:
        factor: 0 smooths, 1 changes nothing, 2 sharpens.
        p: probability.

    Source: torchvision v2.RandomAdjustSharpness.
    """

    fits: ClassVar[bool] = False

    def __init__(self, factor: float = 2.0, p: float = 0.5) -> None:
        self.factor = factor
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return view.filtered(filters.Sharpness(self.factor)) if uniform(generator, 0, 1) < self.p else view


class Blur:
    """Smooths with a Gaussian of random width.

    Args:
        sigma: range of the standard deviation in pixels.
        size: side of the kernel in pixels, odd; None takes four standard deviations either way.
        p: probability.

    Source: torchvision v2.GaussianBlur; SimCLR, 2020, arXiv:2002.05709.
    """

    fits: ClassVar[bool] = False

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), size: int | None = None, p: float = 0.5) -> None:
        self.sigma = sigma
        self.size = size
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        sigma = uniform(generator, *self.sigma)
        return view.filtered(filters.Blur(self.size or 2 * round(4 * sigma) + 1, sigma))


class MotionBlur:
    """Smears along a line of random length and direction, as a moving camera does.

    Args:
        size: range of the length in pixels.
        p: probability.

    Source: own design.
    """

    fits: ClassVar[bool] = False

    def __init__(self, size: tuple[int, int] = (3, 15), p: float = 0.5) -> None:
        self.size = size
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        length = round(uniform(generator, *self.size))
        return view.filtered(filters.MotionBlur(length // 2 * 2 + 1, uniform(generator, 0, 180)))


class Noise:
    """Adds noise.

    Args:
        kind: "gaussian" is added to every value; "salt_pepper" turns pixels white or black; "poisson" is that of
            few photons, stronger where it is bright.
        amount: gaussian: the standard deviation, in units of the whole range 0..1; salt_pepper: the fraction of
            pixels, half of each; poisson: one over the photons of a white pixel.
        p: probability.

    Source: torchvision v2.GaussianNoise.
    """

    fits: ClassVar[bool] = False

    def __init__(self, kind: filters_noise.Kind = "gaussian", amount: float = 0.05, p: float = 0.5) -> None:
        self.kind: filters_noise.Kind = kind
        self.amount = amount
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p or self.amount == 0:
            return view
        return view.filtered(filters_noise.Noise(self.kind, self.amount, seed_of(generator)))


class Jpeg:
    """Compresses to JPEG of random quality and back.

    Args:
        quality: range, 1..100.
        p: probability.

    Source: torchvision v2.JPEG.
    """

    fits: ClassVar[bool] = False

    def __init__(self, quality: tuple[int, int] = (30, 95), p: float = 0.5) -> None:
        self.quality = quality
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        low, high = self.quality
        return view.filtered(filters.Compress(low + int(torch.randint(high - low + 1, (), generator=generator))))
