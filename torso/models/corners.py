"""A detector that finds corners and pairs them."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from torch import Tensor, nn

from torso.boxes.cells import pair
from torso.boxes.convert import clip
from torso.boxes.corners import confirmed, pairs, points
from torso.criteria.corner import CornerOutput
from torso.heads.corner import CornerMaps
from torso.models.detector import precise
from torso.models.inside import Keep, go_on
from torso.nn.normalize import normalizer
from torso.structures import Batch, Detections, Features, Losses


class Corners(nn.Module):
    """One network that says where corners are, and which of them belong together.

    With a head that says centres too, a pair needs one in its middle (CenterNet of triplets).

    Args:
        backbone: pictures to features.
        neck: features to features, one level or more of one stride: the same map, seen ever better.
        head: features to `torso.heads.corner.CornerMaps` of each level.
        criterion: what the network says, and the truth, to losses.
        suppress: boxes to detections.
        num_classes: classes C.
        threshold: score (0..1) that the mean of two corners has to exceed.
        topk: corners of each kind, and centres.
        pairs: boxes of two corners at most, the best ones.
        distance: how far the embeddings of an object's corners are apart at most.
        peaks: side in cells of the window in which a point is the highest of its class, odd.
        parts: of which the middle one has to have a centre: of small and of large boxes, odd.
        large: the root of its area in pixels from above which a box is large.
        normalize: pixels to what the backbone expects; by the backbone's own mean and deviation when None.

    Raises:
        ValueError: a head that says no corners, levels of different strides, a window or parts without a middle.

    Source: CornerNet: Detecting Objects as Paired Keypoints, 2018, arXiv:1808.01244; CenterNet: Keypoint Triplets for
        Object Detection, 2019, arXiv:1904.08189
    """

    task: ClassVar[str] = "detect"

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        criterion: nn.Module,
        suppress: nn.Module,
        *,
        num_classes: int,
        threshold: float = 0.0,
        topk: int = 100,
        pairs: int = 1000,
        distance: float = 0.5,
        peaks: int = 3,
        parts: tuple[int, int] = (3, 5),
        large: float = 150.0,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        strides = [pair(stride) for stride in cast("Any", neck).strides]
        if not hasattr(head, "points"):
            raise ValueError(f"corners need a head such as corner, got {type(head).__name__}")
        if len(set(strides)) != 1:
            raise ValueError(f"corners are found on maps of one stride, got {strides}: choose the backbone's levels")
        if any(count < 1 or count % 2 == 0 for count in (peaks, *parts)):
            raise ValueError(f"a window and the parts of a box have a middle: odd, got peaks={peaks}, parts={parts}")
        self.num_classes, self.threshold, self.topk, self.pairs = num_classes, threshold, topk, pairs
        self.distance, self.peaks, self.parts, self.large = distance, peaks, parts, large
        self.cell = strides[0]
        self.stride: int = max(backbone.strides)  # type: ignore[arg-type]
        self.normalize = normalizer(normalize, backbone)
        self.backbone, self.neck, self.head = backbone, neck, cast("Any", head)
        self.criterion, self.suppress = criterion, suppress
        self.inside: tuple[str, ...] = ("corner_scores", "corner_embeddings", "corner_offsets")

    def features(self, images: Tensor) -> Features:
        """Pictures ``[B, 3, H, W]`` in 0..255 to features."""
        found: Features = self.neck(self.backbone(self.normalize(images)))
        return found

    def forward(self, images: Tensor) -> CornerOutput:
        """Pictures ``[B, 3, H, W]`` in 0..255 to what the network says on its maps."""
        maps = tuple(CornerMaps(*map(precise, each)) for each in self.head(self.features(images)))
        return CornerOutput(maps, self.cell, (images.shape[-2], images.shape[-1]))

    def losses(self, batch: Batch) -> Losses:
        """The named losses of a batch."""
        losses: Losses = self.criterion(self(batch.images), batch.targets)
        return losses

    def predict(self, images: Tensor) -> Detections:
        """The objects in pictures ``[B, 3, H, W]``, boxes in pixels of these pictures."""
        return self.answer(images, go_on)

    def answer(self, images: Tensor, keep: Keep) -> Detections:
        """`predict`, with the numbers of `inside` passed through ``keep``; only the last map is asked."""
        features = self.features(images)
        maps = CornerMaps(*map(precise, self.head.say(len(features) - 1, features[-1])))
        heat = keep("corner_scores", maps.heat.sigmoid())
        embeddings, offsets = keep("corner_embeddings", maps.embeddings), keep("corner_offsets", maps.offsets)
        return self.choose(heat, embeddings, offsets, (images.shape[-2], images.shape[-1]))

    def choose(self, heat: Tensor, embeddings: Tensor, offsets: Tensor, size: tuple[int, int]) -> Detections:
        """The answer among scores ``[B, K, C, H, W]``, embeddings ``[B, 2, H, W]`` and offsets ``[B, K, 2, H, W]``."""
        found = [
            points(heat[:, kind], offsets[:, kind], self.cell, self.peaks, self.topk)
            for kind in range(self.head.points)
        ]
        boxes, scores, labels = pairs(found[0], found[1], embeddings, self.distance, self.threshold, self.pairs)
        for centres in found[2:]:
            scores = confirmed(boxes, scores, labels, centres, self.parts, self.large)
        answer: Detections = self.suppress(clip(boxes, *size), scores, labels)
        return answer
