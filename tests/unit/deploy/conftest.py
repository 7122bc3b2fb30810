"""Small models that see something, and one file made of a detector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from torso.assigners import MaxIoU
from torso.backbones.tiny import Tiny
from torso.boxes.coders import Delta
from torso.boxes.priors import Anchors
from torso.boxes.suppress import BatchedNMS
from torso.criteria import ClassifyCriterion, DenseCriterion
from torso.deploy import onnx
from torso.heads import Classify, Retina
from torso.losses import L1, CrossEntropy, Focal
from torso.models import Classifier, Detector
from torso.necks import FPN

CLASSES = ["ball", "Würfel", "kegel"]
SIZE = 96


def settled(model: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics of norms that are not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def small_detector() -> Detector:
    torch.manual_seed(0)
    body = Tiny(widths=(8, 16, 16), levels=(2, 3))
    neck = FPN(body.channels, body.strides, channels=16, extra=1)
    anchors = Anchors(neck.strides, octaves=1)
    head = Retina(neck.channels, len(CLASSES), anchors.per_cell, depth=1)
    model = Detector(
        body,
        neck,
        head,
        anchors,
        Delta(),
        DenseCriterion(MaxIoU(), Focal(), L1(), Delta()),
        BatchedNMS(0.5, 40),
        num_classes=len(CLASSES),
        topk=60,
    )
    # Untrained, it would find nothing, and every file would be equal to it.
    nn.init.normal_(head.class_logits.weight, std=0.2)
    nn.init.normal_(head.box_deltas.weight, std=0.02)
    nn.init.constant_(head.class_logits.bias, -2.0)
    return settled(model)


def small_classifier() -> Classifier:
    torch.manual_seed(0)
    body = Tiny(widths=(8, 16), levels=(2,))
    model = Classifier(body, Classify(body.channels, len(CLASSES)), ClassifyCriterion(CrossEntropy()), len(CLASSES))
    return settled(model)


@pytest.fixture
def detector() -> Detector:
    return small_detector()


@pytest.fixture
def classifier() -> Classifier:
    return small_classifier()


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of ``small_detector``; never write to it."""
    metadata = {"classes": CLASSES, "class_ids": [7, 8, 21], "recipe": {"model": {"name": "detector"}}}
    path = tmp_path_factory.mktemp("export") / "detector.onnx"
    return onnx.export(small_detector(), path, size=SIZE, metadata=metadata)
