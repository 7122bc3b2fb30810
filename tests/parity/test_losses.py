"""Losses against torch, torchvision, timm and transformers: values and gradients in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import ops

from tests.parity.test_parts import boxes, check, normal
from torso.losses import (
    MSE,
    BinaryCrossEntropy,
    CIoU,
    CrossEntropy,
    DIoU,
    DistributionFocal,
    GeneralizedFocal,
    IoU,
    KLBox,
    KLDivergence,
    LabelSmoothing,
    QualityFocal,
    SoftmaxFocal,
    Varifocal,
)


def soft(*shape: int, seed: int = 1) -> Tensor:
    return torch.sigmoid(normal(*shape, seed=seed) * 2)


def classes(*shape: int, count: int = 7) -> Tensor:
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.part("loss/diou", "loss/ciou")
def test_distance_and_complete_iou_are_torchvisions():
    first, second = boxes(300), boxes(300, seed=1)
    first[:20] = second[:20] + 200  # disjoint
    check(DIoU(), lambda a, b: ops.distance_box_iou_loss(a, b, eps=0), first, second)
    answers = []
    for loss in (CIoU(), ops.complete_box_iou_loss):  # where an epsilon of 1e-7 cannot be set to 0
        leaves = [x.clone().requires_grad_() for x in (first, second)]
        cost = loss(*leaves)
        answers.append((cost, *torch.autograd.grad((cost * normal(300, seed=9)).sum(), leaves)))
    for mine, other in zip(*answers, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=2e-8)
    flat = torch.tensor([[5.0, 5, 5, 9], [5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]], dtype=torch.float64)
    other = torch.tensor([[5.0, 5, 5, 9], [5, 5, 5, 5], [7, 8, 7, 8], [4, 4, 4, 4]], dtype=torch.float64)
    torch.testing.assert_close(DIoU()(flat, other), ops.distance_box_iou_loss(flat, other), rtol=1e-6, atol=1e-6)


@pytest.mark.part("loss/iou")
def test_iou_is_torchvisions():
    first, second = boxes(50), boxes(50, seed=1)

    def overlap(a: Tensor, b: Tensor) -> Tensor:
        return ops.box_iou(a, b).diagonal()

    check(IoU("linear"), lambda a, b: 1 - overlap(a, b), first, second)
    check(IoU("square"), lambda a, b: 1 - overlap(a, b) ** 2, first, second)
    near = first + normal(50, 4, seed=3) * 0.01
    check(IoU("log"), lambda a, b: -overlap(a, b).clamp(min=1e-6).log(), first, near)


@pytest.mark.part("loss/binary_cross_entropy")
@pytest.mark.parametrize("factor", [None, 3.0, [0.5, 1.0, 2.0, 4.0]])
def test_binary_cross_entropy_is_torchs(factor):
    x, target = normal(12, 4), soft(12, 4)
    theirs = None if factor is None else torch.tensor(factor, dtype=torch.float64).expand(4)
    check(
        lambda x: BinaryCrossEntropy(pos_weight=factor)(x, target),
        lambda x: functional.binary_cross_entropy_with_logits(x, target, reduction="none", pos_weight=theirs),
        x,
    )
    ours = BinaryCrossEntropy()(x, target, reduction="mean")
    torch.testing.assert_close(ours, functional.binary_cross_entropy_with_logits(x, target))


@pytest.mark.part("loss/binary_cross_entropy")
def test_binary_cross_entropy_ignores_and_smooths_as_timm_does():
    timm = pytest.importorskip("timm.loss")
    x, target = normal(12, 4), classes(12, count=4)
    one_hot = functional.one_hot(target, 4).double()
    theirs = timm.BinaryCrossEntropy(smoothing=0.2, reduction="none")(x, target)
    # timm spreads it over C classes: 0.2 / 4 off, and 1 - 0.2 + 0.2 / 4 on; ours draws to one half, as for two.
    on, off = 1 - 0.2 + 0.05, 0.05
    torch.testing.assert_close(theirs, BinaryCrossEntropy()(x, one_hot * (on - off) + off))
    two = timm.BinaryCrossEntropy(smoothing=0.2, reduction="none")(x[:, :2], target % 2)
    torch.testing.assert_close(BinaryCrossEntropy(0.2)(x[:, :2], functional.one_hot(target % 2, 2).double()), two)


@pytest.mark.part("loss/label_smoothing", "loss/cross_entropy")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_is_torchs_and_timms(smoothing):
    timm = pytest.importorskip("timm.loss")
    x, target = normal(12, 7), classes(12)
    ours = LabelSmoothing(smoothing)
    check(
        lambda x: ours(x, target),
        lambda x: functional.cross_entropy(x, target, reduction="none", label_smoothing=smoothing),
        x,
    )
    theirs = timm.LabelSmoothingCrossEntropy(smoothing)(x, target)
    torch.testing.assert_close(ours(x, target, reduction="mean"), theirs)
    ignored = torch.where(torch.arange(12) % 3 == 0, 255, target)
    mean = nn.CrossEntropyLoss(ignore_index=255)(x, ignored)
    torch.testing.assert_close(CrossEntropy()(x, ignored, reduction="mean"), mean)


@pytest.mark.part("loss/kl_divergence")
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0, 0.5])
def test_kl_divergence_is_torchs(temperature):
    """As in distillation: both softened, times the square of the temperature."""
    student, teacher = normal(12, 7), normal(12, 7, seed=1) * 3

    def theirs(x: Tensor) -> Tensor:
        soft = (teacher / temperature).softmax(1)
        loss = nn.KLDivLoss(reduction="none")((x / temperature).log_softmax(1), soft)
        return loss.sum(1) * temperature**2

    check(lambda x: KLDivergence(temperature)(x, teacher.softmax(1)), theirs, student)


@pytest.mark.part("loss/mse")
def test_squares_are_torchs():
    x, target = normal(12, 4), normal(12, 4, seed=1)
    check(MSE(), lambda a, b: functional.mse_loss(a, b, reduction="none").sum(1), x, target)
    score = soft(12, 4)
    check(
        lambda x: MSE("scores")(x, score),
        lambda x: functional.mse_loss(x.sigmoid(), score, reduction="none"),
        x,
    )


@pytest.mark.part("loss/quality_focal", "loss/generalized_focal")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
def test_quality_focal_of_hard_targets_is_torchvisions_focal(gamma):
    x, target = normal(12, 7) * 3, soft(12, 7).round()
    for ours in (QualityFocal(gamma), GeneralizedFocal(beta=gamma)):
        check(
            lambda x, ours=ours: ours(x, target),
            lambda x: ops.sigmoid_focal_loss(x, target, alpha=-1, gamma=gamma),
            x,
            rtol=1e-7,
        )


@pytest.mark.part("loss/softmax_focal")
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_softmax_focal_of_two_classes_is_torchvisions_focal(gamma):
    x, target = normal(12, 2) * 2, classes(12, count=2)
    check(
        lambda x: SoftmaxFocal(gamma, alpha=0.25)(x, target),
        lambda x: ops.sigmoid_focal_loss(x[:, 0] - x[:, 1], 1 - target.double(), alpha=0.25, gamma=gamma),
        x,
        rtol=1e-7,
    )


@pytest.mark.part("loss/distribution_focal")
def test_distribution_focal_is_that_of_transformers():
    module = pytest.importorskip("transformers.loss.loss_d_fine")
    x, sides = normal(12, 4 * 8), soft(12, 4) * 7

    def theirs(x: Tensor) -> Tensor:
        right = (sides - sides.floor()).flatten()
        loss = module.DFineLoss.unimodal_distribution_focal_loss(
            None, x.reshape(-1, 8), sides.flatten(), right, 1 - right, reduction="none"
        )
        return loss.reshape(12, 4).sum(1)

    check(lambda x: DistributionFocal()(x, sides), theirs, x)


@pytest.mark.part("loss/varifocal")
def test_varifocal_is_that_of_transformers():
    """Of one picture whose query i has learned object i. There the factors have no gradient."""
    module = pytest.importorskip("transformers.loss.loss_rt_detr")
    loss = object.__new__(module.RTDetrLoss)
    nn.Module.__init__(loss)
    loss.num_classes, loss.alpha, loss.gamma = 7, 0.75, 2.0
    guess, truth, label = boxes(5) / 100, boxes(5, seed=1) / 100, classes(5)
    guess = truth * 0.9 + guess * 0.1
    logits = normal(1, 12, 7) * 2
    boxes_of = torch.cat([guess, boxes(7, seed=4) / 100])[None]
    indices = [(torch.arange(5), torch.arange(5))]
    targets = [{"class_labels": label, "boxes": ops.box_convert(truth, "xyxy", "cxcywh")}]
    outputs = {"logits": logits, "pred_boxes": ops.box_convert(boxes_of, "xyxy", "cxcywh")}
    theirs = loss.loss_labels_vfl(outputs, targets, indices, num_boxes=5)["loss_vfl"]
    target = torch.zeros(1, 12, 7, dtype=torch.float64)
    target[0, torch.arange(5), label] = ops.box_iou(guess, truth).diagonal()
    assert (target > 0).sum() == 5, "a positive without overlap is a negative in the paper's formula, and not theirs"
    ours = Varifocal()(logits, target)
    torch.testing.assert_close(ours.sum() / 5, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.part("loss/kl_box")
def test_kl_box_is_the_divergence_from_a_gaussian():
    """Within 1, twice the loss is torch's Gaussian likelihood; beyond, its distance grows linearly."""
    guess, target, variance = normal(12, 4) * 0.2, normal(12, 4, seed=1) * 0.2, normal(12, 4, seed=2)
    check(
        lambda x, a: KLBox()(torch.cat([x, a], dim=1), target),
        lambda x, a: functional.gaussian_nll_loss(x, target, a.exp(), reduction="none", eps=1e-12).sum(1),
        guess,
        variance,
    )
