"""Initialisers against torch and timm, and what they are for: a signal that neither explodes nor vanishes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torso.heads import Retina
from torso.nn.init import INITS, fan_of, init_prior, init_weights, prior_bias

LAYERS = {
    "linear": lambda: nn.Linear(200, 300),
    "conv": lambda: nn.Conv2d(40, 60, 3),
    "grouped": lambda: nn.Conv2d(64, 64, 5, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(40, 60, 3),
}
FANS = {
    "linear": (200, 300),
    "conv": (40 * 9, 60 * 9),
    "grouped": (16 * 25, 16 * 25),
    "transposed": (40 * 9, 60 * 9),
}


@pytest.mark.part("init/weights")
@pytest.mark.parametrize("layer", LAYERS)
def test_fans_count_connections(layer: str) -> None:
    module, (ins, outs) = LAYERS[layer](), FANS[layer]
    assert fan_of(module, "fan_in") == ins
    assert fan_of(module, "fan_out") == outs
    assert fan_of(module, "fan_avg") == (ins + outs) / 2
    # By touching: one output depends on `fan_in` weights (away from the border).
    x = torch.ones(1, ins) if layer == "linear" else torch.ones(1, module.in_channels, 11, 11)
    y = module(x)
    middle = y[0, 0] if layer == "linear" else y[0, 0, y.shape[2] // 2, y.shape[3] // 2]
    (touched,) = torch.autograd.grad(middle, module.weight)
    assert int((touched != 0).sum()) == ins


@pytest.mark.part("init/weights")
@pytest.mark.parametrize("fan", ["fan_in", "fan_out"])
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_kaiming_is_torchs(layer: str, fan: str) -> None:
    module, other = LAYERS[layer](), LAYERS[layer]()
    torch.manual_seed(0)
    init_weights(module, "kaiming", fan=fan, bias=0.25)  # type: ignore[arg-type]
    torch.manual_seed(0)
    nn.init.kaiming_normal_(other.weight, mode=fan, nonlinearity="relu")  # type: ignore[arg-type]
    assert torch.equal(module.weight, other.weight)
    assert (module.bias == 0.25).all()


@pytest.mark.part("init/weights")
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_xavier_and_orthogonal_are_torchs(layer: str) -> None:
    for name, rule in (("xavier", nn.init.xavier_uniform_), ("orthogonal", nn.init.orthogonal_)):
        module, other = LAYERS[layer](), LAYERS[layer]()
        torch.manual_seed(0)
        init_weights(module, name, gain=2.0)  # type: ignore[arg-type]
        torch.manual_seed(0)
        rule(other.weight, gain=2.0)
        torch.testing.assert_close(module.weight, other.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.part("init/weights")
def test_truncated_is_timms_distribution() -> None:
    """The draws differ (torch and timm cut in different ways); the quantiles do not."""
    from timm.layers import lecun_normal_

    module, other = nn.Linear(400, 1000), nn.Linear(400, 1000)
    torch.manual_seed(0)
    init_weights(module, "truncated")
    lecun_normal_(other.weight)
    at = torch.linspace(0, 1, 21)
    mine, theirs = (layer.weight.detach().flatten().sort().values for layer in (module, other))
    places = (at * (len(mine) - 1)).long()
    torch.testing.assert_close(mine[places], theirs[places], rtol=0, atol=0.02 * float(theirs.std()))


@pytest.mark.part("init/weights")
@pytest.mark.parametrize("fan", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", ["kaiming", "xavier", "truncated"])
def test_variances(name: str, layer: str, fan: str) -> None:
    module = LAYERS[layer]()
    torch.manual_seed(0)
    init_weights(module, name, fan=fan, gain=3.0)  # type: ignore[arg-type]
    weight = module.weight.detach()
    assert float(weight.var()) == pytest.approx(9 / fan_of(module, fan), rel=0.05)  # type: ignore[arg-type]
    assert float(weight.mean()) == pytest.approx(0, abs=4 * float(weight.std()) / math.sqrt(weight.numel()))
    if name == "truncated":
        assert float(weight.abs().max()) <= 2 * 3 / math.sqrt(fan_of(module, fan)) / 0.8796  # type: ignore[arg-type]


@pytest.mark.part("init/weights")
def test_orthogonal_filters_are_at_right_angles() -> None:
    conv = nn.Conv2d(16, 32, 3)
    init_weights(conv, "orthogonal", gain=0.5)
    rows = conv.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(32) / 4, rtol=0, atol=1e-5)


class Deep(nn.Sequential):
    """50 linear layers of 256 values, without norms or shortcuts."""

    def __init__(self, activation: type[nn.Module]) -> None:
        torch.manual_seed(0)
        super().__init__(*(m for _ in range(50) for m in (nn.Linear(256, 256), activation())))

    def gains(self) -> tuple[float, float]:
        """Variance that comes out for 1 that goes in, forward; and of gradients, backward."""
        x = torch.randn(512, 256, dtype=self[0].weight.dtype, requires_grad=True)
        y = self(x)
        y.backward(torch.randn_like(y))
        assert x.grad is not None
        return float(y.detach().square().mean()), float(x.grad.square().mean())


@pytest.mark.part("init/weights")
@pytest.mark.parametrize(
    ("name", "activation", "gain"),
    [
        ("kaiming", nn.ReLU, None),
        ("truncated", nn.ReLU, math.sqrt(2)),
        ("xavier", nn.Identity, None),
        ("orthogonal", nn.Identity, None),
    ],
)
def test_the_signal_passes_50_layers_both_ways(name: str, activation: type[nn.Module], gain: float | None) -> None:
    net = Deep(activation)
    init_weights(net, name, gain=gain)  # type: ignore[arg-type]
    for variance in net.gains():
        assert 0.1 < variance < 10


@pytest.mark.part("init/weights")
def test_naive_weights_explode_or_vanish() -> None:
    explodes, vanishes, torchs = (Deep(nn.ReLU).double() for _ in range(3))
    for net, std in ((explodes, 1.0), (vanishes, 0.01)):
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
    assert explodes.gains()[0] > 1e30
    assert max(vanishes.gains()) < 1e-30
    assert torchs.gains()[1] < 1e-20  # what nn.Linear begins with is no initialisation for deep rectifiers


@pytest.mark.part("init/weights")
def test_norms_are_left_alone_and_wrong_names_are_told() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    nn.init.constant_(net[1].weight, 7.0)
    for name in INITS:
        init_weights(net, name)  # type: ignore[arg-type]
    assert (net[1].weight == 7).all()
    assert net[0].weight.grad_fn is None
    with pytest.raises(ValueError, match="no initialisation is called 'he': choose from kaiming"):
        init_weights(net, "he")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fan is fan_in, fan_out or fan_avg"):
        init_weights(net, fan="in")  # type: ignore[arg-type]


@pytest.mark.part("init/prior_bias")
@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.999])
def test_the_sigmoid_of_the_bias_is_the_prior(p: float) -> None:
    assert torch.tensor(prior_bias(p), dtype=torch.float64).sigmoid().item() == pytest.approx(p, rel=1e-12)
    layer = nn.Conv2d(4, 6, 3, dtype=torch.float64)
    init_prior(layer, p)
    torch.testing.assert_close(layer.bias.sigmoid(), torch.full((6,), p, dtype=torch.float64))


@pytest.mark.part("init/prior_bias", "head/retina")
def test_dense_heads_begin_with_it_as_torchvisions_retinanet() -> None:
    from torchvision.models.detection.retinanet import RetinaNetClassificationHead

    theirs = RetinaNetClassificationHead(8, 9, 5, prior_probability=0.03)
    ours = Retina([8], 5, [9], prior_probability=0.03)
    torch.testing.assert_close(ours.class_logits.bias, theirs.cls_logits.bias)
    scores = ours([torch.zeros(1, 8, 4, 4)]).logits.sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.03), rtol=0.01, atol=0)


@pytest.mark.part("init/prior_bias")
def test_wrong_priors_are_told() -> None:
    for p in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            prior_bias(p)
    with pytest.raises(ValueError, match="needs a bias, Conv2d has none"):
        init_prior(nn.Conv2d(4, 6, 3, bias=False))
