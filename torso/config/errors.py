"""What can go wrong for a user, with the exit code of the command line beside it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN = 24  # names in a message


class TorsoError(Exception):
    """Something a user can mend; the message is one sentence that says how. ``code`` is the exit status."""

    code = 1


class DataError(TorsoError):
    """Pictures or annotations that cannot be used."""

    code = 3


class ModelError(TorsoError):
    """A model or a checkpoint that cannot be built, read or fitted with weights."""

    code = 4


class ExportError(TorsoError):
    """An export that failed, or that does not answer as the original does."""

    code = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe: ``where`` is ``file:line`` or the override that caused it."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class RecipeError(TorsoError):
    """A recipe that cannot be used; ``problems`` holds everything that is wrong with it, not only the first."""

    code = 2

    def __init__(self, problems: Sequence[Problem] | str):
        self.problems = [Problem("", problems)] if isinstance(problems, str) else list(problems)
        lines = [str(problem) for problem in self.problems]
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems in the recipe", *lines]))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that was probably meant by ``name``."""
    found = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(name: str, names: Iterable[str], otherwise: str = "choose from") -> str:
    """The end of a sentence about an unknown name: what was probably meant, or all there is.

    >>> suggestion("chanels", ["channels", "extra"])
    "; did you mean 'channels'?"
    >>> suggestion("x", ["channels", "extra"])
    '; choose from channels, extra'
    """
    names = list(names)
    near = nearest(name, names)
    if near:
        return f"; did you mean {near!r}?"
    shown = [*names[:SHOWN], "..."] if len(names) > SHOWN else names
    return f"; {otherwise} {', '.join(shown)}" if names else ""
