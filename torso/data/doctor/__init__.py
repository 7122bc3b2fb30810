"""The doctor: what a data set is, what is wrong with it, and what to do. It reads everything and changes nothing."""

from __future__ import annotations

from torso.data.doctor.diagnosis import Diagnosis
from torso.data.doctor.examine import examine
from torso.data.doctor.findings import KINDS, Finding, Group
from torso.data.doctor.page import page
from torso.data.doctor.repair import repair

__all__ = ["KINDS", "Diagnosis", "Finding", "Group", "examine", "page", "repair"]
