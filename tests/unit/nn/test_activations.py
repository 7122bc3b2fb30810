"""Activations against their formulas, softmax against numbers worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torso.nn.activations import ACTIVATIONS, Softmax, TemperatureSoftmax

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "relu6": lambda x: x.clamp(0, 6),
    "silu": lambda x: x / (1 + (-x).exp()),
    "mish": lambda x: x * (1 + x.exp()).log().tanh(),
    "hard_swish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "softmax": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
    "temperature_softmax": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
    "identity": lambda x: x,
}


@pytest.mark.part(
    "activation/relu", "activation/leaky_relu", "activation/prelu", "activation/relu6", "activation/silu",
    "activation/mish", "activation/hard_swish", "activation/gelu", "activation/selu", "activation/sigmoid",
    "activation/tanh", "activation/softmax", "activation/temperature_softmax", "activation/identity",
)  # fmt: skip
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_and_slopes_are_those_of_the_formula(name: str) -> None:
    results = []
    for function in (ACTIVATIONS[name]().double(), FORMULAS[name]):
        x = torch.linspace(-8, 8, 34, dtype=torch.float64).reshape(2, 17).requires_grad_()
        y = function(x)
        results.append((y, *torch.autograd.grad((y * torch.arange(17)).sum(), x)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.part("activation/selu")
def test_selu_keeps_mean_0_and_variance_1() -> None:
    y = ACTIVATIONS["selu"]()(torch.randn(400_000, generator=torch.Generator().manual_seed(0)))
    assert float(y.mean()) == pytest.approx(0, abs=0.01)
    assert float(y.var()) == pytest.approx(1, abs=0.01)


@pytest.mark.part("activation/prelu")
def test_the_slope_of_prelu_is_learned() -> None:
    prelu = ACTIVATIONS["prelu"]()
    prelu(torch.tensor([-2.0, 3.0])).sum().backward()
    (slope,) = prelu.parameters()
    assert slope.grad is not None
    assert slope.grad.tolist() == [-2]


@pytest.mark.part("activation/softmax", "activation/temperature_softmax")
@pytest.mark.parametrize(
    ("temperature", "shares"),
    [(1.0, [0.0900, 0.2447, 0.6652]), (2.0, [0.1863, 0.3072, 0.5065]), (0.5, [0.0159, 0.1173, 0.8668])],
)
def test_shares_by_hand(temperature: float, shares: list[float]) -> None:
    x, expected = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([shares])
    torch.testing.assert_close(TemperatureSoftmax(temperature)(x), expected, rtol=0, atol=5e-5)
    torch.testing.assert_close(Softmax()(x / temperature), expected, rtol=0, atol=5e-5)


@pytest.mark.part("activation/softmax")
def test_softmax_of_huge_numbers_is_finite_and_knows_no_offset() -> None:
    x = torch.tensor([[1e4, 1e4 - 1, -1e4]])
    expected = torch.tensor([[0.7310586, 0.2689414, 0.0]])
    torch.testing.assert_close(Softmax()(x), expected)
    torch.testing.assert_close(Softmax()(x + 1e4), expected)
    assert x.exp().isinf().any()  # the formula without subtracting the maximum


@pytest.mark.part("activation/softmax", "activation/temperature_softmax")
def test_shares_of_maps_are_shares_among_channels() -> None:
    x = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    for layer in (Softmax(), TemperatureSoftmax(3.0)):
        torch.testing.assert_close(layer(x).sum(1), torch.ones(2, 4, 3))
        torch.testing.assert_close(type(layer)(dim=-1)(x).sum(-1), torch.ones(2, 5, 4))


@pytest.mark.part("activation/temperature_softmax")
def test_a_cold_softmax_is_the_maximum_and_a_hot_one_is_even() -> None:
    x = torch.tensor([[0.3, -1.0, 0.4]])
    torch.testing.assert_close(TemperatureSoftmax(1e-3)(x), torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(TemperatureSoftmax(1e6)(x), torch.full((1, 3), 1 / 3))
    with pytest.raises(ValueError, match="over 0, not 0"):
        TemperatureSoftmax(0)
