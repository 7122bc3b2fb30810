"""What comes out of a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from torso import config
from torso.config import RecipeError, Spec, dump

if TYPE_CHECKING:
    pass  # type: ignore[import-not-found]
from tests.unit.config.world import SMALL, Ema, Relu, Tiny, checked

# ---------------------------------------------------------------- what comes out


def test_defaults_are_visible_and_parts_know_their_place() -> None:
    found = checked(SMALL)
    assert found["model"].tree() == {
        "name": "detector",
        "backbone": {"name": "tiny", "widths": [16, 32], "weights": None, "rate": 0.0},
        "neck": {"name": "fpn", "channels": 256, "mode": "nearest", "norm": None},
        "topk": 100,
    }
    assert found["data"].tree() == {"path": "here", "size": 64, "names": []}
    assert found["train"].tree() == {
        "epochs": 3,
        "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0, "nesterov": False, "betas": [0.9, 0.999]},
        "tricks": [{"name": "ema", "decay": 0.9}],
        "best": None,
    }
    backbone = found["model"].args["backbone"]
    assert (backbone.where, backbone.path, backbone.role, backbone.name) == (
        "my.yaml:1",
        "model.backbone",
        "backbone",
        "tiny",
    )


def test_the_resolved_tree_is_a_fixed_point() -> None:
    overrides = [
        "model.neck=plain",
        "train.tricks=[{name: clip, norm: 3}, ema]",
        "data.size=[3, 4]",
        "model.backbone.rate=1",
    ]
    trees = {name: spec.tree() for name, spec in checked(SMALL, *overrides).items()}
    again = {name: spec.tree() for name, spec in checked(dump(trees)).items()}
    assert again == trees
    assert dump(again) == dump(trees)


def test_build() -> None:
    found = checked(
        SMALL, "model.neck={name: fpn, channels: 8, norm: {name: norm, eps: 1}}", "train.tricks.0.decay=0.5"
    )
    body, neck, classes, topk = found["model"].build(num_classes=7)
    assert isinstance(body, Tiny)
    assert (body.widths, classes, topk) == ([16, 32], 7, 100)
    assert (neck.in_channels, neck.strides, neck.channels) == ([16, 32], [4, 8], 8)
    layer = neck.norm(64)  # a factory: the layer that uses it says how wide
    assert (layer.num_features, layer.eps) == (64, 1.0)
    assert isinstance(layer.eps, float)
    train = found["train"].build()
    assert isinstance(train["tricks"][0], Ema)
    assert train["tricks"][0].decay == 0.5
    assert isinstance(train["optimizer"], Spec)  # the signature asks for the Spec, to build it when the model is there
    assert train["optimizer"].build(params=[1]).params == [1]
    assert checked(SMALL, "data.size=[3, 4]")["data"].build()["size"] == (3, 4)


def test_a_part_gets_only_the_wiring_it_asks_for_and_only_known_names_are_dropped() -> None:
    spec = config.spec("neck", "plain")
    assert spec.build(in_channels=[1], strides=[2]).in_channels == [1]
    assert isinstance(spec.build(in_channels=[1]).act, Relu)
    with pytest.raises(TypeError, match="chanels"):
        spec.build(in_channels=[1], chanels=3)


def test_a_value_the_constructor_refuses_is_told_with_its_place() -> None:
    with pytest.raises(RecipeError) as caught:
        checked(SMALL, "model.neck.channels=0")["model"].build(num_classes=2)
    assert str(caught.value) == (
        "my.yaml:1, override model.neck.channels=0: model.neck (fpn): channels must be positive, got 0"
    )


def test_arguments_without_a_name_change_the_part_that_is_there() -> None:
    assert checked(SMALL, "model.neck.channels=8")["model"].args["neck"].args["channels"] == 8
    assert checked(SMALL, "model.neck=plain", "model.neck=fpn")["model"].args["neck"].args["channels"] == 256
    assert checked(SMALL + "train: {tricks: [{name: clip, norm: 1}]}", "train.tricks.0.norm=10")["train"].tree()[
        "tricks"
    ] == [{"name": "clip", "norm": 10.0}]


def test_a_class_as_default_is_shown_by_its_name() -> None:
    assert config.spec("neck", "plain").tree() == {"name": "plain", "act": {"name": "relu", "inplace": False}}


def test_spec_of_plain_data_and_its_problems() -> None:
    assert config.spec("neck", {"name": "fpn", "channels": 3}).args["channels"] == 3
    with pytest.raises(RecipeError, match=r"neck\.channels: expected a whole number, got 'x'"):
        config.spec("neck", {"name": "fpn", "channels": "x"})
    with pytest.raises(RecipeError, match="neck: expected a neck, got 3"):
        config.spec("neck", 3)
