"""Every norm, activation and drop keeps its role's contract: in both modes, at several shapes, compiled, exported."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from torso import testing
from torso.nn.activations import ACTIVATIONS
from torso.nn.drop import DROPS
from torso.nn.norms import NORMS

EAGER = {"cbn"}  # in training it looks at the autograd graph


def check_compiled(module: nn.Module, x: Tensor) -> None:
    """One graph, and the same numbers as without it. Noise is drawn from the same seed."""
    expected, found = copy.deepcopy(module), torch.compile(copy.deepcopy(module), fullgraph=True, backend="eager")
    torch.manual_seed(1)
    first = expected(x)
    torch.manual_seed(1)
    torch.testing.assert_close(found(x), first)
    torch._dynamo.reset()


def check_everything(layer: nn.Module, channels: int, compiled: bool = True) -> None:
    # Behind a convolution, as in a network: there is something to learn and to compile even where the layer is nothing.
    module = nn.Sequential(nn.Conv2d(channels, channels, 1), layer)
    testing.check_module(module, lambda: (torch.randn(2, channels, 4, 4),))
    x = torch.randn(2, channels, 4, 4)
    for training in (True, False) if compiled else (False,):
        check_compiled(module.train(training), x)
    exported = torch.export.export(module.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), module(x))


def check_shapes(layer: nn.Module, channels: int) -> None:
    """One picture; sides that nothing divides; one row; in both modes and in bfloat16."""
    torch.manual_seed(0)
    for height, width, pictures in ((4, 4, 2), (5, 3, 1), (1, 7, 3)):
        for dtype in (torch.float32, torch.bfloat16):
            module = copy.deepcopy(layer).to(dtype)
            x = torch.randn(pictures, channels, height, width, dtype=dtype, requires_grad=True)
            for training in (True, False):
                y = module.train(training)(x)
                assert (y.shape, y.dtype) == (x.shape, dtype)
                assert y.isfinite().all()
                (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
                assert gradient.isfinite().all()


@pytest.mark.part(
    "norm/batch", "norm/sync", "norm/frozen", "norm/cbn", "norm/cmbn",
    "norm/group", "norm/instance", "norm/layer", "norm/frn",
)  # fmt: skip
@pytest.mark.parametrize("name", sorted(NORMS))
def test_norms(name: str) -> None:
    check_shapes(NORMS[name](48), 48)
    check_everything(NORMS[name](32), 32, compiled=name not in EAGER)


@pytest.mark.parametrize("name", sorted(set(NORMS) - {"frozen"}))
def test_norms_make_small_and_large_inputs_alike(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, 6, 6)
    found = [NORMS[name](32).train()(x * scale) for scale in (1.0, 1e4)]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
    assert found[0].abs().max() < 10


@pytest.mark.part(
    "activation/relu", "activation/leaky_relu", "activation/prelu", "activation/relu6", "activation/silu",
    "activation/mish", "activation/hard_swish", "activation/gelu", "activation/selu", "activation/sigmoid",
    "activation/tanh", "activation/softmax", "activation/temperature_softmax", "activation/identity",
)  # fmt: skip
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations(name: str) -> None:
    check_shapes(ACTIVATIONS[name](), 5)
    check_everything(ACTIVATIONS[name](), 5)


@pytest.mark.part("drop/dropout", "drop/spatial", "drop/path", "drop/block", "drop/gaussian", "drop/uniform")
@pytest.mark.parametrize("name", sorted(DROPS))
def test_drops(name: str) -> None:
    drop = DROPS[name]()
    check_shapes(drop, 5)
    check_everything(drop, 5)
    x = torch.randn(2, 5, 4, 4)
    assert drop.eval()(x) is x
    assert not [*drop.parameters(), *drop.state_dict()]


@pytest.mark.parametrize("name", sorted(DROPS))
def test_drops_draw_from_the_global_generator_and_change_what_passes(name: str) -> None:
    drop, x = DROPS[name]().train(), torch.ones(64, 8, 16, 16)
    torch.manual_seed(0)
    first = drop(x)
    second = drop(x)
    torch.manual_seed(0)
    assert torch.equal(drop(x), first)
    assert not torch.equal(second, first)
    assert float(first.mean()) == pytest.approx(1, abs=0.15)
