"""Makes .venv and installs torso into it; does nothing when that is done already.

Only the standard library, and nothing newer than Python 3.6 can read: an old Python must get as far as its message.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "torso.json"
LOG = VENV / "install.log"
EXTRAS = ("dev", "peers", "onnx", "weights")
STEPS = (("torch", "torchvision"), ("-e", ".[{}]".format(",".join(EXTRAS))))

# Runs inside .venv: is torso installed from this folder, with everything that pyproject.toml asks for?
COMPLETE = """
import importlib.metadata as installed, pathlib, sys, tomllib
import torso
from packaging.requirements import Requirement

root, *extras = sys.argv[1:]
project = tomllib.loads(pathlib.Path(root, "pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
requirements = [Requirement(line) for line in wanted]
assert pathlib.Path(torso.__file__).parent == pathlib.Path(root, "torso")
assert all(r.specifier.contains(installed.version(r.name), prereleases=True) for r in requirements)
"""


def stop(message: str) -> NoReturn:
    """One line, and the end."""
    sys.exit("torso: " + message)


def check_python() -> None:
    """Stops with the command that mends it, if this Python is too old or lacks venv."""
    version = sys.version.split()[0]
    if sys.version_info < (3, 11):
        stop(
            f"needs Python 3.11 or newer, and {sys.executable} is {version}: "
            "sudo apt install python3.11 python3.11-venv, then make PYTHON=python3.11 ..."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        major, minor = sys.version_info[:2]
        stop(f"this Python cannot make virtual environments: sudo apt install python{major}.{minor}-venv python3-pip")


def state() -> Dict[str, object]:
    """What .venv was made from: when this changes, it is looked at again."""
    recipe = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return {"root": str(ROOT), "pyproject": recipe, "extras": list(EXTRAS)}


def is_ready() -> bool:
    """Nothing changed since the last time."""
    try:
        return PYTHON.exists() and json.loads(STAMP.read_text()) == state()
    except (OSError, ValueError):
        return False


def is_complete() -> bool:
    """A .venv that somebody else made, or that is only older than pyproject.toml, may have all that is needed."""
    command = [str(PYTHON), "-P", "-c", COMPLETE, str(ROOT), *EXTRAS]
    return PYTHON.exists() and subprocess.call(command, stderr=subprocess.DEVNULL, cwd=str(VENV)) == 0


def run(command: List[str]) -> None:
    """Runs quietly into a log; says only how long it takes, and why it failed."""
    begin, shown = time.monotonic(), sys.stdout.isatty()
    with LOG.open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=str(ROOT))
        while process.poll() is None:
            if shown:
                print(f"\r  {time.monotonic() - begin:.0f} s", end="", flush=True)
            time.sleep(0.2)
    if shown:
        print("\r          \r", end="")
    if process.returncode:
        print("\n".join(LOG.read_text().splitlines()[-15:]), file=sys.stderr)
        stop(f"could not install (above: the end of {LOG}); try again when it is mended")


def install() -> None:
    """Makes .venv if there is none, and brings it up to date."""
    print("torso: installing into .venv (PyTorch is large: some minutes the first time)", flush=True)
    if not PYTHON.exists() and subprocess.call([sys.executable, "-m", "venv", "--clear", str(VENV)]):
        stop(f"could not make {VENV}: is the disk full?")
    LOG.write_text("")
    for step in STEPS:
        run([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", *step])


def main() -> None:
    """Quick when nothing changed; never asks anything."""
    if is_ready():
        return
    os.chdir(str(ROOT))
    if not PYTHON.exists():
        check_python()
    if not is_complete():
        install()
    STAMP.write_text(json.dumps(state()))


if __name__ == "__main__":
    main()
