"""The handbook's table of detectors says what their recipes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from torso.config import Spec
from torso.recipes.recipe import Recipe, shipped

PAGE = Path(__file__).parents[2] / "docs" / "handbook" / "detectors.md"
COLUMNS = ("head", "prior", "coder", "assigner", "class_loss", "box_loss", "suppress")


def row(name: str) -> str | None:
    """A recipe of a detector as a row of the table."""
    model = Recipe.load(name, without_data=True).model
    if model.name != "detector":
        return None
    parts: dict[str, Spec] = {key: model.args[key] for key in (*COLUMNS, "criterion")}
    words = {key: f"`{parts[key].name}`" for key in COLUMNS}
    if parts["criterion"].name != "dense":  # it matches by itself
        words["assigner"] = f"by `{parts['criterion'].name}`"
    return f"| `{name}` | " + " | ".join(words[key] for key in COLUMNS) + " |"


@pytest.mark.part("recipe/retinanet")
def test_the_table_says_what_the_recipes_say() -> None:
    told = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    meant = [found for name in sorted(shipped()) if (found := row(name))]
    assert told[: len(meant)] == meant, "\n".join(meant)


STAGES = ("propose", "roi", "head", "assigner", "sample", "class_loss", "box_loss", "suppress")


@pytest.mark.part("recipe/faster_rcnn", "recipe/faster_rcnn_c4", "recipe/fast_rcnn")
def test_the_table_of_stages_says_what_the_recipes_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = [line for line in page[page.index("## Two stages") :].splitlines() if line.startswith("| `")]
    models = {name: Recipe.load(name, without_data=True).model for name in sorted(shipped())}
    meant = [
        f"| `{name}` | " + " | ".join(f"`{part.name}`" if (part := model.args[key]) else "" for key in STAGES) + " |"
        for name, model in models.items()
        if model.name == "two_stage"
    ]
    assert told[: len(meant)] == meant, "\n".join(meant)


SETS = ("head", "assigner", "class_loss", "box_loss", "suppress")


@pytest.mark.part("recipe/detr")
def test_the_table_of_sets_says_what_the_recipes_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = [line for line in page[page.index("## Sets") :].splitlines() if line.startswith("| `")]
    models = {name: Recipe.load(name, without_data=True).model for name in sorted(shipped())}
    meant = [
        f"| `{name}` | " + " | ".join(f"`{model.args[key].name}`" for key in SETS) + " |"
        for name, model in models.items()
        if model.name == "query"
    ]
    assert told[: len(meant)] == meant, "\n".join(meant)


CORNERS = ("head", "class_loss", "box_loss", "criterion", "suppress")


@pytest.mark.part("recipe/cornernet", "recipe/centernet_triplets")
def test_the_table_of_corners_says_what_the_recipes_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = [line for line in page[page.index("## Corners") :].splitlines() if line.startswith("| `")]
    models = {name: Recipe.load(name, without_data=True).model for name in sorted(shipped())}
    meant = [
        f"| `{name}` | " + " | ".join(f"`{model.args[key].name}`" for key in CORNERS) + " |"
        for name, model in models.items()
        if model.name == "corners"
    ]
    assert told[: len(meant)] == meant, "\n".join(meant)
