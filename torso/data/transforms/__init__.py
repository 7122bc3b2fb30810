"""Augmentation as edits of a view (``torso.data.views``). No transform here touches a pixel.

The contract: a transform is called with a view and the sample's own generator and returns a new view. It always
sees the canvas as it is so far; what it does is done to every picture on it (``torso.data.scene``). Those with
``fits = True`` decide the canvas; where a list holds none of them, the loader puts a ``Letterbox`` in front. Those
with ``sees_boxes = True`` find the objects in ``view.boxes``. Those with ``mixes = True`` are called with a scene,
partners and the generator instead. The last four are different: modules
that work on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torso.data.stats import estimate_mean_std
from torso.data.transforms import (
    crops,
    elastic,
    erase,
    intensity,
    motions,
    on_device,
    perspective,
    photometric,
    pixelwise,
    policies,
)
from torso.data.transforms.color import Color
from torso.data.transforms.compose import Joint, OneOf, RandomApply
from torso.data.transforms.crops import CenterCrop, RandomResizedCrop
from torso.data.transforms.decoding import Decode
from torso.data.transforms.geometry import Affine, HorizontalFlip, Letterbox, Resize, VerticalFlip
from torso.data.transforms.mix import CutMix, MixUp, MixUpBoxes
from torso.data.transforms.mosaic import Mosaic
from torso.data.transforms.paste import CopyPaste, SmallObjectCopyPaste
from torso.data.transforms.presets import preset
from torso.data.transforms.warp import WarpAffine
from torso.nn.normalize import NormalizePixels

__all__ = [
    "TRANSFORMS",
    "Affine",
    "CenterCrop",
    "Color",
    "Decode",
    "HorizontalFlip",
    "Joint",
    "Letterbox",
    "Mosaic",
    "RandomResizedCrop",
    "Resize",
    "VerticalFlip",
]


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "letterbox": Letterbox,
    "resize": Resize,
    "center_crop": CenterCrop,
    "random_resized_crop": RandomResizedCrop,
    "horizontal_flip": HorizontalFlip,
    "vertical_flip": VerticalFlip,
    "affine": Affine,
    "color": Color,
    "mosaic": Mosaic,
    "mixup": MixUp,
    "mixup_boxes": MixUpBoxes,
    "cutmix": CutMix,
    "copy_paste": CopyPaste,
    "small_object_copy_paste": SmallObjectCopyPaste,
    "joint": Joint,
    "compose": Joint,
    "random_apply": RandomApply,
    "one_of": OneOf,
    "preset": preset,
    "pad": crops.Pad,
    "random_crop": crops.RandomCrop,
    "iou_crop": crops.IoUCrop,
    "zoom_out": crops.ZoomOut,
    "random_scale": motions.RandomScale,
    "random_short_side": motions.RandomShortSide,
    "rotation": motions.Rotation,
    "shift": motions.Shift,
    "shear": motions.Shear,
    "warp_affine": WarpAffine,
    "perspective": perspective.Perspective,
    "elastic": elastic.Elastic,
    "color_jitter": photometric.ColorJitter,
    "photometric": photometric.Photometric,
    "grayscale": pixelwise.Grayscale,
    "invert": pixelwise.Invert,
    "posterize": pixelwise.Posterize,
    "solarize": pixelwise.Solarize,
    "autocontrast": pixelwise.AutoContrast,
    "equalize": pixelwise.Equalize,
    "sharpness": pixelwise.Sharpness,
    "blur": pixelwise.Blur,
    "motion_blur": pixelwise.MotionBlur,
    "noise": pixelwise.Noise,
    "jpeg": pixelwise.Jpeg,
    "random_erasing": erase.RandomErasing,
    "cutout": erase.Cutout,
    "hide_and_seek": erase.HideAndSeek,
    "grid_mask": erase.GridMask,
    "auto_augment": policies.AutoAugment,
    "rand_augment": policies.RandAugment,
    "trivial_augment": policies.TrivialAugment,
    "decode": Decode,
    "normalize": NormalizePixels,
    "estimate_mean_std": estimate_mean_std,
    "to_tensor": intensity.ToTensor,
    "normalize_robust": intensity.NormalizeRobust,
    "on_device": on_device.OnDevice,
}
