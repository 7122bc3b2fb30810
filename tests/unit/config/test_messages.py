"""Every problem at once and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from torso import config
from torso.config import RecipeError

if TYPE_CHECKING:
    pass  # type: ignore[import-not-found]
from tests.unit.config.world import SMALL, checked, said

# ---------------------------------------------------------------- what is wrong, in words


GOLDEN = """\
model:
  name: detector
  backbone: {name: tiny, widths: [16, many], wieghts: x}
  nek: fpn
  neck:
    name: fpn
    in_channels: [1, 2]
    channels: 1.5
    mode: bilinaer
    norm: nrom
  topk: true
data:
  size: [1, 2, 3]
  names: cat
train:
  epochs: lots
  lr: 0.1
  optimizer: {name: sdg}
  tricks: [ema, {name: clip}, {norm: 3}, 7, {name: 8}]
epoch: 3
"""


def test_all_problems_at_once() -> None:
    assert said(GOLDEN) == [
        "my.yaml:20: a recipe has no section 'epoch'; choose from model, data, train",
        "my.yaml:3: model.backbone.widths.1: expected a whole number, got 'many'",
        "my.yaml:3: model.backbone.wieghts: backbone 'tiny' has no 'wieghts'; did you mean 'weights'?",
        "my.yaml:8: model.neck.channels: expected a whole number, got 1.5",
        "my.yaml:9: model.neck.mode: expected 'nearest' or 'bilinear', got 'bilinaer'; did you mean 'bilinear'?",
        "my.yaml:10: model.neck.norm: no norm is called 'nrom'; did you mean 'norm'?",
        "my.yaml:7: model.neck.in_channels: decided by the other parts; it cannot be set, remove it",
        "my.yaml:11: model.topk: expected a whole number, got true",
        "my.yaml:4: model.nek: model 'detector' has no 'nek'; did you mean 'neck'?",
        "my.yaml:12: data.path: missing; data needs it: text",
        "my.yaml:13: data.size: expected a whole number or a list of 2 (a whole number, a whole number), "
        "got a list of 3",
        "my.yaml:14: data.names: expected a list (each item text), got 'cat'",
        "my.yaml:16: train.epochs: expected a whole number, got 'lots'",
        "my.yaml:18: train.optimizer: no optimizer is called 'sdg'; did you mean 'sgd'?",
        "my.yaml:19: train.tricks.1.norm: missing; trick 'clip' needs it: a number",
        "my.yaml:19: train.tricks.2: the name of a trick is missing",
        "my.yaml:19: train.tricks.3: expected a trick, got 7",
        "my.yaml:19: train.tricks.4.name: expected the name of a trick, got 8",
        "my.yaml:17: train.lr: train has no 'lr'; it takes epochs, optimizer, tricks, best",
    ]


def test_one_problem_is_one_sentence_and_many_are_a_list() -> None:
    with pytest.raises(RecipeError) as one:
        checked(SMALL, "model.topk=x")
    assert str(one.value) == "override model.topk=x: model.topk: expected a whole number, got 'x'"
    with pytest.raises(RecipeError) as two:
        checked(SMALL, "model.topk=x", "train.epochs=y")
    assert str(two.value).startswith("2 problems in the recipe\n  override model.topk=x: ")
    assert two.value.code == 2


OWN = ", or bring your own with --import MODULE"
WIRED = "decided by the other parts; it cannot be set, remove it"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["model.nek=fpn"], "model.nek: model 'detector' has no 'nek'; did you mean 'neck'?"),
        (["epochs=3"], "a recipe has no section 'epochs'; did you mean 'train.epochs'?"),
        (["train.lr=3"], "train.lr: train has no 'lr'; did you mean 'train.optimizer.lr'?"),
        (["model.num_classes=3"], f"model.num_classes: {WIRED}"),
        (["train.optimizer.params=[]"], f"train.optimizer.params: {WIRED}"),
        (["train.optimizer.foreach=true"], f"train.optimizer.foreach: {WIRED}"),
        (["model.neck.norm=norm", "model.neck.norm.num_features=3"], f"model.neck.norm.num_features: {WIRED}"),
        (
            ["model.neck=plain", "model.neck.channels=3"],
            "model.neck.channels: neck 'plain' has no 'channels'; it takes act",
        ),
        (["model=null"], "model: expected a model, got null"),
        (["data=3"], "data: expected a mapping, got 3"),
        (["model.neck=[fpn]"], "model.neck: expected a neck, got a list of 1"),
        (["model.neck.norm=3"], "model.neck.norm: expected a norm or null, got 3"),
        (["model.neck.name=null"], "model.neck.name: expected the name of a neck, got null"),
        (["train.tricks.4=ema"], "train.tricks is a list of 1: it has no item 4 (they count from 0)"),
        (["train.best=[1]"], "train.best: expected text or null, got a list of 1"),
    ],
)
def test_the_message_of_an_override(overrides: list[str], problem: str) -> None:
    assert said(SMALL, *overrides) == [f"override {overrides[-1]}: {problem}"]


def test_what_no_override_can_be_is_told_with_what_it_says() -> None:
    assert said(SMALL, "train.tricks=[]", "train.tricks.1=ema", "a", "model.topk=x") == [
        "override train.tricks.1=ema: train.tricks is a list of 0: it has no item 1 (they count from 0)",
        "override a: expected key=value, for example data.path=DIR",
        "override model.topk=x: model.topk: expected a whole number, got 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["my.yaml: expected the sections model, data, train, got null"]),
        ("- a", ["my.yaml:1: expected the sections model, data, train, got a list of 1"]),
        ("data: {path: x}", ["my.yaml:1: model: missing; expected a model"]),
        (
            "model: detector\ndata: {path: x}",
            ["my.yaml:1: model.backbone: missing; model 'detector' needs it: a backbone"],
        ),
        ("model: x\ndata: {path: x}", [f"my.yaml:1: model: no model is called 'x'; choose from detector{OWN}"]),
        ("model:\n  backbone: tiny\ndata: {path: x}", ["my.yaml:1: model: the name of a model is missing"]),
        (
            "model: {name: [x]}\ndata: {path: x}",
            ["my.yaml:1: model.name: expected the name of a model, got a list of 1"],
        ),
    ],
)
def test_messages_of_small_recipes(text: str, problems: list[str]) -> None:
    assert said(text) == problems


def test_a_role_that_cannot_be_loaded_is_a_problem_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.ROLES, "neck", "no_such_module:NECKS")
    assert said(SMALL, "train.epochs=x") == [
        "my.yaml:1: the parts of role 'neck' (no_such_module:NECKS) cannot be loaded: No module named 'no_such_module'",
        "override train.epochs=x: train.epochs: expected a whole number, got 'x'",
    ]
