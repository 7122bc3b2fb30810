"""Weights from files that others made: `.safetensors`, and `.pt`/`.pth` without ever running what is in them."""

from __future__ import annotations

import io
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from torso.config import ModelError

WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "ema", "module", "net", "weights")
"""Keys under which training programs keep the weights, in the order they are tried."""

PICKLE_LIMIT = 64 << 20
"""Bytes of pickle that are looked through for the globals it names; the tensors of a modern file are not among them."""


PUBLISHED = re.compile(r"(?:\w+_Weights\.)?(?:IMAGENET|COCO|KINETICS)\d*K?\w*|(?:\w+_Weights\.)?DEFAULT")
"""How torchvision calls the weights it publishes: ``IMAGENET1K_V2``, ``ResNet50_Weights.DEFAULT``."""


def located(source: str | Path | Any, model: str | None = None) -> Path:
    """The file that weights are in: a file as it is, the ``model.safetensors`` of a folder (of a run that is done).

    A member of torchvision's enums, or its name, is the file of that name in torchvision's cache.

    Args:
        source: a path, or one of torchvision's ``ResNet50_Weights.IMAGENET1K_V2`` (itself, or as text).
        model: for texts that name no model (``IMAGENET1K_V2``): torchvision's name of it.

    Raises:
        ModelError: a folder without weights; a name of torchvision whose file is not here, as torso downloads nothing.

    Source: torchvision.models.WeightsEnum
    """
    if hasattr(source, "url"):
        return _cached(source)
    if isinstance(source, str) and PUBLISHED.fullmatch(source) and not Path(source).exists():
        return _cached(_published(source, model))
    path = Path(source)
    if not path.is_dir():
        return path
    if not (path / "model.safetensors").is_file():
        raise ModelError(f"{path} is a folder without model.safetensors: give a run that is done, or a file of weights")
    return path / "model.safetensors"


def _published(name: str, model: str | None) -> Any:
    from torchvision import models

    try:
        if "." in name:
            return models.get_weight(name)
        if model is None:
            raise ModelError(f"{name!r} says not of which model: write ResNet50_Weights.{name}, or the path of a file")
        return models.get_model_weights(model)[name]
    except (ValueError, KeyError) as error:
        of = f" of {model}" if model else ""
        raise ModelError(
            f"torchvision publishes no weights {name!r}{of}: give the path of a file of weights instead"
        ) from error


def _cached(published: Any) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / str(published.url).rpartition("/")[2]
    if path.is_file():
        return path
    raise ModelError(
        f"{published} is torchvision's name for {published.url}, and torso downloads nothing: fetch that file where "
        f"there is a network and give its path, or lay it into torchvision's cache ({path.parent})"
    )


def safe_load(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a foreign file of weights. Nothing in the file is ever executed.

    What the file is, is told by its first bytes, not by its name. A dictionary around the weights
    (``{"state_dict": ...}``) and the ``module.`` that DataParallel puts before every name are taken away.

    Args:
        path: see `located`.

    Raises:
        ModelError: when the file is missing, empty, damaged, holds something else than named tensors, or would have
            to run code to be loaded; then the message lists what it would run.

    Source: torch.load(weights_only=True) and safetensors.
    """
    path = located(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"{path} cannot be read as weights: {error.strerror}") from error
    if size == 0:
        raise _damaged(path, "it is empty")
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        if _is_tar(path):
            raise ModelError(f"{path} is a tar file of torch before 0.1.10, which is not read; {_ADVICE}")
        raise ModelError(
            f"{path} is not a file of weights (it starts with {head[:8]!r}); expected .safetensors or torch's .pt"
        )
    return _tensors(_loaded(path), path)


_ADVICE = "load it where you trust it and save its state_dict as .safetensors"


def globals_of(path: Path) -> list[str]:
    """The names that unpickling a torch file would look up, and so could run; found without running anything."""
    names = {name for stream in _pickles(path) for name in _globals(stream)}
    return sorted(names)


def _loaded(path: Path) -> Any:
    suspicious = [name for name in globals_of(path) if not _harmless(name)]
    if suspicious:
        raise ModelError(f"{path} holds more than weights: loading it would run {', '.join(suspicious)}; {_ADVICE}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # the only place where torch.load is allowed
    except Exception as error:  # zip, pickle, tensor and memory errors of every kind: one message for all
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _damaged(path, reason or type(error).__name__) from error


def _harmless(name: str) -> bool:
    """Whether torch's own weights-only reader admits a name; it decides again, this only makes the message."""
    module, _, attribute = name.rpartition(".")
    if module in ("torch", "torch.storage", "collections", "torch._utils", "torch._tensor", "torch.nn.parameter"):
        return name != "torch.storage._load_from_bytes" and (module != "torch" or hasattr(torch, attribute))
    return name == "torch.serialization._get_layout"


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        for candidate in (loaded, *(loaded[key] for key in WRAPPERS if key in loaded)):
            if isinstance(candidate, Mapping) and candidate and _named(candidate):
                prefix = "module." if all(name.startswith("module.") for name in candidate) else ""
                return {name.removeprefix(prefix): value.detach() for name, value in candidate.items()}
    found = f"keys {', '.join(map(repr, list(loaded)[:8]))}" if isinstance(loaded, Mapping) else type(loaded).__name__
    raise ModelError(f"{path} holds no named tensors (found: {found}); expected a state_dict")


def _named(candidate: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in candidate.items())


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is damaged or incomplete ({reason}); copy or download it again")


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except OSError:
        return False


def _pickles(path: Path) -> Iterator[io.BytesIO]:
    """Every pickle stream of a torch file: the `.pkl` members of a zip, or the head of an old file."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield io.BytesIO(file.read(PICKLE_LIMIT))
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".pkl"):
                    with archive.open(member) as file:
                        yield io.BytesIO(file.read(PICKLE_LIMIT))
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise _damaged(path, str(error)) from error


def _globals(stream: io.BytesIO) -> Iterator[str]:
    """The `module.name` pairs of all pickles that stand one behind the other in a stream."""
    while True:
        strings: list[str] = []
        memo: dict[int, str] = {}
        try:
            for code, argument, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST"):
                    yield ".".join(str(argument).split(" ", 1))
                elif code.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:]) if len(strings) > 1 else "a name that is computed"
                elif code.name.startswith("EXT"):
                    yield f"extension {argument}"
                _follow(code.name, argument, strings, memo)
        except (ValueError, IndexError, KeyError, UnicodeError):  # the end of the pickles, or damage: torch will tell
            return


def _follow(code: str, argument: Any, strings: list[str], memo: dict[int, str]) -> None:
    """Keep the strings a pickle has pushed, also those it takes from its memo, for STACK_GLOBAL."""
    if isinstance(argument, str) and "UNICODE" in code:
        strings.append(argument)
    elif code == "MEMOIZE":
        memo[len(memo)] = strings[-1] if strings else ""
    elif code in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(argument)] = strings[-1] if strings else ""
    elif code in ("GET", "BINGET", "LONG_BINGET"):
        strings.append(memo.get(int(argument), ""))
