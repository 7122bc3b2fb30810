"""From a running fit to a checkpoint and back, exact to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from torso.config import DataError, ModelError, TorsoError
from torso.train import checkpoint, nonfinite, optim, seed
from torso.train.run_folder import RunFolder
from torso.train.state import State
from torso.train.tricks import Trick


class Snapshots:
    """Saves and restores one run.

    Args:
        state: of the run.
        tricks: of the run; each one's state is kept under its name.
        run: where the checkpoints go.
        about: what else each checkpoint says of itself (resolved recipe, class names), as JSON.
        fingerprint: of the data; a resume on other data is refused.
        keep: whole checkpoints that stay, besides the best one.
    """

    def __init__(
        self,
        state: State,
        tricks: Sequence[Trick],
        run: RunFolder,
        *,
        about: Mapping[str, Any],
        fingerprint: str | None,
        keep: int,
    ) -> None:
        self.state = state
        self.tricks = dict(_named(tricks))
        self.run = run
        self.about = dict(about)
        self.fingerprint = fingerprint
        self.keep = keep
        self._last: tuple[int, Path] | None = None

    def save(self) -> Path:
        """Commit the state of now, unless this step is saved already."""
        state = self.state
        if self._last is not None and self._last[0] == state.step:
            return self._last[1]
        nonfinite.check_weights(state.model, state.step)
        optimizer_tensors, optimizer = optim.pack(state.optimizer, state.model)
        random_tensors, random = seed.capture()
        tensors = {"model": dict(state.model.state_dict()), "optim": optimizer_tensors, "random": random_tensors}
        tricks = {}
        for name, trick in self.tricks.items():
            kept = trick.state_dict()
            tricks[name] = {key: value for key, value in kept.items() if not isinstance(value, Tensor)}
            if len(tricks[name]) < len(kept):
                tensors[name] = {key: value for key, value in kept.items() if isinstance(value, Tensor)}
        rest = {
            "progress": state.progress(),
            "optimizer": optimizer,
            "random": random,
            "tricks": tricks,
            "fingerprint": self.fingerprint,
            "about": self.about,
        }
        path = checkpoint.save(self.run.checkpoints, state.step, tensors, rest, self.keep)
        self._last = (state.step, path)
        return path

    def mark_best(self) -> None:
        """Keep the checkpoint of this step as the best one."""
        path = self.save()
        try:
            checkpoint.mark_best(path)
        except OSError as error:
            raise TorsoError(f"{path.parent / 'best'} cannot be written: {error.strerror}; `torso resume`") from error

    def resume(self, source: Path | RunFolder) -> Path | None:
        """Take the run up where a checkpoint left it.

        Args:
            source: a checkpoint, or a run: then its newest whole one. A run that was killed before its first
                checkpoint begins anew.

        Returns:
            the checkpoint; None when the run begins anew.

        Raises:
            ModelError: when it is damaged, or of another model, optimizer or batch size.
            DataError: when the data has changed since.
        """
        path = find(source)
        if path is None:
            return None
        tensors, rest = checkpoint.load(path)
        self._check(path, rest)
        state = self.state
        for name, value in rest["progress"].items():
            if name not in ("epochs", "batches", "accumulate"):
                setattr(state, name, value)
        try:
            state.model.load_state_dict(tensors["model"])
        except RuntimeError as error:
            raise ModelError(f"{path} was written by another model: {' '.join(str(error).split())[:500]}") from error
        optim.unpack(state.optimizer, state.model, tensors["optim"], rest["optimizer"])
        for name, trick in self.tricks.items():
            trick.load_state_dict({**tensors.get(name, {}), **rest["tricks"][name]})
        seed.restore(tensors["random"], rest["random"])
        if path.parent.resolve() == self.run.checkpoints.resolve():
            self._last = (state.step, path)
        self.run.rewind(state.step, state.epoch)
        return path

    def _check(self, path: Path, rest: Mapping[str, Any]) -> None:
        if rest["fingerprint"] != self.fingerprint:
            raise DataError(
                f"the data is not what {path} was trained on (fingerprint {rest['fingerprint']}, now "
                f"{self.fingerprint}); bring it back, or train anew"
            )
        for name in ("batches", "accumulate"):
            before, now = rest["progress"][name], getattr(self.state, name)
            if before != now:
                raise ModelError(
                    f"{path} was trained with {before} {_MEANING[name]}, now there are {now}; use the same"
                )
        if set(rest["tricks"]) != set(self.tricks):
            raise ModelError(f"{path} was trained with tricks {sorted(rest['tricks'])}, now {sorted(self.tricks)}")


_MEANING = {"batches": "batches an epoch", "accumulate": "batches a step"}


def find(source: Path | RunFolder) -> Path | None:
    """The checkpoint that `source` means.

    Raises:
        ModelError: when there are checkpoints, but all are damaged, or `source` is neither run nor checkpoint.
    """
    path = source.path if isinstance(source, RunFolder) else Path(source)
    folder = path / "checkpoints"
    if not folder.is_dir():
        if (path / "manifest.json").exists() or path.name in ("last", "best"):
            return path
        raise ModelError(
            f"{path} is neither a run folder nor a checkpoint: it has no checkpoints/ and no manifest.json"
        )
    found = checkpoint.latest_valid(folder)
    if found is None and any(folder.glob("step-*")):
        raise ModelError(f"every checkpoint in {folder} is damaged; the run cannot go on")
    return found


def _named(tricks: Sequence[Trick]) -> Iterator[tuple[str, Trick]]:
    """Each trick under its name; a second one of the same name gets a number."""
    seen: dict[str, int] = {}
    for trick in tricks:
        seen[trick.name] = seen.get(trick.name, 0) + 1
        yield (trick.name if seen[trick.name] == 1 else f"{trick.name}-{seen[trick.name]}"), trick
