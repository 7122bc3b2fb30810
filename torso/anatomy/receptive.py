"""Receptive field and stride of every tensor of a model, by the recurrences of convolution and pooling.

A layer of kernel k, stride s and dilation d, on features whose neighbours lie j pixels apart and of which each sees r
pixels, gives features j s apart that see r + (k - 1) d j. Where paths join, the largest counts. What mixes all
positions (global pooling, attention) sees the whole picture: infinity.

Source: Computing Receptive Fields of Convolutional Neural Networks, 2019, doi:10.23915/distill.00021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten


class Field(NamedTuple):
    """What one position of a feature map sees; (height, width) in pixels of the picture."""

    size: tuple[float, float] = (1.0, 1.0)  # of the receptive field
    step: tuple[float, float] = (1.0, 1.0)  # between neighbours: the stride

    def over(self, kernel: Any, stride: Any, dilation: Any = (1, 1)) -> Field:
        """The field after a window."""
        k, s, d = (_pair(value) for value in (kernel, stride, dilation))
        size = (self.size[0] + (k[0] - 1) * d[0] * self.step[0], self.size[1] + (k[1] - 1) * d[1] * self.step[1])
        return Field(size, (self.step[0] * s[0], self.step[1] * s[1]))

    def everywhere(self) -> Field:
        """The field of what mixes all positions."""
        return Field((math.inf, math.inf), self.step)


class Receptive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows fields through everything that runs inside ``with``; start with `begin`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fields: Any = WeakTensorKeyDictionary()

    def begin(self, images: Tensor) -> None:
        """Says that a tensor is the picture."""
        self._fields[images] = Field()

    def of(self, tensor: Tensor) -> Field | None:
        """What a tensor sees; None where it does not come from the picture."""
        found: Field | None = self._fields.get(tensor)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and notes what its results see."""
        result = func(*args, **(kwargs or {}))
        inputs = [tensor for tensor in tensors((args, kwargs)) if tensor in self._fields]
        if inputs:
            fields = [self._fields[tensor] for tensor in inputs]
            joined = _joined(fields)
            rule = RULES.get(func.overloadpacket)
            field = rule(joined, inputs, args, result) if rule is not None else joined
            for tensor in tensors(result):
                self._fields[tensor] = field
        return result


def _joined(fields: list[Field]) -> Field:
    """Of paths that meet the one that sees most; the stride is that of the finest."""
    sizes = (max(field.size[0] for field in fields), max(field.size[1] for field in fields))
    return Field(sizes, (min(field.step[0] for field in fields), min(field.step[1] for field in fields)))


def _convolution(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    weight, stride, dilation, transposed = args[1], args[3], args[5], args[6]
    kernel = weight.shape[2:]
    if len(kernel) != 2:
        return field
    if not transposed:
        return field.over(kernel, stride, dilation)
    step = (field.step[0] / stride[0], field.step[1] / stride[1])
    reach = [math.ceil(((k - 1) * d + 1) / s) - 1 for k, d, s in zip(kernel, dilation, stride, strict=True)]
    return Field((field.size[0] + reach[0] * field.step[0], field.size[1] + reach[1] * field.step[1]), step)


def _pooling(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    kernel = args[1]
    stride = args[2] if len(args) > 2 and args[2] else kernel
    dilation = args[4] if len(args) > 4 and not isinstance(args[4], bool) else (1, 1)
    return field.over(kernel, stride, dilation)


def _adaptive(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    before, after = inputs[0].shape[-2:], next(tensors(result)).shape[-2:]
    if after[0] == 1 or after[1] == 1:
        return field.everywhere()
    window = [math.ceil(b / a) for b, a in zip(before, after, strict=True)]
    return field.over(window, [b / a for b, a in zip(before, after, strict=True)])


def _mean(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    dims = args[1] if len(args) > 1 and args[1] is not None else range(inputs[0].ndim)
    spatial = {dim % inputs[0].ndim for dim in dims} & set(range(inputs[0].ndim))
    last = {inputs[0].ndim - 1, inputs[0].ndim - 2} if inputs[0].ndim == 4 else {1}
    return field.everywhere() if spatial & last and inputs[0].ndim >= 3 else field


def _upsampling(reach: int) -> Callable[..., Field]:
    def rule(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
        before, after = inputs[0].shape[-2:], next(tensors(result)).shape[-2:]
        step = (field.step[0] * before[0] / after[0], field.step[1] * before[1] / after[1])
        if tuple(before) == tuple(after):
            return field
        return Field((field.size[0] + reach * field.step[0], field.size[1] + reach * field.step[1]), step)

    return rule


def _slices(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    """Every s-th row or column: put beside its neighbours (space to depth) it sees s pixels."""
    dim, step = args[1] % inputs[0].ndim if len(args) > 1 else 0, args[4] if len(args) > 4 else 1
    if inputs[0].ndim != 4 or dim < 2 or step == 1:
        return field
    return field.over((step, 1), (step, 1)) if dim == 2 else field.over((1, step), (1, step))


def _unshuffled(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    return field.over(args[1], args[1])


def _shuffled(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    return Field(field.size, (field.step[0] / args[1], field.step[1] / args[1]))


def _mixing(field: Field, inputs: list[Tensor], args: Any, result: Any) -> Field:
    """Two tensors of the picture multiplied as matrices: attention."""
    return field.everywhere() if len(inputs) > 1 else field


RULES: dict[Any, Callable[..., Field]] = {
    aten.convolution: _convolution,
    aten._convolution: _convolution,
    aten.max_pool2d_with_indices: _pooling,
    aten.avg_pool2d: _pooling,
    aten._adaptive_avg_pool2d: _adaptive,
    aten.adaptive_max_pool2d: _adaptive,
    aten.mean: _mean,
    aten.amax: _mean,
    aten.upsample_nearest2d: _upsampling(0),
    aten._upsample_nearest_exact2d: _upsampling(0),
    aten.upsample_bilinear2d: _upsampling(1),
    aten._upsample_bilinear2d_aa: _upsampling(1),
    aten.upsample_bicubic2d: _upsampling(3),
    aten.slice: _slices,
    aten.pixel_unshuffle: _unshuffled,
    aten.pixel_shuffle: _shuffled,
    aten.bmm: _mixing,
    aten.baddbmm: _mixing,
    aten._scaled_dot_product_flash_attention: _mixing,
    aten._scaled_dot_product_flash_attention_for_cpu: _mixing,
    aten._scaled_dot_product_efficient_attention: _mixing,
    aten._scaled_dot_product_attention_math: _mixing,
    aten._scaled_dot_product_fused_attention_overrideable: _mixing,
}
"""What an operation does to the field: called with the joined field, the tensors that come from the picture, the
arguments and the result."""


def _pair(value: Any) -> tuple[float, float]:
    if isinstance(value, int | float):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
