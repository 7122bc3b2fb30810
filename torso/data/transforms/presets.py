"""Named lists of transforms: the sets that papers and libraries train with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

from torso.data.scene import Edit
from torso.data.transforms.color import Color
from torso.data.transforms.compose import Joint
from torso.data.transforms.crops import IoUCrop, RandomCrop, RandomResizedCrop, ZoomOut
from torso.data.transforms.erase import Cutout, RandomErasing
from torso.data.transforms.geometry import Affine, HorizontalFlip
from torso.data.transforms.mosaic import Mosaic
from torso.data.transforms.motions import RandomScale
from torso.data.transforms.photometric import Photometric
from torso.data.transforms.policies import AutoAugment, RandAugment, TrivialAugment

_SETS: dict[str, Callable[[], list[object]]] = {
    "yolo": lambda: [Affine(), HorizontalFlip(), Color()],
    "yolo_mosaic": lambda: [Mosaic(), Affine(), HorizontalFlip(), Color()],
    "ssd": lambda: [Photometric(), ZoomOut(), IoUCrop(), HorizontalFlip()],
    "ssdlite": lambda: [IoUCrop(), HorizontalFlip()],
    "large_scale_jitter": lambda: [RandomScale(), RandomCrop(), HorizontalFlip()],
    "imagenet": lambda: [RandomResizedCrop(), HorizontalFlip()],
    "auto_augment": lambda: [RandomResizedCrop(), HorizontalFlip(), AutoAugment()],
    "rand_augment": lambda: [RandomResizedCrop(), HorizontalFlip(), RandAugment(), RandomErasing(0.25)],
    "trivial_augment": lambda: [RandomResizedCrop(), HorizontalFlip(), TrivialAugment(), RandomErasing(0.1)],
    "cifar": lambda: [RandomCrop(padding=4, fill=0), HorizontalFlip(), Cutout(16)],
}


def preset(
    of: Literal[
        "yolo",
        "yolo_mosaic",
        "ssd",
        "ssdlite",
        "large_scale_jitter",
        "imagenet",
        "auto_augment",
        "rand_augment",
        "trivial_augment",
        "cifar",
    ],
) -> Joint:
    """A named set of transforms.

    Args:
        of: detection: "yolo" (scale, shift, flip, colour; "yolo_mosaic" with four pictures on one canvas), "ssd",
            "ssdlite", "large_scale_jitter"; classification: "imagenet" alone or under one of the three policies,
            "cifar".

    Source: YOLOv4, 2020, arXiv:2004.10934 (the bag of freebies); the training references of torchvision.
    """
    # Mixing ones among them: the loader runs a joint's parts one by one.
    return Joint(cast("list[Edit]", _SETS[of]()))
