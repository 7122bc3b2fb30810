"""Pictures that a network cannot halve often enough, and features of the size that was promised."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from torso.structures import Features


def multiple_of(body: nn.Module, largest: int) -> int:
    """What the sides of a picture must be a multiple of, so that no layer of ``body`` drops its last row or column.

    1 where every strided layer rounds up by itself (an odd kernel with half of it as padding). A patch embedding alone
    asks for its own stride; poolings of 2 further up, and branches that are scaled up and added, ask for the stride of
    the highest level.

    Args:
        body: the network; its layers must be registered in the order they run.
        largest: stride of its highest level.
    """
    if any(isinstance(layer, nn.Upsample) for layer in body.modules()):
        return largest
    strided = [layer for layer in body.modules() if _stride(layer) > 1]
    rounding_down = [layer for layer in strided if not _rounds_up(layer)]
    if not rounding_down:
        return 1
    return _stride(strided[0]) if rounding_down == strided[:1] else largest


def padded(images: Tensor, multiple: int) -> Tensor:
    """The pictures with zeros (the mean colour) at the right and at the bottom, up to a multiple of so many pixels."""
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    return functional.pad(images, (0, right, 0, down)) if down or right else images


def cut(features: Features, strides: Sequence[int], height: int, width: int) -> Features:
    """What belongs to the picture before it was padded: ``ceil(H / stride)`` by ``ceil(W / stride)`` cells a level."""
    return [x[..., : -(-height // s), : -(-width // s)] for x, s in zip(features, strides, strict=True)]


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _stride(layer: nn.Module) -> int:
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return max(_pair(layer.stride))
    return 1


def _rounds_up(layer: nn.Module) -> bool:
    """Whether a side ``n`` becomes ``ceil(n / stride)`` for every ``n``."""
    if type(layer).__name__.endswith("Same"):  # timm's layers that pad as TensorFlow does
        return True
    padding, kernel = layer.padding, _pair(layer.kernel_size)  # type: ignore[arg-type]
    if getattr(layer, "ceil_mode", False):
        return kernel == _pair(layer.stride) and not any(_pair(padding))  # type: ignore[arg-type]
    dilation = _pair(getattr(layer, "dilation", 1))
    around = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return padding == "same" or [2 * p for p in _pair(padding)] == around  # type: ignore[arg-type]
