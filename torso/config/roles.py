"""Where the parts of each role are listed, and how a name becomes one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from torso.config.errors import RecipeError, TorsoError, nearest, suggestion

Part = Callable[..., Any]

ROLES: dict[str, str] = {
    "model": "torso.recipes.assemble:FAMILIES",
    "backbone": "torso.backbones:BACKBONES",
    "neck": "torso.necks:NECKS",
    "head": "torso.heads:HEADS",
    "prior": "torso.boxes.priors:PRIORS",
    "coder": "torso.boxes.coders:CODERS",
    "assigner": "torso.assigners:ASSIGNERS",
    "sample": "torso.assigners.sample:SAMPLES",
    "loss": "torso.losses:LOSSES",
    "criterion": "torso.criteria:CRITERIA",
    "suppress": "torso.boxes.suppress:SUPPRESSORS",
    "roi": "torso.boxes.roi:ROIS",
    "propose": "torso.recipes.two_stage:PROPOSERS",
    "refine": "torso.recipes.two_stage:REFINERS",
    "activation": "torso.nn.activations:ACTIVATIONS",
    "norm": "torso.nn.norms:NORMS",
    "drop": "torso.nn.drop:DROPS",
    "transform": "torso.data.transforms:TRANSFORMS",
    "format": "torso.data.parts:FORMAT_PARTS",
    "sampler": "torso.data.samplers:SAMPLERS",
    "optimizer": "torso.train.optim:OPTIMIZERS",
    "schedule": "torso.train.schedules:SCHEDULES",
    "trick": "torso.train.tricks:TRICKS",
}
"""Role -> ``module:DICT`` that lists its parts; imported when the role is first asked for."""

WIRED = frozenset(
    {"in_channels", "strides", "num_classes", "num_priors", "coder_size", "branches"}
    | {"region_size", "num_boxes"}
    | {"assigner", "class_loss", "box_loss", "coder", "sample"}
    | {"params", "optimizer", "batch_size"}
)
"""Arguments that other parts decide (`torso.recipes.assemble`): nobody types them."""

_added: dict[str, dict[str, Part]] = {}


@dataclass(frozen=True)
class Role:
    """Says in a signature that an argument is a part: ``neck: Annotated[nn.Module, Role("neck")]``.

    With ``factory`` the argument is a callable that makes the part, for layers that need several of it
    (``norm: Annotated[Callable[[int], nn.Module], Role("norm", factory=True)]``).
    """

    name: str
    factory: bool = False


def parts(role: str) -> dict[str, Part]:
    """All parts of a role by name: torso's own, those of installed packages, those of ``--import``.

    Raises:
        RecipeError: there is no such role, or two packages claim one name.
        TorsoError: what lists them cannot be imported.
    """
    if role not in ROLES:
        raise RecipeError(f"there is no role {role!r}{suggestion(role, ROLES)}")
    module, _, listing = ROLES[role].partition(":")
    try:
        found: dict[str, Part] = dict(getattr(import_module(module), listing))
    except (ImportError, AttributeError) as error:
        raise TorsoError(f"the parts of role {role!r} ({ROLES[role]}) cannot be loaded: {error}") from error
    for entry in _installed():
        if entry.name == role:
            _add(found, _loaded(entry), role, f"the entry point {entry.value!r}")
    _add(found, _added.get(role, {}), role, "--import")
    return found


def find(role: str, name: str) -> Part:
    """The class or function called ``name`` in ``role``.

    Raises:
        RecipeError: there is none; the message has the nearest name.
    """
    listed = parts(role)
    if name not in listed:
        raise RecipeError(unknown(role, name, listed))
    return listed[name]


def unknown(role: str, name: str, listed: Mapping[str, Part]) -> str:
    """The sentence for a part that does not exist."""
    near = nearest(name, listed)
    hint = suggestion(name, listed) if near else f"{suggestion(name, listed)}, or bring your own with --import MODULE"
    return f"no {role} is called {name!r}{hint}"


def add_module(name: str) -> None:
    """Import a module of the user's and add its ``PARTS``, a dict of role to a dict of name to class, to the roles.

    Only the command line's ``--import`` and Python code come here: a recipe file can never cause an import.

    Raises:
        RecipeError: it cannot be imported, or its ``PARTS`` is missing or wrong.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file that lies here cannot take the place of an installed package
    try:
        module = import_module(name)
    except Exception as error:  # whatever somebody's module does when it is imported
        raise RecipeError(f"--import {name}: {type(error).__name__}: {error}") from error
    offered = getattr(module, "PARTS", None)
    if not isinstance(offered, dict) or not all(isinstance(listed, dict) for listed in offered.values()):
        raise RecipeError(f'--import {name}: expected PARTS = {{"neck": {{"my_neck": MyNeck}}}} in the module')
    for role, listed in offered.items():
        if role not in ROLES:
            raise RecipeError(f"--import {name}: there is no role {role!r}{suggestion(str(role), ROLES)}")
        _add(_added.setdefault(role, {}), listed, role, f"--import {name}")


def _add(found: dict[str, Part], more: Mapping[str, Part], role: str, source: str) -> None:
    for name, part in more.items():
        if found.get(name, part) is not part:
            raise RecipeError(f"{source} brings a {role} {name!r}, but there is one already: give it another name")
        if not callable(part):
            raise RecipeError(f"{source}: {role} {name!r} must be a class or a function, got {type(part).__name__}")
        found[name] = part


def _loaded(entry: EntryPoint) -> Mapping[str, Part]:
    try:
        listed = entry.load()
    except Exception as error:  # whatever somebody's package does when it is imported
        raise TorsoError(
            f"the entry point {entry.value!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(listed, Mapping):
        raise TorsoError(f"the entry point {entry.value!r} must be a dict of names to classes")
    return listed


@cache
def _installed() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group="torso.parts"))
