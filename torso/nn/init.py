"""How weights begin.

A layer multiplies the variance of what flows through it by fan * Var[w] * gain; over 50 layers anything but 1 explodes
or vanishes. `init_weights` draws by the rules that keep it at 1; `prior_bias` is what dense heads begin with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Fan = Literal["fan_in", "fan_out", "fan_avg"]
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def kaiming(weight: Tensor, fan: float, gain: float = math.sqrt(2)) -> None:
    """N(0, gain² / fan): keeps the variance through a rectifier (gain √2).

    Source: Delving Deep into Rectifiers, 2015, arXiv:1502.01852
    """
    weight.normal_(0, gain / math.sqrt(fan))


def xavier(weight: Tensor, fan: float, gain: float = 1.0) -> None:
    """U(-a, a) of variance gain² / fan, for layers without or with a symmetric activation.

    Source: Understanding the difficulty of training deep feedforward neural networks, 2010
    """
    limit = gain * math.sqrt(3 / fan)
    weight.uniform_(-limit, limit)


def truncated(weight: Tensor, fan: float, gain: float = 1.0) -> None:
    """A normal distribution cut at two standard deviations, of variance gain² / fan after the cut.

    Source: timm.layers.lecun_normal_ (variance scaling of TensorFlow and JAX)
    """
    std = gain / math.sqrt(fan) / 0.8796256610342398  # N(0, 1) cut at 2 has this standard deviation
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def orthogonal(weight: Tensor, fan: float, gain: float = 1.0) -> None:
    """Filters (or inputs, where they are fewer) at right angles and of length gain; ``fan`` means nothing here.

    Source: Exact solutions to the nonlinear dynamics of learning in deep linear neural networks, 2013, arXiv:1312.6120
    """
    del fan
    nn.init.orthogonal_(weight, gain=gain)


INITS: dict[str, Callable[..., None]] = {
    "kaiming": kaiming,
    "xavier": xavier,
    "truncated": truncated,
    "orthogonal": orthogonal,
}
_FANS: dict[str, Fan] = {"kaiming": "fan_out", "xavier": "fan_avg", "truncated": "fan_in", "orthogonal": "fan_in"}


@torch.no_grad()
def init_weights(
    module: nn.Module,
    name: Literal["kaiming", "xavier", "truncated", "orthogonal"] = "kaiming",
    *,
    fan: Fan | None = None,
    gain: float | None = None,
    bias: float = 0.0,
) -> None:
    """Draw the weights of every convolution and linear layer below ``module`` (itself included); set their biases.

    Args:
        module: changed in place. Norms are left alone.
        name: the rule, see `INITS`.
        fan: connections of a value, see `fan_of`; left out: ``fan_out`` for kaiming, ``fan_avg`` for xavier,
            ``fan_in`` for truncated.
        gain: factor of the standard deviation, ``nn.init.calculate_gain(...)``; left out: √2 for kaiming, else 1.
        bias: value of all biases.

    Raises:
        ValueError: a rule or a fan that does not exist.

    Source: Delving Deep into Rectifiers, 2015, arXiv:1502.01852
    """
    if name not in INITS:
        raise ValueError(f"no initialisation is called {name!r}: choose from {', '.join(INITS)}")
    options = {} if gain is None else {"gain": gain}
    for layer in module.modules():
        if isinstance(layer, _LAYERS):
            INITS[name](layer.weight, fan_of(layer, fan or _FANS[name]), **options)
            if layer.bias is not None:
                layer.bias.fill_(bias)


def fan_of(layer: nn.Module, fan: Fan = "fan_in") -> float:
    """Weights that make an output (``fan_in``), that an input goes into (``fan_out``), or the mean of the two.

    ``fan_in`` keeps the variance on the way forward, ``fan_out`` on the way back. Groups count: torch's own
    ``kaiming_normal_`` sees only the weight, and takes a depthwise convolution to reach all channels on its way back.
    Strides do not count.

    Raises:
        ValueError: a fan that does not exist.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups: int = getattr(layer, "groups", 1)
    first, second, area = weight.shape[0] // groups, weight.shape[1], weight[0, 0].numel()
    outs, ins = (second, first) if isinstance(layer, _TRANSPOSED) else (first, second)
    fans = {"fan_in": ins * area, "fan_out": outs * area, "fan_avg": (ins + outs) * area / 2}
    if fan not in fans:
        raise ValueError(f"fan is fan_in, fan_out or fan_avg, not {fan!r}")
    return fans[fan]


def prior_bias(probability: float = 0.01) -> float:
    """The bias whose sigmoid is ``probability``: ``-log((1 - p) / p)``.

    A dense head begins with it at every class, so that the many priors that hold nothing do not drown the first steps.

    >>> prior_bias(0.01)
    -4.5951

    Raises:
        ValueError: a probability that is not between 0 and 1.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002
    """
    if not 0 < probability < 1:
        raise ValueError(f"a prior probability lies between 0 and 1, not {probability}")
    return -math.log((1 - probability) / probability)


@torch.no_grad()
def init_prior(layer: nn.Module, probability: float = 0.01) -> None:
    """Fill the bias of the layer that makes class logits with `prior_bias`.

    Raises:
        ValueError: the layer has no bias, or a probability that is not between 0 and 1.
    """
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, Tensor):
        raise ValueError(f"a layer that makes class logits needs a bias, {type(layer).__name__} has none")
    bias.fill_(prior_bias(probability))
