"""Heads: features to raw outputs.

Dense heads are constructed with ``in_channels`` (of every level), ``num_classes`` (logits a prior: one more than there
are classes where the class loss is a softmax with a background), ``num_priors`` (priors a cell, of every level, kept as
an attribute), ``coder_size`` (numbers a box takes) and ``branches`` (what else the criterion asks for, names out of
`torso.heads.dense.BRANCHES`), all wired; called with ``Features`` they return `torso.heads.dense.HeadOutput`, raw:
what makes scores of it is the same for all of them (`torso.models.Detector`).
Heads of regions take ``in_channels`` and ``num_classes`` alike, and ``coder_size``, ``num_boxes`` (classes that have a
box of their own, or 1) and ``region_size`` (cells along a side); ``maps(features)`` is what regions are cut out of,
and called with ``[B, R, C, S, S]`` they return `torso.heads.region.RoIOutput`. Heads of masks take ``in_channels``
and ``num_classes``; called with the same they return ``[B, R, K, 2S, 2S]``, and ``of_labels(regions, labels)`` is the
mask of one class of each region. Heads of queries take ``in_channels``, ``strides`` and ``num_classes``, have
``of_queries = True``, and called with ``(features, real, size)`` they return `torso.structures.QueryOutput`
(`torso.models.QueryDetector`). Heads of corners take ``in_channels`` (of levels of one stride) and ``num_classes``,
and return `torso.heads.corner.CornerMaps` of each level. Classification heads take ``in_channels`` and ``num_classes``
and return ``[B, C]`` logits. Every head, or the heads it is made of, has ``reset_classes(num_classes)``: new layers of
class logits, all else as it was.
"""

from __future__ import annotations

from torch import nn

from torso.heads.centernet import CenterNet
from torso.heads.classify import Classify
from torso.heads.corner import Corner, CornerTriplets
from torso.heads.deformable_detr import DeformableDETR
from torso.heads.densebox import DenseBox
from torso.heads.detr import DETR
from torso.heads.efficientdet import EfficientDet
from torso.heads.fcos import FCOS
from torso.heads.rep_points import RepPoints
from torso.heads.retina import Retina
from torso.heads.rfcn import RFCN
from torso.heads.roi_box import RoIBox
from torso.heads.roi_crop import RoICrop
from torso.heads.roi_mask import RoIMask
from torso.heads.roi_stage import RoIStage
from torso.heads.rpn import RPN
from torso.heads.small_objects import SmallObjects
from torso.heads.ssd import SSD
from torso.heads.yolo import YOLO
from torso.heads.yolov1 import YOLOv1
from torso.heads.yolox import YOLOX

HEADS: dict[str, type[nn.Module]] = {
    "centernet": CenterNet,
    "classify": Classify,
    "corner": Corner,
    "corner_triplets": CornerTriplets,
    "deformable_detr": DeformableDETR,
    "densebox": DenseBox,
    "detr": DETR,
    "efficientdet": EfficientDet,
    "fcos": FCOS,
    "rep_points": RepPoints,
    "retina": Retina,
    "rfcn": RFCN,
    "roi_box": RoIBox,
    "roi_crop": RoICrop,
    "roi_stage": RoIStage,
    "roi_mask": RoIMask,
    "rpn": RPN,
    "small_objects": SmallObjects,
    "ssd": SSD,
    "yolo": YOLO,
    "yolov1": YOLOv1,
    "yolox": YOLOX,
}
