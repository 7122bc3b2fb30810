"""Criteria: whole objectives, made of an assigner and losses.

Contract: ``criterion(output, targets) -> {name: scalar, already weighted}``.
"""

from __future__ import annotations

from torch import nn

from torso.criteria.classify import ClassifyCriterion
from torso.criteria.dense import DenseCriterion

CRITERIA: dict[str, type[nn.Module]] = {"classify": ClassifyCriterion, "dense": DenseCriterion}
