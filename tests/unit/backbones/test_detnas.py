"""DetNAS against torchvision's ShuffleNetV2 block, what its authors publish, and its own supernet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.backbones.cost import multiply_adds, on_meta, parameters
from torso.backbones.detnas import SEARCHED, DetNAS, ShuffleBlock
from torso.backbones.supernet import DetNASSupernet
from torso.config import ModelError

# Of the authors' page: multiply-adds at 224 px in G (nominal for the largest) and parameters in M, with a last 1x1 to
# 1024 channels and a classifier. Their 300M row is the network searched with a RetinaNet.
PUBLISHED = {
    ("coco_retinanet", "300M"): (0.32, 3.7),
    ("coco_fpn", "1.3G"): (1.3, 10.4),
    ("coco_fpn", "3.8G"): (4.0, 29.5),
}


# The architectures as the authors' code lists them.
LARGE = [0, 0, 3, 1, 2, 1, 0, 2, 0, 3, 1, 2, 3, 3, 2, 0, 2, 1, 1, 3, 2, 0, 2, 2, 2, 1, 3, 1, 0, 3, 3, 3, 1] + [3] * 7
LISTED = {
    ("coco_fpn", "300M"): [2, 1, 2, 0, 2, 1, 1, 2, 3, 3, 1, 3, 0, 0, 3, 1, 3, 1, 3, 2],
    ("coco_retinanet", "300M"): [2, 3, 1, 1, 3, 2, 1, 3, 3, 1, 1, 1, 3, 3, 2, 0, 3, 3, 3, 3],
    ("voc_fpn", "300M"): [2, 1, 0, 3, 1, 3, 0, 3, 2, 0, 1, 1, 3, 3, 3, 3, 3, 3, 3, 1],
    ("voc_retinanet", "300M"): [1, 3, 0, 0, 2, 3, 3, 3, 2, 3, 3, 3, 3, 2, 2, 0, 2, 3, 1, 1],
    ("coco_fpn", "1.3G"): LARGE,
    ("coco_fpn", "3.8G"): LARGE,
}


def copy(theirs: nn.Module, ours: nn.Module) -> None:
    """Weights and statistics in order; the names differ."""
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))


@pytest.mark.part("backbone/detnas")
@pytest.mark.parametrize("stride", [1, 2])
def test_the_plain_block_is_torchvisions_shufflenet_v2(stride: int) -> None:
    """Torchvision splits in halves and shuffles after; here even and odd channels are the halves. Same weights."""
    from torchvision.models.shufflenetv2 import InvertedResidual

    torch.manual_seed(0)
    before, after = (32, 32) if stride == 1 else (16, 32)
    theirs, ours = InvertedResidual(before, after, stride).double(), ShuffleBlock(before, after, stride, 0).double()
    copy(theirs.branch2, ours.path)
    if ours.passing is not None:
        copy(theirs.branch1, ours.passing)
    shuffle = nn.ChannelShuffle(2)
    x = torch.randn(3, before, 9, 7, dtype=torch.float64, requires_grad=True)
    mine, other = shuffle(ours(shuffle(x) if stride == 1 else x)), theirs(x)
    if stride == 2:  # torchvision's other branch goes first as well
        mine = shuffle(ours(x))
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
    weight = torch.randn_like(other)
    mine_grad, other_grad = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (mine, other))
    torch.testing.assert_close(mine_grad, other_grad, rtol=1e-9, atol=1e-12)


@pytest.mark.part("backbone/detnas")
@pytest.mark.parametrize(("searched", "size"), sorted(PUBLISHED))
def test_published_networks_cost_what_their_authors_publish(searched: str, size: str) -> None:
    body = on_meta(lambda: DetNAS(size, searched, levels=(5,)))
    last = body.channels[-1] * 1024
    classifier = 1024 * 1000
    adds = multiply_adds(lambda: DetNAS(size, searched, levels=(5,)), 224) + 49 * last + classifier
    total = parameters(body) + last + 3 * 1024 + classifier + 1000
    giga, millions = PUBLISHED[searched, size]
    assert adds / 1e9 == pytest.approx(giga, abs=0.05)
    assert total / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.part("backbone/detnas")
@pytest.mark.parametrize("choice", range(4))
@pytest.mark.parametrize("stride", [1, 2])
def test_each_kind_sees_what_its_kernels_let_it(choice: int, stride: int) -> None:
    """One depthwise 3x3, 5x5 or 7x7; the Xception block's three 3x3, of which the first has the stride."""
    torch.manual_seed(0)
    block = ShuffleBlock(8, 8 if stride == 1 else 16, stride, choice, activation=nn.Identity).double().eval()
    x = torch.randn(1, 8, 41, 41, dtype=torch.float64, requires_grad=True)
    middle = 20 // stride
    seen = torch.autograd.grad(block(x)[0, :, middle, middle].sum(), x)[0].abs().sum((0, 1)) > 0
    width = int(seen.any(0).sum())
    xception = 7 if stride == 1 else 3 + 2 * stride + 2 * stride
    assert width == (3, 5, 7, xception)[choice]


@pytest.mark.part("backbone/detnas")
def test_half_of_the_channels_passes_by_untouched() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 12, 5, 5)
    for choice in range(4):
        out = ShuffleBlock(12, 12, 1, choice)(x)
        torch.testing.assert_close(out[:, :6], x[:, ::2])


def test_choices_take_the_place_of_a_published_network() -> None:
    published = on_meta(DetNAS)
    same = on_meta(lambda: DetNAS(choices=published.choices))
    assert [list(p.shape) for p in same.parameters()] == [list(p.shape) for p in published.parameters()]


@pytest.mark.part("backbone/detnas")
@pytest.mark.parametrize(("searched", "size"), sorted(SEARCHED))
def test_published_networks_are_those_the_authors_list(searched: str, size: str) -> None:
    network = on_meta(lambda: DetNAS(size, searched))
    assert network.choices == LISTED[searched, size]
    assert len(network.blocks) == len(network.choices) == (20 if size == "300M" else 40)


@pytest.mark.parametrize("choices", [[0] * 19, [0] * 19 + [4], [-1] + [0] * 19, []])
def test_choices_that_are_none_are_refused(choices: list[int]) -> None:
    with pytest.raises(ModelError, match="choices must be 20 numbers of 0 to 3, one a block"):
        DetNAS(choices=choices)


def test_a_network_nobody_published_is_told() -> None:
    with pytest.raises(ModelError, match=r"no network was published for searched=voc_fpn of 1\.3G"):
        DetNAS("1.3G", "voc_fpn")


@pytest.mark.part("backbone/detnas")
def test_a_path_of_the_supernet_is_the_network_cut_out_of_it() -> None:
    torch.manual_seed(0)
    supernet = DetNASSupernet(levels=(2, 3))
    generator = torch.Generator().manual_seed(3)
    first, second = supernet.sample(generator), supernet.sample(generator)
    assert first != second
    assert len(first) == len(supernet.blocks) == 8
    images = torch.randn(2, 3, 64, 64)
    supernet(images, first)  # moves the statistics of that path
    network = supernet.subnet(first)
    assert network.choices[:8] == first
    assert (network.channels, network.strides) == (supernet.channels, supernet.strides)
    supernet.eval(), network.eval()
    for a, b in zip(network(images), supernet(images, first), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(network(images)[0], supernet(images, second)[0])


@pytest.mark.part("backbone/detnas")
def test_only_the_path_is_trained() -> None:
    torch.manual_seed(0)
    supernet = DetNASSupernet(levels=(2,))
    path = [3, 0, 2, 1]
    supernet(torch.randn(2, 3, 32, 32), path)[0].square().mean().backward()
    trained = {
        name.split(".kinds.")[0] + "." + name.split(".kinds.")[1][0]
        for name, p in supernet.named_parameters()
        if ".kinds." in name and p.grad is not None
    }
    assert trained == {f"blocks.{place}.{choice}" for place, choice in enumerate(path)}
    for wrong in ([0] * 3, [0, 0, 0, 4]):
        with pytest.raises(ModelError, match="choices must be 4 numbers"):
            supernet(torch.randn(1, 3, 32, 32), wrong)


def test_paths_are_drawn_from_the_generator_alone_and_uniformly() -> None:
    supernet = on_meta(DetNASSupernet)
    before = torch.random.get_rng_state()
    paths = [supernet.sample(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert paths[0] == paths[1] != paths[2]
    assert torch.equal(before, torch.random.get_rng_state())
    generator = torch.Generator().manual_seed(5)
    drawn = torch.tensor([supernet.sample(generator) for _ in range(500)])  # [500, 20]
    shares = torch.stack([(drawn == kind).float().mean() for kind in range(4)])
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)  # 4.6 standard deviations
