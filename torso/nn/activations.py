"""Activations by name, made with no arguments or their own, ``[...] -> [...]``.

Those of torch stand here as they are. ``softmax`` and ``temperature_softmax`` act along the channels, which torch's own
does only when told; ``identity`` is for norms that bring an activation of their own (``frn``).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

LEAKY = partial(nn.LeakyReLU, negative_slope=0.1)
"""Darknet's activation."""


class Softmax(nn.Module):
    """Shares that sum to 1 along one dimension: ``exp(x - max) / sum(exp(x - max))``, finite for any finite input.

    Args:
        dim: the dimension; 1 are the channels of ``[B, C, ...]``.

    Source: torch.nn.functional.softmax (the maximum is subtracted there).
    """

    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """``[...] -> [...]``, each row of ``dim`` to shares."""
        return x.softmax(self.dim)


class TemperatureSoftmax(nn.Module):
    """Softmax of ``x / temperature``: above 1 softer, below 1 closer to the one-hot maximum.

    ``beta`` of other texts is ``1 / temperature``. The trick ``schedule_argument`` moves it in training.

    Args:
        temperature: over 0.
        dim: the dimension; 1 are the channels of ``[B, C, ...]``.

    Raises:
        ValueError: a temperature that is not over 0.

    Source: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531
    """

    def __init__(self, temperature: float = 1.0, dim: int = 1):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is over 0, not {temperature}")
        self.temperature, self.dim = temperature, dim

    def forward(self, x: Tensor) -> Tensor:
        """``[...] -> [...]``, each row of ``dim`` to shares."""
        return (x / self.temperature).softmax(self.dim)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hard_swish": nn.Hardswish,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softmax": Softmax,
    "temperature_softmax": TemperatureSoftmax,
    "identity": nn.Identity,
}
