"""What it costs to import torso, and to ask it for help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from measure import milliseconds, ratio, rounds, write

ROUNDS = 5
COMMANDS = {
    "python, nothing": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import torso": ["-c", "import torso"],
    "import torso and torch": ["-c", "import torch, torso"],
    "import torso.models": ["-c", "import torso.models"],
    "import torchvision": ["-c", "import torchvision"],
    "torso --help": ["-m", "torso", "--help"],
    "torso train --help": ["-m", "torso", "train", "--help"],
}
LOADED = """import sys, runpy
sys.argv = ["torso", "--help"]
try:
    runpy.run_module("torso", run_name="__main__")
except SystemExit:
    pass
"""


def process(arguments: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def imported_by_help() -> list[str]:
    """Which heavy libraries ``torso --help`` imports."""
    heavy = "[m for m in ('torch', 'numpy', 'torchvision', 'cv2', 'scipy', 'rich') if m in sys.modules]"
    code = LOADED + f"print({heavy}, file=sys.stderr)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    return sorted(name for name in told.strip("[]\n").replace("'", "").split(", ") if name)


def main() -> None:
    seconds = rounds({name: process(arguments) for name, arguments in COMMANDS.items()}, ROUNDS)
    write(
        "startup",
        rounds=ROUNDS,
        milliseconds={name: milliseconds(values) for name, values in seconds.items()},
        ratio_to_import_torch={name: ratio(seconds, name, "import torch") for name in COMMANDS},
        imported_by_help=imported_by_help(),
    )


if __name__ == "__main__":
    main()
