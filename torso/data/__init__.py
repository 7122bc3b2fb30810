"""Data: formats and their index, views and transforms, the loader, the built-in digits."""

from __future__ import annotations

from torso.data.formats.opening import open_index, recognise
from torso.data.index import Index, Problem

__all__ = ["Index", "Problem", "open_index", "recognise"]
