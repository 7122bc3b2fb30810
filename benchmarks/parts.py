"""Every part written here, or adapted, beside its closest library part: forward and backward, time and peak memory.

The pairs stand in ``parts_*.py``: name -> (ours, theirs, inputs); both modules are called with the same inputs. Peak
memory is what three steps add to the largest size of a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import measure  # before torch: it sets the number of threads
import torch
from torch import Tensor, nn

ROUNDS = 9


def pairs() -> dict[str, Any]:
    """All pairs by name."""
    found: dict[str, Any] = {}
    for file in sorted(Path(__file__).parent.glob("parts_*.py")):
        found |= import_module(file.stem).PAIRS
    return found


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def step(module: nn.Module, inputs: Any, outputs: int) -> Callable[[], None]:
    """Forward and backward, with gradients of the inputs as in the middle of a network.

    Of the outputs only the first are learned from, where ours and theirs do not give equally many.
    """
    for tensor in tensors(inputs):
        if tensor.is_floating_point():
            tensor.requires_grad_()

    def run() -> None:
        found = [tensor for tensor in tensors(module(*inputs)) if tensor.is_floating_point()]
        torch.autograd.backward([tensor.square().sum() for tensor in found[:outputs]])

    return run


def both(name: str) -> tuple[nn.Module, nn.Module, Any, int]:
    """Ours, theirs, their inputs, and how many outputs both have."""
    ours, theirs, make = pairs()[name]
    torch.manual_seed(0)
    one, other, inputs = ours(), theirs(), make()
    with torch.no_grad():
        counts = [len(list(tensors(module(*inputs)))) for module in (one, other)]
    return one, other, inputs, min(counts)


def peak(name: str, which: int) -> float:
    """Megabytes that three steps add to the largest size of a process."""
    done = subprocess.run([sys.executable, __file__, "--peak", name, str(which)], capture_output=True, check=True)
    return float(done.stdout.split()[-1])


def _peak_here(name: str, which: int) -> float:
    *modules, inputs, outputs = both(name)
    run = step(modules[which], inputs, outputs)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: the largest size begins anew
    before = _kilobytes("VmRSS")
    for _ in range(3):
        run()
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field))


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        sys.stdout.write(f"{_peak_here(sys.argv[2], int(sys.argv[3]))}\n")
        return
    rows = {}
    for name in pairs():
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        ours, theirs, inputs, outputs = both(name)
        tasks = {"torso": step(ours, inputs, outputs), "library": step(theirs, inputs, outputs)}
        seconds = measure.rounds(tasks, ROUNDS, warm=2)
        memory = peak(name, 0), peak(name, 1)
        rows[name] = {
            "time": measure.ratio(seconds, "torso", "library"),
            "memory": round(memory[0] / max(memory[1], 0.1), 3),
            "torso_mb": round(memory[0], 1),
        }
        sys.stderr.write(f"{name}: {rows[name]}\n")
    if not sys.argv[1:]:
        slower = {name: row["time"] for name, row in rows.items() if row["time"] > 1.1}
        measure.write("parts", rounds=ROUNDS, slower_than_1_1=slower, parts=rows)


if __name__ == "__main__":
    main()
