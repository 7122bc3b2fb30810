"""`torso show`: the table and the figure of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from torso.cli import main
from torso.recipes.recipe import shipped
from torso.recipes.run import show


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_is_drawn(name: str, tmp_path: Path) -> None:
    found = show(name, svg=tmp_path / "a.svg", depth=1)
    tree = ElementTree.parse(tmp_path / "a.svg")
    words = " ".join(text.text or "" for text in tree.iter("{http://www.w3.org/2000/svg}text"))
    whole, *_ = found["layers"]
    assert whole["path"] == ""
    assert whole["flops"] > 0
    assert whole["parameters"] == sum(found["parameters"].values())
    assert name in words
    assert "3 x " in words


def test_retinanet_says_what_its_paper_says(tmp_path: Path) -> None:
    layers = {row["path"]: row for row in show("retinanet", ["data.size=800"], depth=1)["layers"]}
    assert [shape[1:] for shape in layers["neck"]["outputs"]] == [(256, side, side) for side in (100, 50, 25, 13, 7)]
    assert layers["backbone"]["stride"] == 32
    assert layers["backbone"]["receptive_field"] == 427  # of ResNet-50 whose 3x3 convolutions have the stride
    assert layers["head"]["outputs"][0] == (1, 120087, 80)


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "demo", "--depth", "1", "--svg", str(tmp_path / "demo.svg")]) == 0
    text = capsys.readouterr().out
    assert "receptive fields in pixels" in text
    assert "backbone" in text
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")
    assert main(["show", "demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["size"] == [256, 256]
    assert {"path", "outputs", "flops", "stride", "receptive_field"} <= set(found["layers"][0])


def test_names_in_the_figure_are_escaped(tmp_path: Path) -> None:
    from torso.anatomy.figure import anatomy_svg
    from torso.anatomy.summary import Row

    rows = [Row("", "M", (), 1, 1, 1, None, None), Row("head", "H", ((1, 2),), 1, 1, 1, None, None)]
    text = anatomy_svg(rows, (8, 8), "<b>", {}, {"head": "<script>"})
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.part("neck/matrix")
def test_stretched_levels_are_drawn_with_height_and_width(tmp_path: Path) -> None:
    show("retinanet", ["model.neck={name: matrix, channels: 32}"], svg=tmp_path / "a.svg", depth=1)
    tree = ElementTree.parse(tmp_path / "a.svg")
    words = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("stride 8") == 2, "of the backbone and of the neck"
    assert words.index("stride 8 x 16") < words.index("stride 16 x 8") < words.index("stride 32 x 64")
    assert sum(word is not None and word.startswith("stride") for word in words) == 3 + 19
