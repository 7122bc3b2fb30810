"""What every test stands on: no network, few threads, no window, its own cache, and the data if there is any."""

from __future__ import annotations

import os

# Before torch and matplotlib are imported anywhere: two cores are shared, and nobody is there to look at a window.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOOPBACK = ("127.", "::1", "localhost", "::ffff:127.")


def pytest_report_header() -> str:
    """The versions of everything that torso is compared with."""
    names = ("torch", "torchvision", "timm", "pycocotools", "hotcoco", "scikit-learn", "onnxruntime", "pillow", "numpy")
    return "with: " + ", ".join(f"{name} {version(name)}" for name in names)


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def only_here(self: socket.socket, address: Any) -> Any:
        outside = self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK)
        if outside:
            self.close()
            pytest.fail(f"torso never touches the network, but something connected to {address}")
        return connect(self, address)

    return only_here


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own and no network, for the whole session and for the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("cache"))
        for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME"):
            patch.setenv(name, cache)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "120")
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pictures with labels, kept beside the repository and never inside it."""
    folder = Path(os.environ.get("TORSO_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the real data in ../shared/data, or where TORSO_DATA says ({folder} is not there)")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small built-in data set in VOC form, made once a session; never write into it."""
    from torso.data import digits

    folder = tmp_path_factory.mktemp("data") / "digits"
    digits.make(folder, format="voc", count=24, size=96, seed=0)
    return folder
