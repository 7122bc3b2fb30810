"""How things are timed here: side by side in rounds, for on a busy machine only ratios within a round mean anything."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads on two busy cores measure the neighbours

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "numpy", "timm", "opencv-python-headless", "simplejpeg", "onnxruntime")


def rounds(tasks: Mapping[str, Callable[[], object]], count: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each task in each of ``count`` rounds; every round runs all tasks, each time another one first."""
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm, count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            tasks[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """The median over rounds of ours / theirs: below 1 we are faster."""
    return round(statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)), 4)


def milliseconds(seconds: list[float]) -> float:
    """The median."""
    return round(1000 * statistics.median(seconds), 3)


def processor() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def write(name: str, **results: Any) -> None:
    """Print the results, and keep them with the machine, the versions, the command and the date."""
    load = os.getloadavg()[0]
    content = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": " ".join(["OMP_NUM_THREADS=" + os.environ["OMP_NUM_THREADS"], "python", f"benchmarks/{name}.py"]),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load": round(load, 1)},
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        **results,
    }
    text = json.dumps(content, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
