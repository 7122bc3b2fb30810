"""Drops: moments, masks under one seed against torch, timm and torchvision, and the shape of blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth, drop_block2d

from torso.nn.drop import DROPS, DropBlock, DropPath, GaussianDropout, UniformDropout


def seeded(layer: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return layer.train()(x)


@pytest.mark.part("drop/dropout")
def test_scaled_in_training_or_in_testing_is_the_same_expectation() -> None:
    """Older texts leave training unscaled and multiply by the kept share in testing."""
    x, p = torch.rand(400, 1000, dtype=torch.float64) + 1, 0.3
    dropped = seeded(DROPS["dropout"](p), x)
    kept = dropped != 0
    assert float(kept.double().mean()) == pytest.approx(1 - p, abs=0.003)
    torch.testing.assert_close(dropped[kept], x[kept] / (1 - p))
    assert float(dropped.mean()) == pytest.approx(float(x.mean()), rel=0.01)  # torch: testing is x
    assert float((x * kept).mean()) == pytest.approx(
        float((x * (1 - p)).mean()), rel=0.01
    )  # older: testing is (1 - p) x


@pytest.mark.part("drop/spatial")
def test_spatial_dropout_drops_whole_channels() -> None:
    y = seeded(DROPS["spatial"](0.4), torch.ones(50, 40, 3, 4))
    alive = y[:, :, 0, 0] != 0
    torch.testing.assert_close(y, alive[..., None, None] * torch.ones(3, 4) / 0.6)
    assert float(alive.float().mean()) == pytest.approx(0.6, abs=0.03)


@pytest.mark.part("drop/path")
@pytest.mark.parametrize("shape", [(64, 3, 2, 2), (64, 5), (64, 7, 4)], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.7, 1.0])
def test_drop_path_is_timms_and_torchvisions_under_the_same_seed(p: float, shape: tuple[int, ...]) -> None:
    from timm.layers import DropPath as Timm

    x = torch.randn(shape, requires_grad=True)
    results = [seeded(layer, x) for layer in (DropPath(p), Timm(p), StochasticDepth(p, "row"))]
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in results]
    for y, gradient in zip(results[1:], gradients[1:], strict=True):
        torch.testing.assert_close(results[0], y)
        torch.testing.assert_close(gradients[0], gradient)


@pytest.mark.part("drop/path")
def test_drop_path_drops_pictures_and_keeps_the_expectation() -> None:
    y = seeded(DropPath(0.25), torch.ones(20_000, 1, 1, 1))
    torch.testing.assert_close(y.unique(), torch.tensor([0, 4 / 3]))
    assert float(y.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.part("drop/block")
@pytest.mark.parametrize("shape", [(4, 3, 20, 17), (2, 5, 7, 9), (2, 3, 3, 5)], ids=str)
@pytest.mark.parametrize("block_size", [1, 3, 5, 7])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_drop_block_is_torchvisions_under_the_same_seed(p: float, block_size: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    mine = seeded(DropBlock(p, block_size), x)
    torch.manual_seed(0)
    theirs = drop_block2d(x, p, block_size)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(torch.autograd.grad(mine.sum(), x)[0], torch.autograd.grad(theirs.sum(), x)[0])


@pytest.mark.part("drop/block", "drop/dropout")
def test_blocks_of_one_value_are_dropout() -> None:
    """The same values are dropped; dropout scales by the expected share, DropBlock by the counted one."""
    x, p = torch.rand(8, 16, 20, 20) + 1, 0.2
    blocks = seeded(DropBlock(p, 1), x)
    torch.manual_seed(0)
    dropped = torch.empty_like(x).bernoulli_(p) == 1
    assert torch.equal(blocks == 0, dropped)
    dropout = x * ~dropped / (1 - p)
    ratio = (1 - p) / float((~dropped).float().mean())
    torch.testing.assert_close(blocks, dropout * ratio)
    assert ratio == pytest.approx(1, abs=0.02)


@pytest.mark.part("drop/block")
@pytest.mark.parametrize("block_size", [2, 3, 4, 7])
def test_what_is_dropped_are_whole_squares_inside_the_map_one_pattern_a_channel(block_size: int) -> None:
    y = seeded(DropBlock(0.1, block_size), torch.ones(16, 8, 24, 21))
    dropped = (y == 0).float()
    # Opening: keep only what a whole square covers; nothing is lost.
    inside = -functional.max_pool2d(-dropped, block_size, 1)
    grown = functional.max_pool2d(functional.pad(inside, [block_size - 1] * 4), block_size, 1)
    assert torch.equal(grown, dropped)
    assert not torch.equal(dropped[:, 0], dropped[:, 1])
    # Squares that overlap drop a little less than p.
    assert 0.07 < float(dropped.mean()) < 0.1
    assert float(y.mean()) == pytest.approx(1, abs=1e-4)  # counted, so exact


@pytest.mark.part("drop/block")
def test_a_map_smaller_than_the_block_and_everything_dropped() -> None:
    y = seeded(DropBlock(0.5, 7), torch.ones(400, 5, 2, 4))
    assert not (y[..., 0, :] - y[..., 1, :]).any()  # squares of 2 reach over both rows
    assert not seeded(DropBlock(1.0, 3), torch.ones(2, 3, 3, 3)).any()
    x = torch.ones(2, 3, 8, 8)
    assert seeded(DropBlock(0.0), x) is x


@pytest.mark.part("drop/gaussian")
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_gaussian_dropout_has_mean_and_variance_of_dropout(p: float) -> None:
    x = torch.full((1_000_000,), 3.0, dtype=torch.float64)
    y = seeded(GaussianDropout(p), x) / x
    dropout = seeded(nn.Dropout(p), x) / x
    spread = p / (1 - p)
    for noise in (y, dropout):
        assert float(noise.mean()) == pytest.approx(1, abs=0.01)
        assert float(noise.var()) == pytest.approx(spread, rel=0.01)
    z = (y - 1) / spread**0.5
    assert float((z**3).mean()) == pytest.approx(0, abs=0.02)
    assert float((z**4).mean()) == pytest.approx(3, abs=0.05)  # a normal distribution


@pytest.mark.part("drop/uniform")
@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_uniform_dropout_has_mean_1_and_variance_beta_squared_by_3(beta: float) -> None:
    x = torch.full((1_000_000,), 3.0, dtype=torch.float64)
    y = seeded(UniformDropout(beta), x) / x
    assert float(y.mean()) == pytest.approx(1, abs=0.005)
    assert float(y.var()) == pytest.approx(beta**2 / 3, rel=0.01)
    assert 1 - beta <= float(y.min()) < 1 - 0.99 * beta
    assert 1 + 0.99 * beta < float(y.max()) <= 1 + beta
    z = (y - 1) / beta
    assert float((z**4).mean()) == pytest.approx(1 / 5, rel=0.02)  # a uniform distribution


@pytest.mark.parametrize("name", sorted(DROPS))
def test_shares_outside_0_and_1_are_refused(name: str) -> None:
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"0\.\.1|between 0 and 1"):
            DROPS[name](value)
    if name == "gaussian":
        with pytest.raises(ValueError, match="p is under 1"):
            GaussianDropout(1.0)
    if name == "block":
        with pytest.raises(ValueError, match="block_size is 1 or more, not 0"):
            DropBlock(0.1, 0)
