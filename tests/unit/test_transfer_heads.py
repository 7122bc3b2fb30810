"""Other classes for a model that has learned: the layers of class logits begin anew, nothing else moves."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torso.assigners import MaxIoU
from torso.backbones import Tiny
from torso.boxes.coders import Delta
from torso.boxes.priors import PRIORS
from torso.boxes.suppress import SUPPRESSORS
from torso.config import ModelError
from torso.criteria import ClassifyCriterion, DenseCriterion
from torso.heads import HEADS, Classify, Retina
from torso.losses import LOSSES, CrossEntropy
from torso.models import Classifier, Detector, append_head, replace_head
from torso.necks import FPN
from torso.nn.freeze import freeze, linear_probe
from torso.structures import Batch, Targets
from torso.train import optim

FITTING: dict[str, dict[str, Any]] = {
    "roi_crop": {"in_channels": [3], "backbone": Tiny(widths=(4, 8), levels=(2,))},
    "roi_stage": {"in_channels": [16]},
}
"""Heads that want other levels, and what they stand on."""


def classifier(classes: int = 7) -> Classifier:
    body = Tiny(widths=(4, 6), levels=(2,))
    return Classifier(body, Classify(body.channels, classes), ClassifyCriterion(CrossEntropy()), classes)


def detector(classes: int = 80) -> Detector:
    body = Tiny(widths=(4, 6, 8), levels=(2, 3))
    neck = FPN(body.channels, body.strides, 8)
    priors, coder = PRIORS["anchors"](strides=neck.strides), Delta()
    head = Retina(neck.channels, classes, priors.per_cell, coder.size, depth=1)
    criterion = DenseCriterion(MaxIoU(), LOSSES["focal"](), LOSSES["l1"](), coder)
    suppress = SUPPRESSORS["batched_nms"]()
    return Detector(body, neck, head, priors, coder, criterion, suppress, num_classes=classes)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def check_all_else_stays(model: nn.Module, before: dict[str, Tensor], new: list[str]) -> None:
    after = model.state_dict()
    assert list(after) == list(before), "tensors keep their names and their order"
    for name, x in after.items():
        assert (name in new) or torch.equal(x, before[name]), name


@pytest.mark.part("transfer/append_head")
def test_a_classifier_gets_other_classes() -> None:
    model = classifier()
    before, images = state(model), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    report = replace_head(model, 3)
    check_all_else_stays(model, before, ["head.linear.weight", "head.linear.bias"])
    assert report.names("re-initialised") == ["head.linear.weight", "head.linear.bias"]
    assert report.names("missing") == report.names("unexpected") == []
    assert model(images).shape == (2, 3)
    assert model.num_classes == 3


@pytest.mark.part("transfer/append_head", "init/prior_bias")
def test_a_detector_of_80_classes_gets_3() -> None:
    model = detector().eval()
    before, images = state(model), torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    boxes = model(images).boxes
    report = replace_head(model, 3)
    new = ["head.class_logits.weight", "head.class_logits.bias"]
    check_all_else_stays(model, before, new)
    assert report.names("re-initialised") == new
    output = model(images)
    assert output.logits.shape[-1] == model.num_classes == 3
    assert torch.equal(output.boxes, boxes), "it still knows where things are"
    bias = torch.full((3 * model.prior.per_cell[0],), -math.log(99.0))  # a prior probability of 0.01
    assert torch.equal(model.head.class_logits.bias, bias)
    assert float(model.state_dict()[new[0]].std()) == pytest.approx(0.01, rel=0.2)
    boxes, there = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]] * 2), torch.ones(2, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.full((2, 1), 2), there, ~there)
    losses = model.losses(Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 32)))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.part("transfer/append_head")
@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_takes_other_classes(name: str) -> None:
    wired = {"in_channels": [16, 16], "strides": [8, 16], "num_classes": 5, "num_priors": [2, 2], "coder_size": 4}
    wired |= FITTING.get(name, {})
    known = inspect.signature(HEADS[name]).parameters
    torch.manual_seed(0)
    body = Tiny(widths=(16, 16), levels=(1, 2))
    model = Classifier(body, nn.Identity(), ClassifyCriterion(CrossEntropy()), 5)
    model.head = HEADS[name](**{key: value for key, value in wired.items() if key in known}).double().eval()
    before = state(model)
    report = replace_head(model, 9)
    new = report.names("re-initialised")
    check_all_else_stays(model, before, new)
    assert new
    assert all(5 * model.state_dict()[name].shape[0] == 9 * before[name].shape[0] for name in new)
    assert {x.dtype for x in model.head.parameters()} == {torch.float64}
    fresh = HEADS[name](**{key: 9 if key == "num_classes" else value for key, value in wired.items() if key in known})
    assert {n: x.shape for n, x in model.head.state_dict().items()} == {
        n: x.shape for n, x in fresh.state_dict().items()
    }
    for key, x in fresh.state_dict().items():
        if f"head.{key}" in new:  # drawn by the same rule as in a new head
            assert float(model.head.state_dict()[key].std()) == pytest.approx(float(x.std()), rel=0.3, abs=1e-6)


@pytest.mark.part("transfer/append_head")
def test_another_head_takes_over_what_fits() -> None:
    model = detector()
    priors, channels = model.prior.per_cell, model.neck.channels
    before = state(model)
    report = replace_head(model, 3, Retina(channels, 3, priors, depth=2))
    assert {name.split(".")[1] for name in report.names("missing")} == {"class_tower", "box_tower"}
    assert report.names("re-initialised") == ["head.class_logits.weight", "head.class_logits.bias"]
    assert torch.equal(model.head.box_deltas.weight, before["head.box_deltas.weight"])
    assert torch.equal(model.head.box_tower[0][0].weight, before["head.box_tower.0.0.weight"])


@pytest.mark.part("transfer/append_head")
def test_a_layer_is_appended_and_trained_alone() -> None:
    model = classifier()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    old = model.eval()(images)
    before = state(model)
    report = append_head(model, 2)
    assert report.names("missing") == ["head.linear.weight", "head.linear.bias"]
    assert set(report.names("loaded")) == {n.replace("head.", "head.head.") for n in before}
    assert torch.equal(model.head.head(model.backbone(model.normalize(images))), old)
    assert torch.equal(model(images), model.head.linear(old))
    assert model.num_classes == 2
    linear_probe(model)
    freeze(model, ["head.head"])
    now = state(model)
    optimizer = torch.optim.SGD(optim.groups(model.train(), 0.1, 0.0), 0.1)
    batch = Batch(
        images, Targets.of_classes(torch.tensor([0, 1, 1, 0])), torch.arange(4), torch.eye(3), torch.zeros(4, 2)
    )
    sum(model.losses(batch).values()).backward()
    optimizer.step()
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, now[name])}
    assert changed == {"head.linear.weight", "head.linear.bias"}
    assert replace_head(model, 5).names("re-initialised") == ["head.linear.weight", "head.linear.bias"]
    assert model(images).shape == (4, 5)


@pytest.mark.part("transfer/append_head")
def test_heads_that_cannot() -> None:
    model = classifier()
    model.head = nn.Flatten()
    with pytest.raises(ModelError, match="the head Flatten cannot be given other classes"):
        replace_head(model, 3)
    with pytest.raises(ModelError, match="at least one class, not 0"):
        replace_head(classifier(), 0)
    with pytest.raises(ModelError, match="on the logits of a classifier, not of a Detector"):
        append_head(detector(), 3)  # type: ignore[arg-type]


@pytest.mark.part("transfer/fine_tune_all_weights")
def test_fine_tuning_moves_all_weights_the_backbone_at_a_smaller_rate() -> None:
    """After one step of plain SGD every parameter has moved by its group's rate times its gradient."""
    torch.manual_seed(0)
    model = classifier()
    replace_head(model, 3)
    model.train()
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    batch = Batch(images, Targets.of_classes(torch.arange(8) % 3), torch.arange(8), torch.eye(3), torch.zeros(8, 2))
    optimizer = torch.optim.SGD(optim.groups(model, 0.1, 0.0, backbone_factor=0.1), 0.1)
    sum(model.losses(batch).values()).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name, p in model.named_parameters():
        rate = 0.01 if name.startswith("backbone.") else 0.1
        assert p.grad is not None
        assert float(p.grad.abs().max()) > 0, name
        torch.testing.assert_close(p.detach(), before[name] - rate * p.grad)
