"""What a model begins with, and what of it does not learn: ``train.init`` and ``train.freeze`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from torso.backbones.names import timm_names
from torso.config import ModelError, suggestion
from torso.nn.freeze import freeze
from torso.nn.match import State
from torso.nn.transfer import Report, load_weights
from torso.recipes.artifact import weights
from torso.weights import safe_load


def begin(model: nn.Module, settings: Mapping[str, Any]) -> dict[str, Report]:
    """Give a model the weights that its training begins with.

    Args:
        model: changed in place.
        settings: the built ``train`` section: ``init``, ``init_parts``, ``init_drop``, ``init_minimum``.

    Returns:
        what was loaded, by section of the model (``model`` for the whole); nothing without ``init``.

    Raises:
        ModelError: no such section, too little that fits, weights that cannot be read.
    """
    if settings["init"] is None:
        return {}
    sections = dict(model.named_children())
    for name in settings["init_parts"]:
        if name not in sections:
            raise ModelError(f"train.init_parts: the model has no section {name!r}{suggestion(name, sections)}")
    try:
        state = opened(settings["init"])
        chosen = {name: sections[name] for name in settings["init_parts"]} or {"model": model}
        return {name: _load(part, state, settings) for name, part in chosen.items()}
    except (ModelError, ValueError) as error:
        raise ModelError(f"train.init={settings['init']}: {error}") from error


def absolute(source: str | None) -> str | None:
    """A path that holds in any folder, so that a resume does; torchvision's names stay as they are."""
    if source is None or not Path(source).expanduser().exists():
        return source
    return str(Path(source).expanduser().absolute())


def opened(source: str) -> State:
    """The weights of a run (its best, where it is not done), of a checkpoint, or of a file."""
    path = Path(source).expanduser()
    return weights(path) if path.is_dir() else safe_load(path if path.exists() else source)


def hold(model: nn.Module, settings: Mapping[str, Any]) -> list[str]:
    """Freeze what ``train.freeze`` says.

    Raises:
        ModelError: a pattern that fits nothing.
    """
    return freeze(model, settings["freeze"])


def told(reports: Mapping[str, Report], source: str) -> str:
    """The tables of all sections."""
    return "\n".join(f"init     {name} from {source}, {report.table(limit=5)}" for name, report in reports.items())


def _load(part: nn.Module, state: State, settings: Mapping[str, Any]) -> Report:
    report = load_weights(part, state, drop=settings["init_drop"], dialect=timm_names, minimum=settings["init_minimum"])
    return replace(report, source=settings["init"])
