"""Heads: features to raw outputs.

Dense heads are constructed with ``in_channels`` (of every level), ``num_classes`` and ``num_priors`` (priors a cell),
all
wired; called with ``Features`` they return `torso.heads.dense.HeadOutput`, and ``scores(output)`` turns raw logits into
scores in 0..1. Classification heads take ``in_channels`` and ``num_classes`` and return ``[B, C]`` logits. Every head,
or the heads it is made of, has ``reset_classes(num_classes)``: new layers of class logits, all else as it was.
"""

from __future__ import annotations

from torch import nn

from torso.heads.classify import Classify
from torso.heads.retina import Retina
from torso.heads.small_objects import SmallObjects

HEADS: dict[str, type[nn.Module]] = {"classify": Classify, "retina": Retina, "small_objects": SmallObjects}
