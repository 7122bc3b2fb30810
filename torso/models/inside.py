"""What an answer is chosen from, by name: where a model's choices can be looked at, and compared one by one.

A choice (thresholds, top-k, suppression) is not continuous: numbers that differ in the last bit may choose otherwise.
So a model passes the numbers that each choice is made from through ``keep(name, numbers)``, and goes on with what that
returns. Export gives them out; the proof of a file puts the file's own in their place, so that every step is compared
on equal numbers. They are floating point, ``[B, ...]``; a name that ends in ``boxes`` holds ``xyxy`` pixels first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Keep = Callable[[str, Tensor], Tensor]
"""``keep(name, numbers)`` returns the numbers to go on with."""


def go_on(name: str, numbers: Tensor) -> Tensor:
    """Nothing is kept."""
    return numbers


class Kept(dict[str, Tensor]):
    """Keeps the numbers by name, and goes on with those of another where it is given.

    Args:
        other: numbers to put in the place of the model's own.
    """

    def __init__(self, other: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.other = dict(other or {})

    def __call__(self, name: str, numbers: Tensor) -> Tensor:
        """Keep these numbers; the ones to go on with."""
        self[name] = numbers
        return self.other.get(name, numbers)
