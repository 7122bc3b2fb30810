"""Criteria: whole objectives, made of an assigner and losses.

Contract: ``criterion(output, targets) -> {name: scalar, already weighted}``. Criteria of dense detectors are made with
those of ``assigner``, ``class_loss``, ``box_loss``, ``coder``, ``sample`` and ``num_classes`` that they name. They say
with ``background`` whether scores are a softmax with a background, and with ``branches`` what the head has to say
beside classes and boxes (`torso.heads.dense.BRANCHES`). One whose priors may be regions has ``of_regions`` True, and
takes as a third argument the `torso.structures.Assignment` they were drawn for, or None.
"""

from __future__ import annotations

from torch import nn

from torso.criteria.auto_assign import AutoAssign
from torso.criteria.centernet import CenterNet
from torso.criteria.classify import ClassifyCriterion
from torso.criteria.corner import Corner
from torso.criteria.dense import DenseCriterion
from torso.criteria.free_anchor import FreeAnchor
from torso.criteria.query import QueryCriterion
from torso.criteria.rep_points import RepPoints

CRITERIA: dict[str, type[nn.Module]] = {
    "auto_assign": AutoAssign,
    "centernet": CenterNet,
    "classify": ClassifyCriterion,
    "corner": Corner,
    "dense": DenseCriterion,
    "free_anchor": FreeAnchor,
    "query": QueryCriterion,
    "rep_points": RepPoints,
}
