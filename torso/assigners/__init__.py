"""Assigners: which prior learns which object.

Contract: ``assigner(output: DenseOutput, targets: Targets) -> Assignment``, without gradient, batched over padded
targets with at least one row, without synchronisation with the host or shapes that depend on data. A prior is positive,
negative, or neither (it lies in an ignored region or between two thresholds) and then learned from by no loss.
Those with ``of_regions`` True also take priors that each picture has of its own, ``[B, P, 4]`` instead of ``[P, 4]``.
"""

from __future__ import annotations

from torch import nn

from torso.assigners.atss import ATSS
from torso.assigners.center import Center
from torso.assigners.fcos import FCOS
from torso.assigners.grid import Grid
from torso.assigners.hungarian import Hungarian
from torso.assigners.iqdet import IQDet
from torso.assigners.max_iou import MaxIoU
from torso.assigners.ota import OTA
from torso.assigners.paa import PAA
from torso.assigners.scale import Scale
from torso.assigners.sim_ota import SimOTA
from torso.assigners.task_aligned import TaskAligned

ASSIGNERS: dict[str, type[nn.Module]] = {
    "atss": ATSS,
    "center": Center,
    "fcos": FCOS,
    "grid": Grid,
    "hungarian": Hungarian,
    "iqdet": IQDet,
    "max_iou": MaxIoU,
    "ota": OTA,
    "paa": PAA,
    "scale": Scale,
    "sim_ota": SimOTA,
    "task_aligned": TaskAligned,
}
