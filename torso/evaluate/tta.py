"""Several looks at a picture, mirrored and at other scales: a model that answers with what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torso.boxes.fusion import WeightedFusion
from torso.boxes.mask_merge import merged_masks
from torso.boxes.suppress import Suppressor
from torso.structures import Detections


class Look(NamedTuple):
    """How pictures are shown once: their size in pixels, and whether left is right."""

    height: int
    width: int
    flip: bool


class Looks:
    """A model that looks at a picture again and again, and is used as the model itself.

    It looks at every scale, at 1 first, and with ``flip`` at each of them mirrored, too. Probabilities of classes come
    back as their mean; boxes are brought back to the picture and merged; a mask is the mean of those that the looks
    have of its object. With one look only the answer is the model's own. An exported file that takes one size cannot be
    asked for scales.

    Args:
        model: anything with ``task``, ``num_classes``, ``stride`` and ``predict``; a detector or a classifier.
        scales: factors of the picture's sides above 0; sides are rounded to multiples of the stride.
        flip: look at each scale mirrored, too.
        merge: boxes of all looks to one answer: any suppressor of candidates. Weighted fusion is told which box comes
            from which look; with one weight, all looks count alike. When None it is weighted fusion.

    Raises:
        ValueError: a scale that is not above 0, or weights that are not one for each look.

    Source: own design; fusion is Weighted boxes fusion, 2019, arXiv:1910.13302.
    """

    def __init__(
        self, model: Any, scales: Sequence[float] = (), flip: bool = True, merge: Suppressor | None = None
    ) -> None:
        if not all(0 < scale < float("inf") for scale in scales):
            raise ValueError(f"scales are factors above 0, got {list(scales)}")
        self.model = model
        self.task: str = model.task
        self.num_classes: int = model.num_classes
        self.stride: int = model.stride
        self.scales = tuple(dict.fromkeys((1.0, *map(float, scales))))
        self.flip = flip
        count = len(self.scales) * (1 + flip)
        merge = WeightedFusion() if merge is None else merge
        if isinstance(merge, WeightedFusion):
            if len(merge.weights) not in (1, count):
                raise ValueError(f"{count} looks need as many weights, or one, got {list(merge.weights)}")
            if len(merge.weights) != count:
                alike = merge.weights * count
                merge = WeightedFusion(
                    merge.overlap,
                    merge.confidence,
                    alike,
                    merge.max_detections,
                    topk=merge.topk,
                )
        self.merge: Suppressor = merge

    def looks(self, height: int, width: int) -> list[Look]:
        """How pictures of this size are shown, as they are first."""

        def rounded(side: int, scale: float) -> int:
            return side if scale == 1 else max(round(side * scale / self.stride), 1) * self.stride

        sizes = [(rounded(height, scale), rounded(width, scale)) for scale in self.scales]
        return [Look(*size, mirrored) for size in sizes for mirrored in ((False, True) if self.flip else (False,))]

    def predict(self, images: Tensor) -> Detections | Tensor:
        """The answer to pictures ``[B, 3, H, W]``: ``Detections`` in their pixels, or probabilities ``[B, C]``."""
        height, width = images.shape[-2:]
        looks = self.looks(height, width)
        answers = [self.model.predict(shown(images, look)) for look in looks]
        if self.task == "classify":
            return torch.stack(answers).mean(dim=0)
        if len(answers) == 1:
            return answers[0]  # type: ignore[no-any-return]
        back = [brought_back(found, look, height, width) for found, look in zip(answers, looks, strict=True)]
        return merged(back, self.merge)


def shown(images: Tensor, look: Look) -> Tensor:
    """Pictures ``[B, 3, H, W]`` at the size of a look and mirrored where it is; of the same type."""
    if images.shape[-2:] != (look.height, look.width):
        resized = F.interpolate(images.float(), (look.height, look.width), mode="bilinear", antialias=True)
        images = resized.to(images.dtype) if images.is_floating_point() else resized.round().to(images.dtype)
    return images.flip(-1) if look.flip else images


def brought_back(found: Detections, look: Look, height: int, width: int) -> Detections:
    """Detections of a look in pixels of the pictures of ``height`` x ``width``, unmirrored, masks too."""
    boxes, masks = found.boxes, found.masks
    if look.flip:
        x0, y0, x1, y1 = boxes.unbind(-1)
        boxes = torch.stack([look.width - x1, y0, look.width - x0, y1], dim=-1)
        masks = None if masks is None else masks.flip(-1)
    x, y = width / look.width, height / look.height
    boxes = boxes * boxes.new_tensor([x, y, x, y])
    scores = torch.where(found.valid, found.scores, 0.0)  # by which a suppressor knows padding
    return found._replace(boxes=torch.where(found.valid.unsqueeze(-1), boxes, 0.0), scores=scores, masks=masks)


def merged(looks: Sequence[Detections], merge: Suppressor) -> Detections:
    """One answer of several about the same pictures, in the same pixels."""
    if isinstance(merge, WeightedFusion):
        answer = merge.fuse(looks)
    else:
        boxes, scores, labels = (
            torch.cat([getattr(look, name) for look in looks], dim=1) for name in ("boxes", "scores", "labels")
        )
        answer = merge(boxes, scores, labels)
    if any(look.masks is None for look in looks):
        return answer
    return answer._replace(masks=merged_masks(answer, looks, getattr(merge, "overlap", 0.5)))
