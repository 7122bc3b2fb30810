"""Likelihoods of objects, shared by the criteria that learn which priors match.

All are logarithms, so that a score of almost 0 or 1 keeps its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.boxes.coders import Coder
from torso.structures import DenseOutput, Targets


def log_rest(log_likelihood: Tensor, nearest: float) -> Tensor:
    """``log(1 - p)`` of ``log p``, which comes to 0 as near as ``nearest``."""
    return (-torch.expm1(log_likelihood.clamp(max=-nearest))).log()


def log_of_sure(log_likelihood: Tensor) -> Tensor:
    """``log(1 / (1 - p))`` of ``log p``: the weight of a mean-max.

    p comes to 1 as near as a number of its kind can be told from 1: nearer, the gradient of the mean is noise.
    """
    return -log_rest(log_likelihood, torch.finfo(log_likelihood.dtype).eps)


def absence(log_likelihood: Tensor, gamma: float) -> Tensor:
    """What it costs to say "something" with probability p where nothing is: ``-p^gamma log(1 - p)``, of ``log p``."""
    cost = -log_rest(log_likelihood, torch.finfo(log_likelihood.dtype).tiny)
    return cost if gamma == 0 else (log_likelihood * gamma).exp() * cost  # 0 times -inf is no number


def log_mean(log_weight: Tensor, log_value: Tensor, there: Tensor) -> Tensor:
    """The logarithm of a weighted mean over the last dimension: ``[..., K]`` to ``[...]``.

    Args:
        log_weight: ``[..., K]``; weights need not sum to 1.
        log_value: ``[..., K]``.
        there: ``[..., K]`` bool: what takes part. Where nothing does the answer is finite, and means nothing.
    """
    counted = there | ~there.any(dim=-1, keepdim=True)
    weight = log_weight.masked_fill(~counted, -torch.inf)
    return (weight + log_value).logsumexp(dim=-1) - weight.logsumexp(dim=-1)


def class_logits(output: DenseOutput, targets: Targets, places: Tensor) -> Tensor:
    """The logits of the class of each object at its ``places [B, M, K]`` (priors): ``[B, M, K]``."""
    classes = output.logits.shape[-1]
    index = places * classes + targets.labels[..., None]
    return output.logits.flatten(1).gather(1, index.flatten(1)).view_as(places)


def box_costs(box_loss: nn.Module, coder: Coder, output: DenseOutput, targets: Targets, places: Tensor) -> Tensor:
    """The box loss of each object with the boxes at its ``places [B, M, K]`` (priors): ``[B, M, K]``."""
    said = output.boxes if box_loss.takes == "boxes" else output.deltas
    index = places.flatten(1)[..., None].expand(-1, -1, said.shape[-1])
    guess = said.gather(1, index).view(*places.shape, -1)
    wanted = targets.boxes.to(output.priors.dtype)[:, :, None].expand(*places.shape, 4)
    if box_loss.takes == "deltas":
        wanted = coder.encode(wanted, output.priors[places], output.strides[places])
    cost: Tensor = box_loss(guess, wanted)
    return cost


def summed(cost: Tensor, targets: Targets, there: Tensor) -> Tensor:
    """The cost ``[B, M]`` of the objects of which anything is ``there [B, M, K]``, by their weights, summed."""
    counted = there.any(dim=-1).to(cost.dtype)
    if targets.weights is not None:
        counted = counted * targets.weights.to(cost.dtype)
    return (cost * counted).sum()


def check_box_loss(box_loss: nn.Module, name: str) -> None:
    """A likelihood is made of one number a box.

    Raises:
        ValueError: of another loss.
    """
    if getattr(box_loss, "takes", None) not in ("deltas", "boxes"):
        raise ValueError(f"{name} needs a box loss of deltas or boxes such as smooth_l1 or giou, got {box_loss}")
