"""Losses of keypoints against plain loops from the paper; extremes, padding, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torso.losses import LOSSES
from torso.losses.heatmap import AssociativeEmbedding, HeatmapFocal


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bumps(*shape: int, seed: int = 1) -> Tensor:
    """Targets in 0..1, some of them exactly 1, some exactly 0."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 - 1
    return x.clamp(0, 1)


def slow_focal(x: float, t: float, alpha: float, beta: float) -> float:
    p = 1 / (1 + math.exp(-x))
    if t == 1:
        return -((1 - p) ** alpha) * math.log(p)
    return -((1 - t) ** beta) * p**alpha * math.log(1 - p)


@pytest.mark.part("loss/heatmap_focal")
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 4.0), (0.0, 0.0), (1.5, 2.5), (3.0, 1.0)])
def test_heatmap_focal_is_the_papers_equation(alpha: float, beta: float) -> None:
    x, t = normal(4, 5) * 3, bumps(4, 5)
    assert (t == 1).any()
    assert (t == 0).any()
    found = HeatmapFocal(alpha, beta)(x, t)
    for i in range(4):
        for j in range(5):
            assert float(found[i, j]) == pytest.approx(slow_focal(float(x[i, j]), float(t[i, j]), alpha, beta))


@pytest.mark.part("loss/heatmap_focal")
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 4.0), (0.0, 0.0), (1.5, 2.5)])
def test_its_closed_gradient_is_the_slope(alpha: float, beta: float) -> None:
    loss, t = HeatmapFocal(alpha, beta), bumps(4, 5)
    assert torch.autograd.gradcheck(lambda x: loss(x, t), (normal(4, 5).requires_grad_(),))


@pytest.mark.part("loss/heatmap_focal")
def test_only_exactly_one_is_positive() -> None:
    x = torch.full((2,), -2.0, dtype=torch.float64, requires_grad=True)
    HeatmapFocal()(x, torch.tensor([1.0, 1 - 1e-12], dtype=torch.float64)).sum().backward()
    assert float(x.grad[0]) < -0.5, "a peak wants to rise"
    assert float(x.grad[1]) == pytest.approx(0), "beside it a score is hardly held down"


@pytest.mark.part("loss/heatmap_focal")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wild_logits_stay_finite(dtype: torch.dtype) -> None:
    x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype).requires_grad_()
    for target in (0.0, 0.5, 1.0):
        loss = HeatmapFocal()(x, torch.full_like(x, target))
        (slope,) = torch.autograd.grad(loss.sum(), x)
        assert loss.isfinite().all()
        assert slope.isfinite().all()
    assert float(loss.detach()[0]) == pytest.approx(1e4), "the logarithm of a score is its logit, far down"


@pytest.mark.part("loss/heatmap_focal")
def test_powers_below_0_are_refused() -> None:
    with pytest.raises(ValueError, match="powers of at least 0"):
        HeatmapFocal(alpha=-1)


def slow_embedding(said: list[list[float]], margin: float) -> tuple[float, float]:
    """Equations 4 and 5, of one picture."""
    n = len(said)
    mean = [sum(numbers) / len(numbers) for numbers in said]
    pull = sum((x - m) ** 2 for numbers, m in zip(said, mean, strict=True) for x in numbers) / max(n, 1)
    push = 0.0
    for k in range(n):
        for j in range(n):
            if j != k:
                push += max(0.0, margin - abs(mean[k] - mean[j]))
    return pull, push / max(n * (n - 1), 1)


@pytest.mark.part("loss/associative_embedding")
@pytest.mark.parametrize("margin", [1.0, 0.3])
@pytest.mark.parametrize("keypoints", [2, 3])
def test_embeddings_cost_what_the_papers_equations_say(margin: float, keypoints: int) -> None:
    x = normal(4, 7, keypoints)
    there = torch.tensor([[1, 0, 1, 1, 0, 1, 1], [1] * 7, [0, 0, 0, 1, 0, 0, 0], [0] * 7]).double()
    found = AssociativeEmbedding(0.7, 0.4, margin)(x, there).sum(dim=1)
    for i in range(4):
        pull, push = slow_embedding([x[i, k].tolist() for k in range(7) if there[i, k]], margin)
        assert float(found[i]) == pytest.approx(0.7 * pull + 0.4 * push)
    assert float(found[3]) == 0, "without objects there is nothing to learn"
    total = AssociativeEmbedding(0.7, 0.4, margin)(x, there, reduction="sum")
    torch.testing.assert_close(total, found.sum())


@pytest.mark.part("loss/associative_embedding")
def test_padding_says_what_it_likes() -> None:
    x = normal(2, 5, 2)
    there = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 1]]).double()
    wild = torch.where(there.bool()[..., None], x, torch.inf).requires_grad_()
    loss = AssociativeEmbedding()(wild, there, reduction="sum")
    torch.testing.assert_close(loss, AssociativeEmbedding()(x, there, reduction="sum"))
    loss.backward()
    assert wild.grad.isfinite().all()
    assert not wild.grad[there == 0].any()
    assert wild.grad[0][there[0] == 1].any()


@pytest.mark.part("loss/associative_embedding")
def test_a_weighted_object_costs_its_share() -> None:
    x, there = normal(2, 5, 2), torch.ones(2, 5, dtype=torch.float64)
    weight = torch.rand(2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss = AssociativeEmbedding()
    torch.testing.assert_close(loss(x, there, weight, "sum"), (loss(x, there) * weight).sum())


@pytest.mark.part("loss/associative_embedding")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_number_of_objects_has_a_true_gradient(count: int) -> None:
    x, there = normal(2, count, 2).requires_grad_(), torch.ones(2, count, dtype=torch.float64)
    loss = AssociativeEmbedding()(x, there, reduction="sum")
    assert loss.isfinite()
    if count and count <= 10:
        assert torch.autograd.gradcheck(lambda x: AssociativeEmbedding()(x, there), (x,))


@pytest.mark.part("loss/associative_embedding", "loss/heatmap_focal")
def test_both_are_listed() -> None:
    assert LOSSES["heatmap_focal"] is HeatmapFocal
    assert LOSSES["associative_embedding"] is AssociativeEmbedding
    with pytest.raises(ValueError, match="margin"):
        AssociativeEmbedding(margin=0)
