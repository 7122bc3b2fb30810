"""The folder of a run: what is where, and rows that a crash cannot double."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torso.config import TorsoError
from torso.train import disk

Status = Literal["running", "done", "stopped", "failed"]


class RunFolder:
    """`runs/<task>/<name>-<n>/`, the place of everything a run writes.

    Only paths are known here: a file exists when somebody has written it. `recipe`, `config`, `model`, `report`,
    `data_report`, `plots` belong to the caller of `engine.fit`; the rest is written while training.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.command = self.path / "command.txt"
        self.environment = self.path / "environment.json"
        self.data_report = self.path / "data_report.json"
        self.metrics = self.path / "metrics.jsonl"
        self.results = self.path / "results.csv"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model.safetensors"
        self.config = self.path / "config.json"
        self.plots = self.path / "plots"
        self.report = self.path / "report.html"
        self.state = self.path / "state.json"

    @classmethod
    def create(cls, root: str | Path, task: str, name: str) -> RunFolder:
        """Make the next free `root/task/name-<n>` and note the command and the environment in it.

        Raises:
            TorsoError: when nothing can be written there.
        """
        parent = Path(root) / task
        try:
            parent.mkdir(parents=True, exist_ok=True)
            number = 1
            while True:
                try:
                    (parent / f"{name}-{number}").mkdir()  # two runs started together get two numbers
                    break
                except FileExistsError:
                    number += 1
            run = cls(parent / f"{name}-{number}")
            run.checkpoints.mkdir()
            run.plots.mkdir()
            run.command.write_text(shlex.join(sys.orig_argv) + "\n", encoding="utf-8")
            run.environment.write_text(json.dumps(environment(), indent=1, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise TorsoError(
                f"no run folder can be made in {parent}: {error.strerror}; choose another place"
            ) from error
        return run

    def set_state(
        self, status: Status, *, epoch: int = 0, step: int = 0, best: Mapping[str, Any] | None = None, error: str = ""
    ) -> None:
        """Say in `state.json` how the run is doing; a reader never sees half of it."""
        state = {"status": status, "epoch": epoch, "step": step, "best": best}
        with self._writing():
            disk.write_atomic(self.state, _json(state | ({"error": error} if error else {})).encode())

    def get_state(self) -> dict[str, Any]:
        """What `set_state` wrote last; empty when nothing yet."""
        try:
            found = json.loads(self.state.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        with self._writing(), self.metrics.open("a", encoding="utf-8") as file:
            file.write(_json(row) + "\n")

    def add_result(self, row: Mapping[str, Any]) -> None:
        """Append a row to `results.csv`; a column that is new is empty in the rows before."""
        self._write_results([*self.read_results(), {key: _cell(value) for key, value in row.items()}])

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, without one that a crash has cut."""
        rows = []
        for line in self._lines(self.metrics):
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def read_results(self) -> list[dict[str, str]]:
        """The rows of `results.csv`, as text."""
        return list(csv.DictReader(self._lines(self.results)))

    def rewind(self, step: int, epoch: int) -> None:
        """Forget rows of later steps, and of epochs from `epoch` on: a resumed run will write them anew."""
        if self.metrics.exists():
            kept = [row for row in self.read_metrics() if row["step"] <= step]
            with self._writing():
                disk.write_atomic(self.metrics, "".join(_json(row) + "\n" for row in kept).encode())
        if self.results.exists():
            self._write_results([row for row in self.read_results() if int(row["epoch"]) <= epoch])

    def _write_results(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with self._writing():
            disk.write_atomic(self.results, text.getvalue().encode())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TorsoError(
                f"{self.path} cannot be written: {error.strerror or error}. "
                "Checkpoints that are there are whole: make room or mend the disk, then `torso resume`"
            ) from error

    @staticmethod
    def _lines(path: Path) -> list[str]:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def environment() -> dict[str, Any]:
    """Versions, machine and, where this is a git checkout, commit: what a number in a report depends on."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions: dict[str, str | None] = {}
    for name in ("torso", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "hotcoco"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "processor": _first(_processor, platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())],
        "commit": _first(_commit, None),
    }


def _processor() -> str | None:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()


def _first(ask: Callable[[], str | None], otherwise: str | None) -> str | None:
    try:
        return ask() or otherwise
    except (OSError, subprocess.SubprocessError):
        return otherwise


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """JSON has no NaN: a metric that does not exist is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return str(value)
