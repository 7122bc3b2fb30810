"""Batch norms whose statistics reach beyond the batch in memory: across iterations, and across micro-batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class CrossIteration(nn.BatchNorm2d):
    """Batch norm over the statistics of the last ``iterations`` batches, corrected for how the weights moved since.

    Mean and mean square of a past batch are functions of the weights of the convolution before the norm; a Taylor
    polynomial of first order brings them to the weights of now. ``iterations=1`` is batch norm. In eval mode, and for
    the running statistics (which learn from the current batch alone), it is batch norm too.

    The convolution is found in the autograd graph: nothing has to be wired. Where the input is not the direct output of
    a convolution with a learnable kernel of its own, past batches cannot be corrected and the layer is batch norm;
    where it depends on no learnable weight, past statistics need no correction and are used. Past batches get no
    gradient. They are part of the state dict, so a run goes on exactly. Training works in eager mode only.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        iterations: batches that count, with the current one; 4 in the paper.
        burn_in: training steps of plain batch norm first, while weights still move fast.
        eps: added to the variance.
        momentum: share of the current batch in the running statistics.

    Raises:
        ValueError: `iterations` under 1 or `burn_in` under 0.
        RuntimeError: training inside a compiled graph.

    Source: Cross-Iteration Batch Normalization, 2020, arXiv:2002.05712 (invalid variances are clamped to 0 as in its
        equation; the authors' code leaves such batches out)
    """

    _past: Tensor  # [n, mean | mean square, C, value at weights 0 and derivative by the F weights of a filter]

    def __init__(
        self, num_features: int, iterations: int = 4, burn_in: int = 0, eps: float = 1e-5, momentum: float = 0.1
    ):
        if iterations < 1 or burn_in < 0:
            raise ValueError(f"iterations is 1 or more and burn_in 0 or more, not {iterations} and {burn_in}")
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.iterations, self.burn_in = iterations, burn_in
        # No buffers: their number of rows and columns is not known before the first step.
        self._past = torch.zeros(0, 2, num_features, 1)
        self._steps: int | None = None  # num_batches_tracked as a number, read once: reading a tensor waits for the GPU

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        if not self.training or self.iterations == 1:
            return super().forward(x)
        self._steps = (int(self._tracked) if self._steps is None else self._steps) + 1
        if self._steps <= self.burn_in or not torch.is_grad_enabled():
            return super().forward(x)
        known, kernel = _kernel_of(x, self.num_features)
        if not known:
            return super().forward(x)
        centred, mean, var, count = _statistics(x)
        past = self._corrected(kernel)  # [n, 2, C]
        means = torch.cat([mean[None], past[:, 0]])
        variances = torch.cat([var[None], (past[:, 1] - past[:, 0].square()).clamp(min=0)])
        pooled = means.mean(0)
        spread = variances.mean(0) + (means - pooled).square().mean(0)  # equals mean of squares - square of mean
        with torch.no_grad():
            _move(self, mean, var, count)
            self._tracked.add_(1)
        self._remember(mean, var, kernel)
        return _normalised(self, centred, mean - pooled, spread).to(x.dtype)

    @property
    def _tracked(self) -> Tensor:
        return self.get_buffer("num_batches_tracked")

    def _corrected(self, kernel: Tensor | None) -> Tensor:
        """Mean and mean square of the past batches at the weights of now, ``[n, 2, C]``."""
        columns = 1 if kernel is None else 1 + kernel[0].numel()
        if self._past.shape[-1] != columns:  # the kernel was frozen or freed in between: begin anew
            self._past = self._past.new_zeros(0, 2, self.num_features, columns)
        self._past = self._past.to(self._tracked.device)
        if kernel is None:
            return self._past[..., 0]
        weights = kernel.detach().flatten(1).to(self._past.dtype)
        return self._past[..., 0] + (self._past[..., 1:] * weights).sum(-1)

    def _remember(self, mean: Tensor, var: Tensor, kernel: Tensor | None) -> None:
        values = torch.stack([mean, var + mean.square()])  # [2, C]
        entry = values.detach()[..., None]
        if kernel is not None:
            # A channel depends on its own filter only: the derivative of the sum holds those of all channels.
            slopes = [torch.autograd.grad(row.sum(), kernel, retain_graph=True)[0].flatten(1) for row in values]
            slope = torch.stack(slopes).to(entry.dtype)  # [2, C, F]
            at_zero = entry - (slope * kernel.detach().flatten(1).to(entry.dtype)).sum(-1, keepdim=True)
            entry = torch.cat([at_zero, slope], -1)
        self._past = torch.cat([entry[None], self._past.to(entry.dtype)])[: self.iterations - 1]

    def get_extra_state(self) -> Tensor:
        """The past batches, ``[n, 2, C, 1 + F]``."""
        return self._past

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what `get_extra_state` gave."""
        self._past = state.detach().clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The state of an ordinary batch norm will do: it has no past.
        state_dict.setdefault(f"{prefix}_extra_state", self._past[:0])
        self._steps = None
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CrossMiniBatch(nn.BatchNorm2d):
    """Batch norm over all micro-batches that were seen since the weights last moved (gradient accumulation).

    The i-th micro-batch of a step is normalised with the statistics of micro-batches 1 to i, all made by the same
    weights; the last one has those of the whole batch, and the running statistics move once a step, as if the batch had
    come in one piece. Earlier micro-batches get no gradient. That a step has begun is seen by the norm's own weight and
    bias: the optimizer has changed them. With both frozen it is batch norm, unless `micro_batches` is given.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        micro_batches: micro-batches a step, where the norm cannot see the steps; usually left out.
        eps: added to the variance.
        momentum: share of the whole batch in the running statistics.

    Raises:
        ValueError: `micro_batches` under 1.

    Source: YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, arXiv:2004.10934
    """

    def __init__(self, num_features: int, micro_batches: int | None = None, eps: float = 1e-5, momentum: float = 0.1):
        if micro_batches is not None and micro_batches < 1:
            raise ValueError(f"micro_batches is 1 or more, not {micro_batches}")
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.micro_batches = micro_batches
        # Of the step under way: mean, variance, number of values and of micro-batches so far; and what weight, bias and
        # running statistics were when it began. Tensors all, so that nothing waits for the GPU.
        self.register_buffer("step", torch.zeros(8, num_features))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        if not self.training or (self.micro_batches is None and not self.weight.requires_grad):
            return super().forward(x)
        goes_on, before = self._before()
        centred, mean, var, count = _statistics(x)
        old_mean, old_var, values, batches = before[:4] * goes_on
        share = count / (values + count)  # of this micro-batch, a channel
        pooled = mean * share + old_mean * (1 - share)
        spread = (var + (mean - pooled).square()) * share + (old_var + (old_mean - pooled).square()) * (1 - share)
        with torch.no_grad():
            total = values + count
            self.get_buffer("running_mean").copy_(before[6])
            self.get_buffer("running_var").copy_(before[7])
            _move(self, pooled, spread, total)
            self.get_buffer("num_batches_tracked").add_(~goes_on)
            self.get_buffer("step").copy_(torch.stack([pooled, spread, total, batches + 1, *before[4:]]))
        return _normalised(self, centred, mean - pooled, spread).to(x.dtype)

    @torch.no_grad()
    def _before(self) -> tuple[Tensor, Tensor]:
        """Whether the step goes on (a bool tensor), and `step` as it is before this micro-batch."""
        step = self.get_buffer("step")
        names = ("running_mean", "running_var")
        now = torch.stack([self.weight, self.bias, *(self.get_buffer(name) for name in names)])
        goes_on = (step[4:6] == now[:2]).all() & (step[3] > 0).all()
        if self.micro_batches is not None:
            goes_on = goes_on & (step[3] < self.micro_batches).all()
        return goes_on, torch.cat([step[:4], torch.where(goes_on, step[4:], now)])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The state of an ordinary batch norm will do: no step is under way.
        state_dict.setdefault(f"{prefix}step", torch.zeros_like(self.get_buffer("step")))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _kernel_of(x: Tensor, channels: int) -> tuple[bool, Tensor | None]:
    """Whether the weights behind ``x`` are known, and the learnable kernel of the convolution that made it, if any."""
    made_by = x.grad_fn
    if made_by is None:
        return not x.requires_grad, None
    if "Compiled" in made_by.name():
        raise RuntimeError("cbn learns in eager mode only: in a compiled graph it cannot see the convolution before it")
    if made_by.name() != "ConvolutionBackward0" or made_by._saved_transposed:  # type: ignore[attr-defined]
        return False, None
    node = made_by.next_functions[1][0]
    while node is not None and node.name() == "ToCopyBackward0":  # autocast
        node = node.next_functions[0][0]
    if node is None:
        return True, None  # a frozen kernel
    kernel = getattr(node, "variable", None)
    if not isinstance(kernel, Tensor) or kernel.shape[0] != channels:
        return False, None
    return True, kernel


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """``x - mean``, mean and (biased) variance of each channel in at least float32, and of how many values."""
    count = x.numel() // x.shape[1]
    if count < 2:
        raise ValueError(f"a batch norm needs more than one value a channel in training, got {list(x.shape)}")
    values = x if x.dtype.itemsize >= 4 else x.float()
    mean = values.mean((0, 2, 3))
    centred = values - mean[:, None, None]
    return centred, mean, centred.square().mean((0, 2, 3)), count  # torch.var_mean takes much longer on a CPU


def _move(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int | Tensor) -> None:
    """The running statistics one step on; the variance unbiased, as torch does it."""
    momentum = norm.momentum
    assert momentum is not None
    running_mean, running_var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_(var.to(running_var.dtype) * (count / (count - 1)), momentum)


def _normalised(norm: nn.BatchNorm2d, centred: Tensor, offset: Tensor, var: Tensor) -> Tensor:
    """Values ``centred + offset`` of the variance ``var``, scaled and shifted."""
    scale = (var + norm.eps).rsqrt() * norm.weight
    return (centred * scale[:, None, None]).add_((norm.bias + offset * scale)[:, None, None])
