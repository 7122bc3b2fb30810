"""Sums of losses over scores that are nearly all 0: the same number and gradient as with the targets written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torso.losses import LOSSES, Focal, one_hot
from torso.losses.reduction import Loss


def case(rows: int = 37, classes: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, rows, classes, generator=generator, dtype=dtype) * 4).requires_grad_()
    labels = torch.randint(0, classes, (2, rows), generator=generator)
    score = torch.rand(2, rows, generator=generator, dtype=dtype) * (torch.rand(2, rows, generator=generator) > 0.6)
    weight = torch.rand(2, rows, generator=generator, dtype=dtype) * (torch.rand(2, rows, generator=generator) > 0.2)
    return logits, labels, score, weight


def written_out(loss: Loss, logits: Tensor, labels: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    target = torch.zeros_like(logits)
    for image in range(len(labels)):
        for prior, label in enumerate(labels[image].tolist()):
            target[image, prior, label] = score[image, prior]
    # Not times the weight afterwards: GHM counts only what weighs something.
    return loss(logits, target, weight=weight[..., None], reduction="sum")


SCORES = [name for name, loss in sorted(LOSSES.items()) if getattr(loss, "takes", None) == "scores"]
SMOOTHED = LOSSES["binary_cross_entropy"](label_smoothing=0.2)
OPTIONS = [Focal(alpha=a, gamma=g) for a in (-1.0, 0.25, 1.0) for g in (0.0, 0.5, 1.0, 2.0, 3.0)]


@pytest.mark.part("loss/focal")
@pytest.mark.parametrize("loss", [*OPTIONS, *(LOSSES[name]() for name in SCORES), SMOOTHED], ids=str)
def test_equals_targets_written_out(loss: Loss) -> None:
    inputs = case()
    found, expected = loss.at_labels(*inputs), written_out(loss, *inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(3 * x, inputs[0])[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.part("loss/focal")
def test_the_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, loss = case(), Focal()
    whole = loss.at_labels(*inputs)
    monkeypatch.setattr(one_hot, "PIECE", 7)
    pieces = loss.at_labels(*inputs)
    torch.testing.assert_close(pieces, whole, rtol=1e-13, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, inputs[0])[0] for x in (pieces, whole)), rtol=1e-13, atol=0)


@pytest.mark.part("loss/focal")
def test_a_graph_may_be_walked_twice() -> None:
    inputs = case()
    loss = Focal().at_labels(*inputs)
    first = torch.autograd.grad(2 * loss, inputs[0], retain_graph=True)[0].clone()
    second = torch.autograd.grad(2 * loss, inputs[0], retain_graph=True)[0].clone()
    third = torch.autograd.grad(2 * loss, inputs[0])[0]
    torch.testing.assert_close(second, first, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(third, first, rtol=1e-12, atol=1e-15)


@pytest.mark.part("loss/focal")
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_compiled_it_is_one_graph_and_the_same(rows: int) -> None:
    inputs, loss = case(rows, dtype=torch.float32), Focal()
    compiled = torch.compile(loss.at_labels, fullgraph=True, backend="aot_eager")
    found, expected = compiled(*inputs), loss.at_labels(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    ours, theirs = (torch.autograd.grad(x, inputs[0])[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.part("loss/focal")
def test_extreme_logits_stay_finite_and_right() -> None:
    logits = torch.tensor([[[-200.0, -30.0, 0.0, 30.0, 200.0]]], requires_grad=True)
    labels, score, weight = torch.tensor([[4]]), torch.ones(1, 1), torch.ones(1, 1)
    loss = Focal(alpha=-1).at_labels(logits, labels, score, weight)
    assert float(loss.detach()) == pytest.approx(30 + 0.25 * 0.6931472, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert float(gradient[0, 0, 3]) == pytest.approx(1)


@pytest.mark.part("loss/cross_entropy")
@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_rows_of_softmax_equal_torch(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(50, 7, generator=generator, dtype=torch.float64) * spread).requires_grad_()
    classes = torch.randint(0, 7, (50,), generator=generator)
    classes[::5] = 255
    weight = torch.rand(50, generator=generator, dtype=torch.float64)
    found = LOSSES["cross_entropy"]().at_classes(logits, classes)
    expected = torch.nn.functional.cross_entropy(logits, classes, reduction="none", ignore_index=255)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    for _ in range(2):  # the second time the softmax is made anew
        ours = torch.autograd.grad((found * weight).sum(), logits, retain_graph=True)[0].clone()
        theirs = torch.autograd.grad((expected * weight).sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
