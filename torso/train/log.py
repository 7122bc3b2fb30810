"""What a run says while it trains: a live bar on a terminal, plain lines in a pipe, nothing when asked to be quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

HIDDEN = ("epoch", "step", "seconds")


class Log:
    """One line an epoch that stays, and between them where the run is and how long it will take.

    Args:
        quiet: say nothing at all.
        stream: where to; standard error by default, so that results on standard output stay clean.
        terminal: whether to draw; found out from the stream when None.
        hidden: numbers of an epoch that are left to the files, so that its line fits on a screen.
    """

    def __init__(
        self,
        quiet: bool = False,
        stream: TextIO | None = None,
        terminal: bool | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self.quiet = quiet
        self.hidden = {*HIDDEN, *hidden}
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty() if terminal is None else terminal
        self._bar: Progress | None = None
        self._epochs = self._total = self._first = 0
        self._begun = 0.0

    def start(self, *, epochs: int, total_steps: int, step: int = 0) -> None:
        """Training begins, or goes on, at a step."""
        self._epochs, self._total, self._first = epochs, total_steps, step
        self._begun = time.monotonic()
        if self.terminal and not self.quiet:
            self._bar = self._drawn()
            self._bar.add_task("", total=total_steps, completed=step, loss="")
            self._bar.start()

    def step(self, *, epoch: int, step: int, loss: float) -> None:
        """An optimizer step is done."""
        if self._bar is not None:
            task = self._bar.tasks[0].id
            self._bar.update(
                task, completed=step, description=f"epoch {epoch + 1}/{self._epochs}", loss=f"loss {loss:.4g}"
            )

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done: its losses, its metrics, and the time that is left."""
        numbers = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
            if name not in self.hidden
        )
        self.say(f"epoch {row['epoch']}/{self._epochs}  {numbers}  {_span(row['seconds'])}{self._left(row['step'])}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()

    def stop(self) -> None:
        """Training is over, in whatever way; the terminal is as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _left(self, step: int) -> str:
        done = step - self._first
        if done <= 0 or step >= self._total:
            return ""
        return f"  {_span((time.monotonic() - self._begun) / done * (self._total - step))} left"

    def _drawn(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(file=self.stream, force_terminal=True),
            transient=True,
        )


def _span(seconds: float) -> str:
    """A length of time as a person says it.

    >>> [_span(4.2), _span(75), _span(7260)]
    ['4.2 s', '1 min 15 s', '2 h 01 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
