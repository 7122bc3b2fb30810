"""The promise as a user meets it: a run stopped by SIGTERM and resumed ships the same weights, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torso.cli import main

SMALL = ["data.size=96", "data.batch=4", "train.schedule.warmup=2", "train.epochs=3", "train.evaluate_every=2"]


@pytest.mark.part("train/checkpoints", "cli/verbs")
def test_a_preempted_run_goes_on_as_if_nothing_had_happened(digits: Path, tmp_path: Path) -> None:
    words = ["train", "demo", f"data.path={digits}", *SMALL]
    assert main([*words, "data.workers=0", "--runs", str(tmp_path / "straight"), "--quiet"]) == 0

    command = [sys.executable, "-m", "torso", *words, "data.workers=1", "--runs", str(tmp_path / "stopped")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        run = tmp_path / "stopped" / "detect" / "demo-1"
        _until_it_trains(run, process)
        os.killpg(process.pid, signal.SIGTERM)  # workers too, as a scheduler does
        _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "torso resume" in said
    state = json.loads((run / "state.json").read_text())
    assert state["status"] == "stopped"
    assert not (run / "model.safetensors").exists()

    assert main(["resume", str(run), "--quiet"]) == 0
    straight = tmp_path / "straight" / "detect" / "demo-1"
    assert (run / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    metrics = [json.loads((folder / "config.json").read_text())["metrics"] for folder in (run, straight)]
    assert metrics[0] == metrics[1]


def _until_it_trains(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait for the first row of metrics; give up when the process ends or after two minutes."""
    for _ in range(1200):
        if (run / "metrics.jsonl").is_file():
            return
        if process.poll() is not None:
            pytest.fail(f"ended by itself: {process.stderr.read() if process.stderr else ''}")
        time.sleep(0.1)
    pytest.fail("no step in two minutes")
