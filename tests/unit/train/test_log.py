"""Plain lines in a pipe, a bar on a terminal, nothing when quiet."""

from __future__ import annotations

import io
from typing import Any

import pytest

from torso.train.log import Log


def tell(log: Log) -> None:
    log.start(epochs=2, total_steps=20)
    for epoch in range(2):
        for step in range(10 * epoch + 1, 10 * epoch + 11):
            log.step(epoch=epoch, step=step, loss=1 / step)
        row: dict[str, Any] = {"epoch": epoch + 1, "step": 10 * epoch + 10, "loss": 0.25, "AP": 0.5, "seconds": 3.21}
        log.epoch(row)
    log.say("[bold] is not markup")
    log.stop()


def test_pipe() -> None:
    stream = io.StringIO()
    tell(Log(stream=stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("epoch 1/2  loss 0.25  AP 0.5  3.2 s")
    assert lines[0].endswith("left")
    assert lines[1:] == ["epoch 2/2  loss 0.25  AP 0.5  3.2 s", "[bold] is not markup"]


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    tell(Log(stream=stream, terminal=True))
    text = stream.getvalue()
    assert "epoch 1/2  loss 0.25  AP 0.5  3.2 s" in text
    assert "[bold] is not markup" in text
    assert "\x1b[" in text
    assert "20/20" in text


def test_quiet() -> None:
    for terminal in (True, False):
        stream = io.StringIO()
        tell(Log(quiet=True, stream=stream, terminal=terminal))
        assert stream.getvalue() == ""
