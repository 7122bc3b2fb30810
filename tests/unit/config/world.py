"""A small world of parts, roles and families for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from torso import config
from torso.config import Problem, RecipeError, Role, Spec, check, override, parse
from torso.config import roles as roles_module

if TYPE_CHECKING:
    pass  # type: ignore[import-not-found]


class Relu:
    def __init__(self, inplace: bool = False):
        self.inplace = inplace


class Norm:
    def __init__(self, num_features: int, eps: float = 1e-5):
        self.num_features, self.eps = num_features, eps


class Ema:
    def __init__(self, decay: float = 0.9):
        self.decay = decay


class Clip:
    def __init__(self, norm: float):
        self.norm = norm


class Fpn:
    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        mode: Literal["nearest", "bilinear"] = "nearest",
        norm: Annotated[Callable[[int], Norm] | None, Role("norm", factory=True)] = None,
    ):
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.in_channels, self.strides, self.channels, self.mode, self.norm = in_channels, strides, channels, mode, norm


class Plain:
    def __init__(self, in_channels: Sequence[int], act: Annotated[Relu, Role("act")] = Relu):  # type: ignore[assignment]
        self.in_channels, self.act = in_channels, act


class Tiny:
    def __init__(self, widths: Sequence[int] = (16, 32), weights: str | None = None, rate: float = 0):
        self.widths, self.weights, self.rate, self.channels = widths, weights, rate, list(widths)


class Sgd:
    """As a library would have it: nothing annotated."""

    def __init__(self, params, lr=1e-3, momentum=0, nesterov=False, betas=(0.9, 0.999), foreach=None, **more):
        self.params, self.lr, self.momentum = params, lr, momentum


def detector(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    neck: Annotated[Spec, Role("neck")] = "fpn",  # type: ignore[assignment]
    topk: int = 100,
) -> tuple[Any, ...]:
    body = backbone.build()
    return body, neck.build(in_channels=body.channels, strides=[4, 8]), num_classes, topk


def data(*, path: str, size: int | tuple[int, int] = 64, names: Sequence[str] = ()) -> dict[str, Any]:
    return dict(locals())


def training(
    *,
    epochs: int = 3,
    optimizer: Annotated[Spec, Role("optimizer")] = "sgd",  # type: ignore[assignment]
    tricks: Annotated[Sequence[Any], Role("trick")] = ("ema",),
    best: str | None = None,
) -> dict[str, Any]:
    return dict(locals())


WORLD = {
    "act": {"relu": Relu},
    "norm": {"norm": Norm},
    "trick": {"ema": Ema, "clip": Clip},
    "neck": {"fpn": Fpn, "plain": Plain},
    "backbone": {"tiny": Tiny},
    "optimizer": {"sgd": Sgd},
    "model": {"detector": detector},
}
SECTIONS: dict[str, Any] = {"model": Role("model"), "data": data, "train": training}
SMALL = "model: {name: detector, backbone: tiny}\ndata: {path: here}\n"


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("small_world")
    for role, listed in WORLD.items():
        setattr(module, role.upper(), listed)
    monkeypatch.setitem(sys.modules, "small_world", module)
    for role in list(config.ROLES):
        monkeypatch.delitem(config.ROLES, role)
    for role in WORLD:
        monkeypatch.setitem(config.ROLES, role, f"small_world:{role.upper()}")
    monkeypatch.setattr(roles_module, "_added", {})
    monkeypatch.setattr(roles_module, "_installed", lambda: ())
    yield
    config.parameters.cache_clear()


def checked(text: str, *overrides: str) -> dict[str, Spec]:
    problems: list[Problem] = []
    tree = override(parse(text, "my.yaml"), overrides, problems)
    return check(tree, SECTIONS, problems=problems)


def said(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        checked(text, *overrides)
    return [str(problem) for problem in caught.value.problems]
