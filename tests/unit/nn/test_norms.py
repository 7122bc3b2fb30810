"""Norms against numbers worked by hand, torch, timm and torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from torso.nn.frozen import Frozen, scale_and_shift
from torso.nn.norms import NORMS, FilterResponse, Group, Instance, Layer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shake(module: nn.Module) -> None:
    """Other values than ones and zeros everywhere; variances stay positive."""
    with torch.no_grad():
        for seed, (name, tensor) in enumerate(module.state_dict().items()):
            if tensor.is_floating_point():
                value = normal(*tensor.shape, seed=seed)
                tensor.copy_(value.abs() + 0.5 if name.endswith("running_var") else value)


def check_equal(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Outputs, and gradients for the input and for all parameters of the same name."""
    results = []
    for norm in (ours, theirs):
        norm.zero_grad()
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        (y * normal(*y.shape, seed=9)).sum().backward()
        results.append({"output": y, "input": leaf.grad} | {name: p.grad for name, p in norm.named_parameters()})
    mine, other = results
    assert mine.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-9, atol=1e-12)


ROW = torch.tensor([1.0, 2, 3, 6]).double()  # mean 3, squares of deviations 4 1 0 9: variance 14 / 4
BY_HAND = (ROW - 3) / 3.5**0.5


@pytest.mark.part("norm/layer", "norm/batch", "norm/group", "norm/instance")
@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("layer", ROW.reshape(1, 4, 1, 1)),  # the channels of a pixel
        ("batch", ROW.reshape(4, 1, 1, 1)),  # a channel over the pictures
        ("group", ROW.reshape(1, 4, 1, 1)),  # all four channels are one group
        ("instance", ROW.reshape(1, 1, 2, 2)),  # the pixels of a channel
    ],
)
def test_four_numbers_by_hand(name: str, x: Tensor) -> None:
    norm = NORMS[name](x.shape[1], eps=1e-15).double()
    torch.testing.assert_close(norm(x).flatten(), BY_HAND)


@pytest.mark.part("norm/batch")
def test_batch_norm_divides_by_n_and_remembers_with_n_minus_1() -> None:
    norm = NORMS["batch"](1).double()
    norm(ROW.reshape(4, 1, 1, 1))
    assert norm.running_mean.item() == pytest.approx(0.1 * 3)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * 14 / 3)


@pytest.mark.part("norm/frn")
def test_filter_response_by_hand() -> None:
    x = torch.tensor([3.0, -4.0, 0.0, 0.0]).double().reshape(1, 1, 2, 2)  # mean square 25 / 4
    expected = torch.tensor([1.2, -1.6, 0.0, 0.0]).double()
    torch.testing.assert_close(FilterResponse(1, eps=0.0, threshold=False).double()(x).flatten(), expected)
    norm = FilterResponse(1, eps=0.0).double()
    torch.testing.assert_close(norm(x).flatten(), expected.clamp(min=0))  # the threshold begins as ReLU
    nn.init.constant_(norm.tau, -1.0)
    torch.testing.assert_close(norm(x).flatten(), expected.clamp(min=-1))


@pytest.mark.part("norm/frn")
@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 6, 1, 1)])
def test_filter_response_is_timms(shape: tuple[int, ...]) -> None:
    from timm.layers import FilterResponseNormAct2d, FilterResponseNormTlu2d

    # In float64 timm takes the mean square in float32: its own precision bounds the comparison.
    ours, theirs = FilterResponse(6, eps=1e-5), FilterResponseNormTlu2d(6)
    shake(theirs)
    ours.load_state_dict(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == 18
    results = []
    for norm in (ours, theirs):
        x = normal(*shape).float().requires_grad_()
        y = norm(x)
        (y * normal(*shape, seed=9).float()).sum().backward()
        results.append([y, x.grad, *(p.grad for p in norm.parameters())])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    plain, act = FilterResponse(6, eps=1e-5, threshold=False), FilterResponseNormAct2d(6, act_layer=nn.Tanh)
    shake(act)
    plain.load_state_dict(act.state_dict())
    torch.testing.assert_close(plain(x).tanh(), act(x))


@pytest.mark.part("norm/frn")
def test_filter_response_knows_no_other_picture_and_no_mean() -> None:
    norm, x = FilterResponse(6, threshold=False).double(), normal(3, 6, 5, 4)
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))
    shifted = norm(x + 5)
    assert (shifted.mean((2, 3)) > 0.9).all()
    torch.testing.assert_close(shifted.square().mean((2, 3)), torch.ones(3, 6).double(), rtol=1e-6, atol=0)


@pytest.mark.part("norm/layer")
def test_layer_norm_is_timms() -> None:
    from timm.layers import LayerNorm2d

    ours, theirs = Layer(6).double(), LayerNorm2d(6).double()
    shake(theirs)
    ours.load_state_dict(theirs.state_dict())
    check_equal(ours, theirs, normal(2, 6, 5, 4) * 3 + 1)
    lasting = ours(normal(2, 6, 5, 4).to(memory_format=torch.channels_last))
    assert lasting.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.part("norm/instance")
def test_instance_norm_is_torchs() -> None:
    ours, theirs = Instance(6).double(), nn.InstanceNorm2d(6, affine=True).double()
    shake(theirs)
    ours.load_state_dict(theirs.state_dict())
    check_equal(ours, theirs, normal(2, 6, 5, 4) * 3 + 1)
    assert not [*Instance(6, affine=False).parameters()]


@pytest.mark.part("norm/group", "norm/instance")
@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (16, 1), (48, 3), (24, 2), (7, 1), (17, 17)])
def test_groups_have_16_channels_or_the_largest_divisor_below(channels: int, groups: int) -> None:
    norm = Group(channels).double()
    assert norm.num_groups == groups
    check_equal(norm, nn.GroupNorm(groups, channels).double(), normal(2, channels, 3, 3))
    alone = Group(channels, group_channels=1).double()
    torch.testing.assert_close(
        alone(normal(2, channels, 3, 3)), nn.InstanceNorm2d(channels).double()(normal(2, channels, 3, 3))
    )


@pytest.mark.part("norm/sync")
def test_sync_norm_alone_is_batch_norm() -> None:
    ours, theirs = NORMS["sync"](6).double(), nn.BatchNorm2d(6).double()
    shake(theirs)
    ours.load_state_dict(theirs.state_dict())
    check_equal(ours, theirs, normal(3, 6, 4, 4))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    check_equal(ours.eval(), theirs.eval(), normal(3, 6, 4, 4))


@pytest.mark.part("norm/frozen")
@pytest.mark.parametrize("training", [True, False])
def test_frozen_norm_is_torchvisions_and_batch_norms_in_eval(training: bool) -> None:
    ours, theirs, live = Frozen(6).double(), FrozenBatchNorm2d(6).double(), nn.BatchNorm2d(6).double()
    shake(live)
    for frozen in (ours, theirs):
        frozen.load_state_dict(live.state_dict())
        frozen.train(training)
    x = normal(2, 6, 5, 4)
    check_equal(ours, theirs, x)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(ours(x), live.eval()(x), rtol=1e-12, atol=1e-12)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours(x + 10)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


@pytest.mark.part("norm/frozen")
@pytest.mark.parametrize(
    "norm", [Frozen(6), FrozenBatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), NORMS["cbn"](6)]
)
def test_a_norm_at_rest_folds_into_scale_and_shift(norm: nn.Module) -> None:
    norm = norm.double().eval()
    shake(norm)
    scale, shift = scale_and_shift(norm)
    x = normal(2, 6, 5, 4)
    torch.testing.assert_close(x * scale[:, None, None] + shift[:, None, None], norm(x))


def test_a_norm_without_statistics_does_not_fold() -> None:
    with pytest.raises(ValueError, match="running statistics can be folded, not Group"):
        scale_and_shift(Group(16))
