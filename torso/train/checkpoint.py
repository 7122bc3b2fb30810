"""Checkpoints that a crash, a full disk or a flipped bit cannot take away.

A checkpoint is a folder of safetensors and JSON files. It is written under a temporary name, each file is flushed to
the disk, a manifest with the SHA-256 of each is written last, and only then the folder gets its name: a folder called
`step-*` is whole or damaged later by something else, and the manifest tells. Nothing is ever pickled::

    checkpoints/step-00001234/  model.safetensors  ema.safetensors  optim.safetensors  random.safetensors
                                state.json  manifest.json
    checkpoints/last, best      point to one of these folders
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as to_bytes
from torch import Tensor

from torso import __version__
from torso.config import ModelError, TorsoError
from torso.train import disk
from torso.weights import safe_load

__all__ = ["best", "latest_valid", "load", "mark_best", "safe_load", "save", "verify", "weights"]

TensorFiles = dict[str, dict[str, Tensor]]
"""Tensors by file (without suffix) and name."""

NAME = re.compile(r"step-(\d{8,})(-\d+)?")
RETRY_AFTER = 5.0
"""Seconds between a save that failed and the one more try it gets."""

_say = logging.getLogger("torso").warning


def save(folder: Path, step: int, tensors: TensorFiles, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Commit a checkpoint to `folder`, then remove all but the newest `keep` and the best one.

    Args:
        folder: the `checkpoints` folder of a run; made when missing.
        step: optimizer steps done.
        tensors: by file name and tensor name.
        state: anything JSON can hold. `about.classes` and a hash of `about` go into the manifest.
        keep: how many whole checkpoints stay, the new one included.

    Returns:
        the folder of the new checkpoint.

    Raises:
        TorsoError: when the disk refused twice. The checkpoints that were there still are.
    """
    files = {f"{name}.safetensors": _serialised(named) for name, named in tensors.items()}
    files["state.json"] = _json(state)
    for last_try in (False, True):
        try:
            path = _commit(folder, step, files, state)
            break
        except OSError as error:
            if last_try:
                raise TorsoError(
                    f"the checkpoint of step {step} could not be written to {folder}: {error.strerror or error}. "
                    "The one before is untouched: make room or mend the disk, then `torso resume`"
                ) from error
            _say("writing the checkpoint of step %d failed (%s); trying once more in %g s", step, error, RETRY_AFTER)
            time.sleep(RETRY_AFTER)
    try:
        _purge(folder, path, keep)
    except OSError as error:  # the new checkpoint is safe; room can be made at the next save
        _say("an old checkpoint in %s could not be removed: %s", folder, error)
    return path


def latest_valid(folder: Path, report: Callable[[str], None] = _say) -> Path | None:
    """The newest checkpoint that is whole, or None. Damaged ones are reported and left as they are."""
    for path in sorted(_folders(folder), key=_order, reverse=True):
        problem = verify(path)
        if problem is None:
            return path
        report(f"skipping the damaged checkpoint {path}: {problem}")
    return None


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint folder; None when every file is as the manifest says."""
    try:
        _read(path)
    except ModelError as error:
        return str(error)
    return None


def load(path: Path) -> tuple[TensorFiles, dict[str, Any]]:
    """Tensors by file and name, and the state, of a checkpoint folder (or of `last` or `best`).

    Raises:
        ModelError: when a file is missing or not the one that was written.
    """
    files = _read(disk.pointed(path) or path if path.name in ("last", "best") else path)
    tensors = {}
    for name, data in files.items():
        if name.endswith(".safetensors"):
            try:
                tensors[name.removesuffix(".safetensors")] = read_tensors(data)
            except SafetensorError as error:
                raise ModelError(f"{path / name} is not a safetensors file: {error}") from error
    return tensors, json.loads(files["state.json"])


def weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that are evaluated and shipped: the averaged ones where there are any."""
    tensors, _ = load(path)
    return tensors.get("ema", tensors["model"])


def mark_best(path: Path) -> None:
    """Say that this checkpoint is the best one so far; it is kept until another one is."""
    disk.point(path.parent / "best", path.name)


def best(folder: Path) -> Path | None:
    """The checkpoint that was marked as the best one, when it is whole."""
    path = disk.pointed(folder / "best")
    return path if path is not None and verify(path) is None else None


def _commit(folder: Path, step: int, files: Mapping[str, bytes], state: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _need_space(folder, sum(map(len, files.values())))
    temporary = folder / f".tmp-{step:08d}-{os.getpid()}"
    if temporary.exists():  # of a process that had our number: in a container every run is process 1
        disk.remove_folder(temporary)
    try:
        disk.make_folder(temporary)
        for name, data in files.items():
            disk.write(temporary / name, data)
        disk.write(temporary / "manifest.json", _json(_manifest(folder, step, files, state)))
        disk.sync_folder(temporary)
        path = _free_name(folder, step)
        disk.rename(temporary, path)
    except OSError:
        _try_to_remove(temporary)
        raise
    disk.sync_folder(folder)
    disk.point(folder / "last", path.name)
    return path


def _manifest(folder: Path, step: int, files: Mapping[str, bytes], state: Mapping[str, Any]) -> dict[str, Any]:
    about = state.get("about") or {}
    return {
        "step": step,
        # What "newest" means. Not the step: a run that was taken back to an earlier checkpoint passes steps again.
        "order": 1 + max(map(_order, _folders(folder)), default=0),
        "torso": __version__,
        "torch": torch.__version__,
        "config_sha256": hashlib.sha256(_json(about)).hexdigest(),
        "classes": about.get("classes"),
        "world_size": 1,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
        },
    }


def _read(path: Path) -> dict[str, bytes]:
    """The bytes of every file of a checkpoint, compared with the manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        expected = {str(name): (int(of["size"]), str(of["sha256"])) for name, of in manifest["files"].items()}
    except OSError as error:
        raise ModelError(f"{path} is not a checkpoint: no readable manifest.json ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path / 'manifest.json'} is damaged: {error}") from error
    files = {}
    for name, (size, digest) in expected.items():
        if Path(name).name != name:
            raise ModelError(f"{path / 'manifest.json'} is damaged: {name!r} is not a file name")
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            raise ModelError(f"{path / name} cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise ModelError(f"{path / name} has {len(data)} bytes, but {size} were written")
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelError(f"{path / name} is not what was written (its SHA-256 differs)")
        files[name] = data
    if "state.json" not in files:
        raise ModelError(f"{path / 'manifest.json'} is damaged: it names no state.json")
    return files


def _purge(folder: Path, new: Path, keep: int) -> None:
    if verify(new) is not None:  # then the old ones may be all there is
        _say("the checkpoint %s does not read back as it was written; nothing is removed", new)
        return
    kept = {new.resolve()}
    marked = disk.pointed(folder / "best")
    if marked is not None:
        kept.add(marked.resolve())
    for path in sorted(_folders(folder), key=_order, reverse=True)[keep:]:
        if path.resolve() not in kept and verify(path) is None:  # a damaged one stays: somebody will want to look
            rubbish = folder / f".tmp-{path.name}-{os.getpid()}"
            disk.rename(path, rubbish)  # so that a crash half-way does not leave what looks like a damaged checkpoint
            disk.remove_folder(rubbish)
    for path in _abandoned(folder):
        disk.remove_folder(path)


def _abandoned(folder: Path) -> Iterator[Path]:
    """Temporary folders whose process is gone."""
    for path in folder.glob(".tmp-*-*"):
        number = path.name.rpartition("-")[2]
        if number.isdigit() and (int(number) == os.getpid() or not _alive(int(number))):
            yield path


def _alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is not a question but Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir()]


def _order(path: Path) -> int:
    """The place of a checkpoint in the line of all that were ever written here; 0 when it cannot be known."""
    try:
        return int(json.loads((path / "manifest.json").read_bytes())["order"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0


def _free_name(folder: Path, step: int) -> Path:
    """`step-00001234`, or with a number behind it: a checkpoint is never written over another, damaged or not."""
    path, copy = folder / f"step-{step:08d}", 2
    while path.exists():
        path, copy = folder / f"step-{step:08d}-{copy}", copy + 1
    return path


def _need_space(folder: Path, size: int) -> None:
    free = disk.free_space(folder)
    if free < 2 * size:
        raise OSError(
            28, f"{free / 1e6:.1f} MB are free, and two checkpoints' room ({2 * size / 1e6:.1f} MB) is wanted"
        )


def _try_to_remove(path: Path) -> None:
    try:
        if path.exists():
            disk.remove_folder(path)
    except OSError:  # the disk is in trouble already; what is left is found and removed by a later save
        return


def _serialised(named: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file. Hashed before they touch the disk, so a disk that lies is found out."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in named.items():
        value = tensor.detach().cpu().contiguous()
        start = value.untyped_storage().data_ptr()
        if start in seen:  # tied weights: the format refuses to share
            value = value.clone()
        seen.add(start)
        plain[name] = value
    return to_bytes(plain)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1).encode()
