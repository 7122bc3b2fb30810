"""What a run leaves behind, loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torso.config import ModelError
from torso.recipes.artifact import load, without_weights


def test_only_files_of_weights_are_forgotten() -> None:
    tree = {"backbone": {"weights": "w.pth"}, "coder": {"weights": [1, 1]}, "tricks": [{"weights": "x"}]}
    expected = {"backbone": {"weights": None}, "coder": {"weights": [1, 1]}, "tricks": [{"weights": None}]}
    assert without_weights(tree) == expected


def test_a_config_that_is_damaged_or_of_others(tmp_path: Path) -> None:
    for text, says in (
        ("{", "damaged"),
        (json.dumps({"classes": []}), "lacks class_ids, name, recipe, task"),
        ("[]", "lacks"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=says):
            load(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not something torso can load"):
        load(tmp_path)
