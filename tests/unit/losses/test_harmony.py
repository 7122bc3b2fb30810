"""GHM against histograms written out, one element after the other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torso import testing
from torso.boxes.coders import CODERS
from torso.criteria import DenseCriterion
from torso.losses import GHMC, GHMR
from torso.losses.harmony import _histogram


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors(hardness: list[float], counted: list[bool], bins: int) -> list[float]:
    """Equation 9, with the bins that are not empty: N over the number of examples as hard, over the number of bins."""
    bin_of = [min(int(g * bins), bins - 1) for g in hardness]
    inside = [b for b, c in zip(bin_of, counted, strict=True) if c]
    share = len(inside) / max(len(set(inside)), 1)
    return [share / inside.count(b) if c else 0.0 for b, c in zip(bin_of, counted, strict=True)]


def entropy(x: float, t: float) -> float:
    s = 1 / (1 + math.exp(-x))
    return -(t * math.log(s) + (1 - t) * math.log(1 - s))


@pytest.mark.part("loss/ghm_c")
@pytest.mark.parametrize("bins", [1, 4, 30])
def test_ghm_c_is_the_histogram_of_its_gradients(bins):
    x, target = normal(6, 5) * 3, (normal(6, 5, seed=1) > 1).double()
    weight = torch.rand(6, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[[1, 4]] = 0
    counted = (weight != 0).expand(6, 5).flatten().tolist()
    hard = (x.sigmoid() - target).abs().flatten().tolist()
    expected = [
        f * entropy(float(a), float(t))
        for f, a, t in zip(factors(hard, counted, bins), x.flatten(), target.flatten(), strict=True)
    ]
    plain = torch.tensor(expected, dtype=torch.float64).reshape(6, 5)
    loss = GHMC(bins, momentum=0, total="elements")
    torch.testing.assert_close(loss(x, target, weight), plain * weight)
    # The paper's loss is a mean over the N that are counted: the sum over the positives, by default.
    ones = (weight != 0).double()
    positives = float((target * ones).sum())
    papers = plain.sum() / sum(counted)
    torch.testing.assert_close(loss(x, target, ones, "mean", avg_factor=sum(counted)), papers)
    torch.testing.assert_close(GHMC(bins, momentum=0)(x, target, ones, "mean", avg_factor=positives), papers)


@pytest.mark.part("loss/ghm_r")
@pytest.mark.parametrize("bins", [1, 4, 10])
def test_ghm_r_is_the_histogram_of_its_gradients(bins):
    mu = 0.3
    guess, target = normal(9, 4), normal(9, 4, seed=1)
    weight = torch.rand(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[[0, 5, 6]] = 0
    counted = (weight != 0)[:, None].expand(9, 4).flatten().tolist()
    apart = (guess - target).flatten().tolist()
    hard = [abs(d) / math.sqrt(d * d + mu * mu) for d in apart]
    costs = [f * (math.sqrt(d * d + mu * mu) - mu) for f, d in zip(factors(hard, counted, bins), apart, strict=True)]
    plain = torch.tensor(costs, dtype=torch.float64).reshape(9, 4).sum(1)
    torch.testing.assert_close(GHMR(mu, bins, momentum=0)(guess, target, weight), plain * weight)


@pytest.mark.part("loss/ghm_c", "loss/ghm_r")
def test_all_degrees_of_hardness_count_alike():
    """A thousand easy negatives and one hard one: the factors of each sum to half."""
    x = torch.full((1001,), -4.0, dtype=torch.float64)
    x[0] = 4
    loss = GHMC(bins=10, momentum=0, total="elements")
    cost = loss(x, torch.zeros_like(x))
    factor = cost / torch.nn.functional.softplus(x)
    assert float(factor[0]) == pytest.approx(1001 / 2)
    assert float(factor[1:].sum()) == pytest.approx(1001 / 2)


@pytest.mark.part("loss/ghm_c", "loss/ghm_r")
@pytest.mark.parametrize("loss", [GHMC(), GHMR()])
def test_what_weighs_nothing_is_not_there(loss):
    guess, target = normal(20, 4), (normal(20, 4, seed=1) > 0).double()
    weight = (torch.arange(20) % 3 != 0).double()
    there = weight > 0
    shaped = weight[:, None] if loss.takes == "scores" else weight
    a, b = type(loss)(), type(loss)()
    torch.testing.assert_close(a(guess, target, shaped)[there], b(guess[there], target[there]))
    torch.testing.assert_close(a.balance.seen, b.balance.seen)
    nothing = type(loss)()
    x = guess.clone().requires_grad_()
    value = nothing(x, target, shaped * 0, "sum")
    value.backward()
    assert float(value.detach()) == 0
    assert not x.grad.any()
    assert not nothing.balance.seen.any()


@pytest.mark.part("loss/ghm_c", "loss/ghm_r")
def test_counts_move_slowly_in_training_and_stand_still_otherwise():
    loss = GHMC(bins=2, momentum=0.75, total="elements")
    zero = torch.zeros(8)

    def see(easy: int) -> Tensor:
        return loss(torch.where(torch.arange(8) < easy, -3.0, 3.0), zero)

    see(8)
    assert loss.balance.seen.tolist() == [8, 0], "a bin begins with its first count"
    see(6)
    assert loss.balance.seen.tolist() == [0.75 * 8 + 0.25 * 6, 2], "an average of before and now"
    see(8)
    assert loss.balance.seen.tolist() == [0.75 * 7.5 + 0.25 * 8, 2], "a bin without examples stays as it is"
    loss.eval()
    cost = see(4)
    assert loss.balance.seen.tolist() == [7.625, 2]
    average = 0.75 * 7.625 + 0.25 * 4, 0.75 * 2 + 0.25 * 4
    for i, seen in ((0, average[0]), (7, average[1])):
        x = -3.0 if i == 0 else 3.0
        assert float(cost[i]) == pytest.approx(8 / seen / 2 * entropy(x, 0), rel=1e-5)
    other = GHMC(bins=2)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.balance.seen, loss.balance.seen)


@pytest.mark.part("loss/ghm_c")
def test_counts_beyond_the_digits_of_float32():
    many = torch.zeros(1, dtype=torch.int32).expand(1 << 25)
    assert _histogram(many, 2).tolist() == [1 << 25, 0]


@pytest.mark.part("loss/ghm_c")
def test_the_hardest_of_all_are_in_the_last_bin():
    x, target = torch.tensor([800.0, -3, -3, -3]), torch.zeros(4)
    cost = GHMC(bins=4, momentum=0, total="elements")(x, target)
    assert float(cost[0]) == pytest.approx(800 * 4 / 2)


@pytest.mark.part("loss/ghm_c", "loss/ghm_r")
@pytest.mark.parametrize("options", [{"bins": 0}, {"momentum": 1.0}, {"momentum": -0.1}])
@pytest.mark.parametrize("part", [GHMC, GHMR])
def test_impossible_options_are_refused(part, options):
    with pytest.raises(ValueError, match=r"bins is at least 1 and momentum in 0\.\.1"):
        part(**options)


@pytest.mark.part("loss/ghm_c", "loss/ghm_r")
@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_dense_criterion_of_both(count):
    """Its class loss, a sum over the number of positives, is the paper's mean over all that are learned."""
    output, targets = testing.dense_case(count)
    logits, deltas = output.logits.requires_grad_(), output.deltas.requires_grad_()
    criterion = DenseCriterion(testing.MaxIoU(), GHMC(momentum=0), GHMR(), CODERS["delta"]())
    losses = criterion(output, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert logits.grad.isfinite().all()
    assert deltas.grad.isfinite().all()
    assigned = testing.MaxIoU()(output, targets)
    learned = (assigned.positive | assigned.negative)[..., None].float()
    truth = torch.zeros_like(logits)
    for b, p in assigned.positive.nonzero().tolist():
        truth[b, p, targets.labels[b, assigned.matched[b, p]]] = 1
    mean = GHMC(momentum=0, total="elements")(logits, truth, learned, "mean", avg_factor=float(learned.sum()) * 3)
    torch.testing.assert_close(losses["class"], mean)
