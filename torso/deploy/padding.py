"""TensorFlow's "same" padding, for pictures whose sides are multiples of every stride."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def same_padding_settled() -> Iterator[None]:
    """While it lasts, timm's "same" padding of a free size is a constant, right for multiples of the stride.

    timm works it out of the size by a float division and a maximum. Of a symbolic size these nest, layer after layer,
    until torch.export is no longer done within minutes. ``verify`` compares with the model as it was.
    """
    padding: Any = sys.modules.get("timm.layers.padding")
    if padding is None:
        yield
        return
    original = padding.get_same_padding

    def settled(x: Any, kernel_size: int, stride: int, dilation: int) -> int:
        if isinstance(x, int):
            return int(original(x, kernel_size, stride, dilation))
        return max(dilation * (kernel_size - 1) + 1 - stride, 0)

    padding.get_same_padding = settled
    try:
        yield
    finally:
        padding.get_same_padding = original
