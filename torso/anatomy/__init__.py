"""Anatomy: what a model is made of, measured without running it on real pictures."""

from __future__ import annotations

from torso.anatomy.summary import Row, summary

__all__ = ["Row", "summary"]
