"""Two pictures as one: shining through each other (mix-up), or one with a rectangle of the other (cut-mix)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from torso.config import TorsoError
from torso.data.convex import Frame
from torso.data.draws import beta, uniform
from torso.data.scene import Partners, Scene, merged
from torso.data.views import changed


class MixUp:
    """Blends two pictures, and their classes, by a share drawn from Beta(alpha, alpha).

    The classes become probabilities (``Targets.probabilities``). Of objects both sets stay, each at full weight:
    ``mixup_boxes`` weights them. Where the other picture leaves its canvas grey, nothing is blended.

    Args:
        alpha: of the beta distribution; the paper takes 0.1 to 0.4 for ImageNet.
        p: probability.

    Source: mixup: Beyond Empirical Risk Minimization, 2017, arXiv:1710.09412
    """

    fits: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def __init__(self, alpha: float = 0.2, p: float = 1.0) -> None:
        self.alpha = alpha
        self.p = p

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with another picture in it."""
        if self.p < 1 and uniform(generator, 0, 1) >= self.p:
            return scene
        share = beta(generator, self.alpha)
        other = _partner("mixup", scene, partners, generator)
        if partners.index.image_labels is None:
            return blended(scene, other, share)
        return blended(_counted(scene, share), _counted(other, 1 - share), share)


class MixUpBoxes:
    """Blends two pictures by a share drawn from Beta(alpha, alpha); the objects of both are to be found.

    Args:
        alpha: of the beta distribution; 1.5 is the paper's.
        weighted: objects weigh as much as their picture (``Targets.weights``), as in the paper; otherwise all weigh
            1, as in YOLOX.
        p: probability.

    Source: Bag of Freebies for Training Object Detection Neural Networks, 2019, arXiv:1902.04103
    """

    fits: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def __init__(self, alpha: float = 1.5, weighted: bool = True, p: float = 1.0) -> None:
        self.alpha = alpha
        self.weighted = weighted
        self.p = p

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with another picture in it."""
        if self.p < 1 and uniform(generator, 0, 1) >= self.p:
            return scene
        share = beta(generator, self.alpha)
        other = _partner("mixup_boxes", scene, partners, generator)
        if self.weighted:
            scene, other = _weighted(scene, share), _weighted(other, 1 - share)
        return blended(scene, other, share)


class CutMix:
    """Covers a rectangle of the picture by the same rectangle of another one.

    Classes are shared by what can be seen of each picture. Of objects that the rectangle hides only the rest counts:
    boxes and masks shrink to it, and they are dropped where less than ``min_visible`` is left. Objects of the other
    picture are cut at the rectangle.

    Args:
        alpha: both parameters of the beta distribution from which the share of the lower picture is drawn.
        p: probability.

    Source: CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, 2019,
        arXiv:1905.04899
    """

    fits: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def __init__(self, alpha: float = 1.0, p: float = 1.0) -> None:
        self.alpha = alpha
        self.p = p

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with a rectangle of another picture."""
        if self.p < 1 and uniform(generator, 0, 1) >= self.p:
            return scene
        half = 0.5 * math.sqrt(1 - beta(generator, self.alpha))
        (x0, x1), (y0, y1) = (_span(side, half, generator) for side in scene.size)
        other = _partner("cutmix", scene, partners, generator)
        return overlaid(scene, other, (x0, y0, x1, y1), classes=partners.index.image_labels is not None)


def blended(scene: Scene, other: Scene, share: float) -> Scene:
    """Two scenes on canvases of one size shining through each other, the first with a share of 0..1."""
    upper = other.alone()
    layers = tuple(changed(layer, opacity=layer.opacity * (1 - share)) for layer in upper.layers)
    return merged([scene.alone(), changed(upper, layers=layers)], fill=scene.canvas.fill)


def overlaid(scene: Scene, other: Scene, frame: Frame, *, classes: bool) -> Scene:
    """A scene with a rectangle of another one over it; classes are shared by what can be seen of both."""
    lower, upper = scene.alone(), other.placed(np.eye(3), frame, scene.size)
    upper = changed(upper, layers=tuple(changed(layer, over=True) for layer in upper.layers))
    if classes:
        x0, y0, x1, y1 = frame
        shown = sum((c - a) * (d - b) for a, b, c, d in (layer.frame for layer in upper.layers))
        share = min(shown, (x1 - x0) * (y1 - y0)) / (scene.size[0] * scene.size[1])
        lower, upper = _counted(lower, 1 - share), _counted(upper, share)
    return merged([lower, upper], fill=scene.canvas.fill)


def _partner(name: str, scene: Scene, partners: Partners, generator: Generator) -> Scene:
    """Another picture on a canvas of the same size."""
    other = partners.like(generator)
    if other.size != scene.size:
        raise TorsoError(
            f"{name} mixes canvases of one size, came {scene.size} and {other.size}: "
            f"put it after what fits the canvas (letterbox, resize, a crop)"
        )
    return other


def _weighted(scene: Scene, factor: float) -> Scene:
    """The scene with its labels weighing ``factor`` times as much."""
    return changed(scene, layers=tuple(changed(layer, weight=layer.weight * factor) for layer in scene.layers))


def _counted(scene: Scene, share: float) -> Scene:
    """The scene with its labels weighing a share together."""
    return _weighted(scene, share / max(sum(layer.weight for layer in scene.layers), 1e-12))


def _span(side: int, half: float, generator: Generator) -> tuple[int, int]:
    """Begin and end of a rectangle along one side: about a random centre, cut at the edges."""
    centre = int(torch.randint(side, (), generator=generator))
    return max(centre - int(half * side), 0), min(centre + int(half * side), side)
