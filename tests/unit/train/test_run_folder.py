"""A run's files: numbered folders, rows that a crash cannot double, JSON that is JSON."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path

import pytest

from torso.config import TorsoError
from torso.train.run_folder import RunFolder


def test_create(tmp_path: Path) -> None:
    first, second = (RunFolder.create(tmp_path / "ru ns", "detect", "retinanet") for _ in range(2))
    assert first.path == tmp_path / "ru ns" / "detect" / "retinanet-1"
    assert second.path.name == "retinanet-2"
    assert first.checkpoints.is_dir()
    assert first.plots.is_dir()
    environment = json.loads(first.environment.read_text())
    assert environment["packages"]["torch"]
    assert environment["cores"] >= 1
    assert environment["threads"] >= 1
    assert shlex.split(first.command.read_text()) == sys.orig_argv


def test_create_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(TorsoError, match="choose another place"):
        RunFolder.create(tmp_path / "runs", "detect", "x")


def test_metrics_are_json_and_survive_a_cut(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in range(1, 5):
        run.add_metrics({"step": step, "loss": math.nan if step == 2 else step / 2, "losses": {"箱": math.inf}})
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    assert lines[1] == '{"step": 2, "loss": null, "losses": {"箱": null}}'
    run.metrics.write_text("\n".join(lines)[:-9], encoding="utf-8")
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    run.rewind(step=2, epoch=0)
    run.add_metrics({"step": 3})
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]


def test_results_grow_columns(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.add_result({"epoch": 1, "loss": 0.123456789})
    run.add_result({"epoch": 2, "loss": 0.1, "AP": 0.5, "note": "a,b"})
    run.add_result({"epoch": 3, "loss": 0.1, "AP": math.nan})
    assert run.results.read_text().splitlines() == [
        "epoch,loss,AP,note",
        "1,0.123457,,",
        '2,0.1,0.5,"a,b"',
        "3,0.1,,",
    ]
    run.rewind(step=99, epoch=2)
    assert [row["epoch"] for row in run.read_results()] == ["1", "2"]


def test_state(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.get_state() == {}
    run.set_state("running", epoch=2, step=10, best={"metric": "AP", "value": 0.25})
    assert run.get_state() == {"status": "running", "epoch": 2, "step": 10, "best": {"metric": "AP", "value": 0.25}}
    run.state.write_text("{")
    assert run.get_state() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
