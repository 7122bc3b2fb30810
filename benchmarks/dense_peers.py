"""The peers of `dense.py`: torchvision's detectors as models of torso's engine, and Ultralytics by its own trainer."""

from __future__ import annotations

import contextlib
import io
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torso.backbones import BACKBONES
from torso.data import Index
from torso.evaluate.predictions import Predictions
from torso.structures import Batch, Detections, Features, Losses

CHANNELS, ROWS = 96, 100


class Pyramid(nn.Module):
    """The trunk all systems stand on, and torchvision's own feature pyramid, for its detectors."""

    def __init__(self, levels: int = 4):
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        self.trunk = BACKBONES["timm"]("tf_efficientnet_lite0", weights="imagenet", frozen_stages=1)
        extra = LastLevelMaxPool() if levels == 4 else None
        self.fpn = FeaturePyramidNetwork(self.trunk.channels, CHANNELS, extra, norm_layer=nn.BatchNorm2d)
        self.out_channels: Any = CHANNELS

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pictures, normalised, to named levels of strides 8 to 64."""
        features: Features = self.trunk(images)
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(features)))
        return levels


class Torchvision(nn.Module):
    """A detector of torchvision with the two calls that torso's engine makes."""

    task = "detect"

    def __init__(self, model: nn.Module, num_classes: int, first: int = 0):
        super().__init__()
        self.model, self.num_classes, self.first = model, num_classes, first
        self.backbone = model.backbone  # for the rate of the trunk

    def losses(self, batch: Batch) -> Losses:
        """Torchvision's losses of torso's batch."""
        there = batch.targets
        rows = [
            {"boxes": there.boxes[i][there.valid[i]], "labels": there.labels[i][there.valid[i]] + self.first}
            for i in range(len(batch))
        ]
        losses: Losses = self.model.train()([*(batch.images.float() / 255)], rows)
        return losses

    def predict(self, images: Tensor) -> Detections:
        """Torchvision's detections, padded."""
        found = self.model.eval()([*(images.float() / 255)])
        boxes = images.new_zeros(len(images), ROWS, 4, dtype=torch.float32)
        scores, labels = boxes[..., 0].clone(), boxes[..., 0].long()
        for i, each in enumerate(found):
            count = min(len(each["scores"]), ROWS)
            boxes[i, :count], scores[i, :count] = each["boxes"][:count], each["scores"][:count]
            labels[i, :count] = each["labels"][:count] - self.first
        return Detections(boxes, scores, labels, scores > 0)


def torchvisions(name: str, num_classes: int, size: tuple[int, int]) -> Torchvision:
    """RetinaNet (version 2: group norm and GIoU), FCOS or SSD of torchvision on the common trunk."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
    from torchvision.models.detection.ssd import SSD

    body = Pyramid()
    common: dict[str, Any] = {"image_mean": body.trunk.mean, "image_std": body.trunk.std}
    sides = {"min_size": min(size), "max_size": max(size)}
    kept = {"score_thresh": 0.02, "nms_thresh": 0.5, "detections_per_img": ROWS}
    if name == "retinanet":
        octaves = tuple(tuple(3 * s * 2 ** (i / 3) for i in range(3)) for s in (8, 16, 32, 64))
        anchors = AnchorGenerator(octaves, ((0.5, 1.0, 2.0),) * 4)
        head = RetinaNetHead(CHANNELS, 9, num_classes, norm_layer=lambda channels: nn.GroupNorm(32, channels))
        head.regression_head._loss_type = "giou"
        model = RetinaNet(body, num_classes, anchor_generator=anchors, head=head, **common, **sides, **kept)
        return Torchvision(model, num_classes)
    if name == "fcos":
        anchors = AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4)
        model = FCOS(body, num_classes, anchor_generator=anchors, **common, **sides, **kept)
        return Torchvision(model, num_classes)
    body.out_channels = [CHANNELS] * 4
    boxes = DefaultBoxGenerator([[2, 3]] * 4, min_ratio=0.1, max_ratio=0.9, steps=[8, 16, 32, 64])
    model = SSD(body, boxes, (size[1], size[0]), num_classes + 1, **common, **kept)
    # Its transform stretches every picture to a square of `size[0]`; ours have their size already.
    model.transform.fixed_size = (size[0], size[1])
    return Torchvision(model, num_classes, first=1)


def ultralytics(data: Path, size: int, epochs: int, batch: int, folder: Path) -> tuple[Any, float]:
    """Ultralytics' smallest detector from scratch by its own trainer: the model and the seconds it took."""
    from ultralytics import YOLO

    model = YOLO("yolov8n.yaml", verbose=False)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        model.train(
            data=str(data),
            epochs=epochs,
            imgsz=size,
            batch=batch,
            device="cpu",
            workers=2,
            seed=0,
            plots=False,
            verbose=False,
            pretrained=False,
            project=str(folder),
            name="ultralytics",
            exist_ok=True,
        )
    return model, time.perf_counter() - start


def predictions(model: Any, index: Index, size: int) -> Predictions:
    """Ultralytics' detections on the pictures of an index, in their pixels."""
    images: list[int] = []
    boxes: list[Sequence[float]] = []
    scores: list[float] = []
    labels: list[int] = []
    for row in range(len(index)):
        (found,) = model.predict(
            str(index.file(row)), imgsz=size, conf=0.02, iou=0.5, max_det=ROWS, verbose=False, device="cpu"
        )
        kept = found.boxes
        images += [row] * len(kept)
        boxes += kept.xyxy.tolist()
        scores += kept.conf.tolist()
        labels += [int(label) for label in kept.cls.tolist()]
    return Predictions.of(images, boxes, scores, labels, seen=np.arange(len(index)))
