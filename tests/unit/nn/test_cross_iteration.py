"""Cross-iteration batch norm against batch norm, one big batch, and derivatives by finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from torso.nn.cross_norm import CrossIteration


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(iterations: int = 3, burn_in: int = 0, groups: int = 1) -> nn.Sequential:
    """A convolution and the norm, float64, in training."""
    conv = nn.Conv2d(2, 4, 3, padding=1, bias=False, groups=groups)
    net = nn.Sequential(conv, CrossIteration(4, iterations, burn_in)).double().train()
    with torch.no_grad():
        net[0].weight.copy_(normal(*conv.weight.shape, seed=1))
        net[1].weight.copy_(normal(4, seed=2))
        net[1].bias.copy_(normal(4, seed=3))
    return net


def as_batch_norm(norm: CrossIteration) -> nn.BatchNorm2d:
    other = nn.BatchNorm2d(norm.num_features).double()
    other.load_state_dict({k: v for k, v in norm.state_dict().items() if "extra" not in k})
    return other


def step(net: nn.Sequential, x: Tensor, rate: float) -> None:
    """One step of training: forward, backward, all weights move."""
    net.zero_grad()
    (net(x) * normal(len(x), 4, *x.shape[2:], seed=5)).sum().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(rate * torch.sign(parameter.grad) * (1 + parameter.abs()))


def check_is_batch_norm(norm: nn.Module, other: nn.BatchNorm2d, make: Callable[[], Tensor]) -> None:
    """Equal outputs, gradients and running statistics, to the bit."""
    results = []
    for layer in (norm, other):
        layer.zero_grad()
        x = make().clone().requires_grad_()
        y = layer(x * 1)
        (y * normal(*y.shape, seed=9)).sum().backward()
        results.append((y, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var))
    for mine, expected in zip(*results, strict=True):
        assert torch.equal(mine, expected)
    assert int(norm.num_batches_tracked) == int(other.num_batches_tracked)


@pytest.mark.part("norm/cbn")
def test_one_iteration_is_batch_norm_to_the_bit() -> None:
    net = pair(iterations=1)
    other = as_batch_norm(net[1])
    for seed in range(3):
        check_is_batch_norm(net[1], other, lambda seed=seed: normal(3, 4, 5, 5, seed=seed))
    assert torch.equal(net[1].eval()(normal(3, 4, 5, 5)), other.eval()(normal(3, 4, 5, 5)))
    assert net[1]._past.numel() == 0


@pytest.mark.part("norm/cbn")
def test_while_burning_in_it_is_batch_norm_and_then_no_more() -> None:
    net = pair(iterations=3, burn_in=2)
    conv, norm, other = net[0], net[1], as_batch_norm(net[1])
    for seed in range(5):
        x = normal(3, 2, 5, 5, seed=seed)
        difference = float((norm(conv(x)) - other(conv(x))).detach().abs().max())
        assert (difference < 1e-12) is (seed < 3), seed  # the third step has no past yet
    torch.testing.assert_close(norm.running_mean, other.running_mean)  # those learn from each batch alone
    torch.testing.assert_close(norm.running_var, other.running_var)


@pytest.mark.part("norm/cbn")
@pytest.mark.parametrize("frozen", [False, True])
def test_while_weights_rest_it_is_batch_norm_over_the_last_batches_together(frozen: bool) -> None:
    net = pair(iterations=3)
    net[0].requires_grad_(not frozen)
    batches = [normal(3, 2, 5, 5, seed=seed) * (1 + seed) + seed for seed in range(6)]
    for number, x in enumerate(batches):
        together = torch.cat(batches[max(number - 2, 0) : number + 1])
        expected = as_batch_norm(net[1]).train()(net[0](together))[-3:]
        torch.testing.assert_close(net(x), expected)
    assert net[1]._past.shape == (2, 2, 4, 1 if frozen else 19)  # never more than two past batches


def statistics(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """Mean and mean square of each channel, ``[2, C]``."""
    y = functional.conv2d(x, weight, padding=1, groups=groups)
    return torch.stack([y.mean((0, 2, 3)), y.square().mean((0, 2, 3))])


def taylor(x: Tensor, old: Tensor, new: Tensor, groups: int = 1) -> Tensor:
    """The slow reference: every derivative by a central difference, every weight by itself, all channels looked at."""
    total, small = statistics(x, old, groups), 1e-4
    for place in range(old.numel()):
        nudge = torch.zeros_like(old)
        nudge.view(-1)[place] = small
        slope = (statistics(x, old + nudge, groups) - statistics(x, old - nudge, groups)) / (2 * small)
        total = total + slope * (new - old).reshape(-1)[place]
    return total


def slow(x: Tensor, past: list[tuple[Tensor, Tensor]], weight: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """The paper's mean and variance over the current batch and past ones, each with the weights of its time."""
    every = [statistics(x, weight, groups), *(taylor(old_x, old, weight, groups) for old_x, old in past)]
    mean = torch.stack([mu for mu, _ in every]).mean(0)
    square = torch.stack([torch.maximum(nu, mu.square()) for mu, nu in every]).mean(0)
    return mean, square - mean.square()


@pytest.mark.part("norm/cbn")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rate", [0.02, 1.0], ids=["small steps", "steps so wide that variances are clamped"])
def test_equals_a_slow_reference_with_derivatives_by_finite_differences(rate: float, groups: int) -> None:
    net = pair(iterations=3, groups=groups)
    conv, norm = net
    past: list[tuple[Tensor, Tensor]] = []
    clamped = 0
    for seed in range(5):
        x, weight = normal(3, 2, 4, 4, seed=seed) + 0.5, conv.weight.detach().clone()
        mean, var = slow(x, past, weight, groups)
        y = conv(x)
        expected = (y - mean[:, None, None]) / (var + norm.eps).sqrt()[:, None, None]
        expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
        found = copy.deepcopy(norm)(y)  # a look ahead: the norm itself sees each batch once, in `step`
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        for old_x, old in past:
            mu, nu = taylor(old_x, old, weight, groups)
            clamped += int((nu < mu.square()).sum())
        past = [(x, weight), *past][:2]
        step(net, x, rate)
    assert (clamped > 0) is (rate == 1.0)


@pytest.mark.part("norm/cbn")
def test_the_correction_is_of_first_order() -> None:
    """Means follow the weights exactly, for they are linear in them; half the way, a quarter of the squares' error."""
    errors = []
    for size in (0.01, 0.005):
        net = pair(iterations=2)
        conv, norm = net
        x = normal(3, 2, 4, 4) + 0.5
        net(x)
        with torch.no_grad():
            conv.weight += size * normal(*conv.weight.shape, seed=7)
        mean, square = norm._corrected(conv.weight)[0]
        true = statistics(x, conv.weight.detach())
        torch.testing.assert_close(mean, true[0])
        errors.append(float((square - true[1]).abs().sum()))
        uncorrected = statistics(x, pair()[0].weight.detach())
        assert errors[-1] < 0.5 * float((uncorrected[1] - true[1]).abs().sum())
    assert errors[0] / errors[1] == pytest.approx(4, rel=1e-6)


@pytest.mark.part("norm/cbn")
def test_gradients_flow_through_the_current_batch_only() -> None:
    net = pair(iterations=3)
    for seed in range(2):
        step(net, normal(3, 2, 4, 4, seed=seed), 0.05)
    conv, norm = net
    x = normal(3, 2, 4, 4, seed=4)
    past = norm._corrected(conv.weight)

    def formula(weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = functional.conv2d(x, weight, padding=1)
        values = torch.cat([torch.stack([y.mean((0, 2, 3)), y.square().mean((0, 2, 3))])[None], past])
        mean, var = values[:, 0].mean(0), values[:, 1].mean(0) - values[:, 0].mean(0).square()
        return ((y - mean[:, None, None]) / (var + norm.eps).sqrt()[:, None, None]) * scale[:, None, None] + shift[
            :, None, None
        ]

    leaves = [conv.weight, norm.weight, norm.bias]
    expected = formula(*leaves)
    found = net(x)
    weights = normal(*found.shape, seed=9)
    torch.testing.assert_close(found, expected)
    for mine, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.part("norm/cbn")
def test_a_run_goes_on_from_a_file_to_the_bit(tmp_path: Path) -> None:
    net = pair(iterations=3, burn_in=1)
    for seed in range(4):
        if seed in {0, 3}:  # with no past yet, and with two
            save_file(net.state_dict(), tmp_path / f"{seed}.safetensors")
            states = {name: value.clone() for name, value in net.state_dict().items()}
        step(net, normal(3, 2, 4, 4, seed=seed), 0.05)
    assert states["1._extra_state"].shape == (2, 2, 4, 19)
    for begin in (0, 3):
        other = pair(iterations=3, burn_in=1)
        with torch.no_grad():
            other(normal(3, 2, 4, 4, seed=20))  # what was counted and remembered here is forgotten
        other.load_state_dict(load_file(tmp_path / f"{begin}.safetensors"))
        for seed in range(begin, 4):
            step(other, normal(3, 2, 4, 4, seed=seed), 0.05)
        for name, value in net.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), (begin, name)
    averaged = copy.deepcopy(net)  # as EMA does
    assert torch.equal(averaged.eval()(normal(1, 2, 4, 4)), net.eval()(normal(1, 2, 4, 4)))


@pytest.mark.part("norm/cbn")
def test_the_weights_of_a_batch_norm_load() -> None:
    plain = nn.BatchNorm2d(4).double()
    plain(normal(3, 4, 5, 5))
    norm = CrossIteration(4).double()
    assert not any(norm.load_state_dict(plain.state_dict()))
    assert torch.equal(norm.running_mean, plain.running_mean)


class Between(nn.Module):
    """Something learnable between the convolution and the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.part("norm/cbn")
def test_what_cannot_be_corrected_is_batch_norm() -> None:
    for before in (
        Between(),
        nn.ConvTranspose2d(4, 4, 2).double(),
        nn.Sequential(nn.Conv2d(4, 4, 1).double(), nn.ReLU()),
    ):
        norm = CrossIteration(4).double()
        other = as_batch_norm(norm)
        for seed in range(3):
            x = before(normal(3, 4, 4, 4, seed=seed))
            assert torch.equal(norm(x), other(x))
        assert len(norm._past) == 0


@pytest.mark.part("norm/cbn")
def test_under_autocast_the_convolution_is_found() -> None:
    net = pair(iterations=2).float()
    exact = pair(iterations=2)
    for seed in range(3):
        x = normal(8, 2, 8, 8, seed=seed)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x.float())
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.double(), exact(x), rtol=0, atol=0.1)
        with torch.no_grad():
            for each in (net, exact):
                each[0].weight += 0.02
    assert net[1]._past.shape[-1] == 19
    assert net[1]._past.dtype == torch.float32


@pytest.mark.part("norm/cbn")
def test_freezing_the_convolution_on_the_way_begins_the_past_anew() -> None:
    net = pair(iterations=3)
    net(normal(3, 2, 4, 4))
    net[0].requires_grad_(False)
    x = normal(3, 2, 4, 4, seed=1)
    torch.testing.assert_close(net(x), as_batch_norm(net[1]).train()(net[0](x)))
    assert net[1]._past.shape == (1, 2, 4, 1)


@pytest.mark.part("norm/cbn")
def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="iterations is 1 or more"):
        CrossIteration(4, iterations=0)
    with pytest.raises(ValueError, match="more than one value a channel"):
        pair()(normal(1, 2, 1, 1))
    net = pair()
    net[0] = torch.compile(net[0], backend="aot_eager")
    with pytest.raises(RuntimeError, match="eager mode only"):
        net(normal(3, 2, 4, 4))
    torch._dynamo.reset()
