"""Gaussian mixtures of many small sets of points at once, by a fixed number of steps of expectation maximisation.

Source: Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977 (scikit-learn's GaussianMixture)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """K Gaussians in D independent dimensions, of each of many sets."""

    weights: Tensor  # [..., K], sum to 1
    means: Tensor  # [..., K, D]
    variances: Tensor  # [..., K, D]

    def log_parts(self, points: Tensor) -> Tensor:
        """The logarithm of weight times density of every component at ``points [..., N, D]``: ``[..., N, K]``."""
        away = points.unsqueeze(-2) - self.means.unsqueeze(-3)  # [..., N, K, D]
        log = (away.square() / self.variances.unsqueeze(-3)).sum(dim=-1) + self.variances.log().sum(-1).unsqueeze(-2)
        return self.weights.log().unsqueeze(-2) - (log + points.shape[-1] * math.log(2 * math.pi)) / 2


def fit(points: Tensor, counts: Tensor, means: Tensor, steps: int, floor: float = 1e-6) -> Mixture:
    """The mixture after ``steps`` steps from components of the given means, variance 1 and equal weight.

    Args:
        points: ``[..., N, D]``.
        counts: how often each point is there, ``[..., N]``, 0 or more; a set may be empty.
        means: where the components begin, ``[..., K, D]``.
        steps: of expectation and maximisation.
        floor: added to the variances, so that a component of one point stays finite.
    """
    components = means.shape[-2]
    mixture = Mixture(torch.full_like(means[..., 0], 1 / components), means, torch.ones_like(means))
    tiny = 10 * torch.finfo(points.dtype).eps
    for _ in range(steps):
        belongs = mixture.log_parts(points).softmax(dim=-1) * counts.unsqueeze(-1)  # [..., N, K]
        size = belongs.sum(dim=-2) + tiny  # [..., K]
        share = (belongs / size.unsqueeze(-2)).transpose(-1, -2)  # [..., K, N]
        means = share @ points  # [..., K, D]
        away = points.unsqueeze(-3) - means.unsqueeze(-2)  # [..., K, N, D]
        variances = (share.unsqueeze(-1) * away.square()).sum(dim=-2) + floor
        mixture = Mixture(size / size.sum(dim=-1, keepdim=True), means, variances)
    return mixture
