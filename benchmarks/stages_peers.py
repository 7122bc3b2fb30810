"""The peers of `stages.py`: torchvision's Faster and Mask R-CNN as models of torso's engine."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from torso.backbones import BACKBONES
from torso.structures import Batch, Detections, Features, Losses

CHANNELS, HIDDEN, MASKS, CANONICAL = 96, 256, 96, 112


class Pyramid(nn.Module):
    """The trunk all systems stand on, and torchvision's own feature pyramid: strides 4 to 64."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        levels = {"levels": [2, 3, 4, 5], "frozen_stages": 1}
        self.trunk = BACKBONES["timm"]("tf_efficientnet_lite0", weights="imagenet", **levels)
        self.fpn = FeaturePyramidNetwork(self.trunk.channels, CHANNELS, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d)
        self.out_channels = CHANNELS

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pictures, normalised, to named levels."""
        features: Features = self.trunk(images)
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(features)))
        return levels


class TwoStages(nn.Module):
    """A detector of torchvision with the two calls that torso's engine makes."""

    task = "detect"

    def __init__(self, model: nn.Module, num_classes: int, rows: int):
        super().__init__()
        self.model, self.num_classes, self.rows = model, num_classes, rows
        self.backbone = model.backbone  # for the rate of the trunk
        # Pictures have the network's size already, and masks are laid over them by the one evaluator.
        model.transform.postprocess = lambda found, *_: found

    def losses(self, batch: Batch) -> Losses:
        """Torchvision's losses of torso's batch."""
        there = batch.targets
        rows = []
        for i in range(len(batch)):
            mine = there.valid[i]
            rows.append({"boxes": there.boxes[i][mine], "labels": there.labels[i][mine] + 1})
            if there.masks is not None:
                rows[-1]["masks"] = there.masks[i][mine].to(torch.uint8)
        losses: Losses = self.model.train()([*(batch.images.float() / 255)], rows)
        return losses

    def predict(self, images: Tensor) -> Detections:
        """Torchvision's detections, padded."""
        found = self.model.eval()([*(images.float() / 255)])
        shape = (len(images), self.rows)
        boxes, scores, labels = torch.zeros(*shape, 4), torch.zeros(shape), torch.zeros(shape, dtype=torch.int64)
        masks = torch.zeros(*shape, 28, 28) if "masks" in found[0] else None
        for i, each in enumerate(found):
            count = len(each["scores"])
            boxes[i, :count], scores[i, :count], labels[i, :count] = each["boxes"], each["scores"], each["labels"] - 1
            if masks is not None:
                masks[i, :count] = each["masks"][:, 0]
        return Detections(boxes, scores, labels, scores > 0, masks)


def two_stages(name: str, num_classes: int, size: tuple[int, int], rows: int) -> TwoStages:
    """Faster R-CNN or Mask R-CNN of torchvision on the common trunk, as large as torso's."""
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    body = Pyramid()
    levels = ["0", "1", "2", "3"]
    given: dict[str, Any] = {
        "image_mean": body.trunk.mean,
        "image_std": body.trunk.std,
        "min_size": min(size),
        "max_size": max(size),
        "rpn_anchor_generator": AnchorGenerator(tuple((16 * 2**i,) for i in range(5)), ((0.5, 1.0, 2.0),) * 5),
        "rpn_head": RPNHead(CHANNELS, 3),
        "box_roi_pool": MultiScaleRoIAlign(levels, 7, 2, canonical_scale=CANONICAL),
        "box_head": TwoMLPHead(CHANNELS * 49, HIDDEN),
        "box_predictor": FastRCNNPredictor(HIDDEN, num_classes + 1),
        "box_batch_size_per_image": 128,
        "box_score_thresh": 0.02,
        "box_detections_per_img": rows,
    }
    for mode in ("train", "test"):
        given |= {f"rpn_pre_nms_top_n_{mode}": 500, f"rpn_post_nms_top_n_{mode}": 300}
    if name == "faster_rcnn":
        return TwoStages(FasterRCNN(body, **given), num_classes, rows)
    of_masks = {
        "mask_roi_pool": MultiScaleRoIAlign(levels, 14, 2, canonical_scale=CANONICAL),
        "mask_head": MaskRCNNHeads(CHANNELS, (MASKS, MASKS), 1),
        "mask_predictor": MaskRCNNPredictor(MASKS, MASKS, num_classes + 1),
    }
    return TwoStages(MaskRCNN(body, **given, **of_masks), num_classes, rows)
