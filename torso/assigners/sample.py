"""Sampling: which of the assigned priors learn, and how much.

Contract: ``sample(assigned, class_cost, box_cost, output, targets) -> Sampled`` with the unreduced losses ``[B, P]`` of
classes (of every prior) and boxes (meant where positive), batched, without synchronisation or shapes that depend on
data. Ranking by a loss is done without gradient; a factor may carry one (CARL).
"""

from __future__ import annotations

from torch import nn

from torso.assigners.mining import OHEM, SOHEM, HardNegative, Random
from torso.assigners.prime import PISA
from torso.assigners.sampled import Sampled

__all__ = ["OHEM", "PISA", "SAMPLES", "SOHEM", "HardNegative", "Random", "Sampled"]

SAMPLES: dict[str, type[nn.Module]] = {
    "hard_negative": HardNegative,
    "ohem": OHEM,
    "pisa": PISA,
    "random": Random,
    "s_ohem": SOHEM,
}
