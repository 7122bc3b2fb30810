"""The listing of parts and the JSON schema: read from docstrings and signatures, true for every part there is."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import pytest
from torch import nn

from torso import config
from torso.config import ROLES, RecipeError, Role, parameters
from torso.recipes import parts
from torso.recipes.parts import describe_part, page, rows, signature_of, source_of
from torso.recipes.recipe import Recipe, sections, shipped
from torso.recipes.schema import recipe_schema


class Neck:
    """Brings levels together, e.g. two. And more.

    Source: An older paper, 1999.

    Source: A paper, 2019, arXiv:1908.08681; a detail of
        another, 2021, arXiv:2104.00001.
    """

    def __init__(
        self,
        in_channels: list[int],
        channels: int = 8,
        mode: Literal["a", "b"] = "a",
        norm: Annotated[Any, Role("norm", factory=True)] = nn.BatchNorm2d,
        ratios: tuple[float, float] | None = None,
        rate: float = 1e-5,
        scales: dict[str, float] | None = None,
        *,
        size: int,
    ): ...


class Bare:
    def __init__(self) -> None: ...


@pytest.fixture
def necks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torso.necks

    monkeypatch.setattr(torso.necks, "NECKS", {"mine": Neck, "bare": Bare, "theirs": nn.Mish})


@pytest.mark.usefixtures("necks")
def test_rows() -> None:
    mine, bare, theirs = rows("neck")
    assert mine.id == "neck/mine"
    assert mine.summary == "Brings levels together, e.g. two."
    assert mine.source == "A paper, 2019, arXiv:1908.08681; a detail of another, 2021, arXiv:2104.00001"
    assert mine.year == 2019
    assert mine.provider == "tests"
    assert mine.signature == (
        "mine(channels: int = 8, mode: 'a' | 'b' = a, norm: norm = batch, ratios: (float, float) | null = null, "
        "rate: float = 1.0e-05, scales: dict[float] | null = null, size: int)"
    )
    assert (bare.summary, bare.year, bare.signature) == ("", None, "bare()")
    assert theirs.source == "torch.nn.Mish"
    assert theirs.provider == "torch"
    assert theirs.summary == "Applies the Mish function, element-wise."


@pytest.mark.parametrize(
    ("source", "year"),
    [
        ("Faster R-CNN, 2015, arXiv:1506.01497; octaves from RetinaNet, 2017, arXiv:1708.02002", 2015),
        ("YOLOv4, arXiv:2004.10934", None),
        ("own design; the ranges are those of YOLOv5, 2020", None),
        ("A Stochastic Approximation Method, 1951", 1951),
        ("PASCAL VOC 2007, 2010", 2010),
        ("", None),
    ],
)
def test_the_year_is_that_of_the_first_source(source: str, year: int | None) -> None:
    assert parts._year(source) == year


def test_page() -> None:
    row, text = page("neck", "fpn")
    assert row.id == "neck/fpn"
    assert "Args:" in text
    row, text = page("recipe", "retinanet")
    assert row.id == "recipe/retinanet"
    assert "model:" in text
    with pytest.raises(RecipeError, match="no neck is called 'bifpm'; did you mean 'bifpn'"):
        page("neck", "bifpm")
    with pytest.raises(RecipeError, match="no recipe is called 'retinnet'; did you mean 'retinanet'"):
        page("recipe", "retinnet")
    with pytest.raises(RecipeError, match="there is no role 'nek'; did you mean 'neck'"):
        rows("nek")


def test_describe_part() -> None:
    spec = Recipe.load("retinanet", without_data=True).model.args["neck"]
    found = describe_part(spec)
    assert found["path"] == "model.neck"
    assert found["id"] == "neck/fpn"
    assert found["year"] == 2016
    assert list(found) == ["path", "id", "summary", "source", "year", "provider"]


# ---------------------------------------------------------------- every part there is


@pytest.fixture(scope="module")
def everything() -> list[parts.Row]:
    return rows()


def test_every_role_and_every_recipe_is_listed(everything: list[parts.Row]) -> None:
    ids = [row.id for row in everything]
    assert len(ids) == len(set(ids))
    assert {row.partition("/")[0] for row in ids} == {*ROLES, "recipe"}
    assert {row.partition("/")[2] for row in ids if row.startswith("recipe/")} == set(shipped())


def test_every_part_has_a_sentence_and_a_source(everything: list[parts.Row]) -> None:
    for row in everything:
        assert re.fullmatch(r"[a-z]+/[a-z0-9_]+", row.id)
        assert row.summary, f"{row.id} has no docstring"
        assert row.source or row.id.startswith("recipe/"), f"{row.id}: its docstring ends without a line 'Source: ...'"
        assert row.year is None or 1800 < row.year < 2100


def test_every_part_of_ours_is_built_from_a_closed_signature() -> None:
    for role in ROLES:
        for name, part in config.parts(role).items():
            if not part.__module__.startswith("torso"):
                continue
            signature = parts.inspect.signature(part)
            assert not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()), f"{role}/{name}"
            assert signature_of(name, parameters(part)).startswith(f"{name}(")


def test_library_parts_have_their_public_name() -> None:
    import torch

    assert source_of(nn.BatchNorm2d) == "torch.nn.BatchNorm2d"
    assert source_of(torch.optim.AdamW) == "torch.optim.AdamW"


# ---------------------------------------------------------------- the schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema()


def test_the_schema_is_json_and_whole(schema: dict[str, Any]) -> None:
    text = json.dumps(schema)
    wanted = set(re.findall(r'"#/\$defs/(\w+)"', text))
    assert wanted == set(schema["$defs"])
    assert set(schema["properties"]) == {"base", *sections()}
    assert schema["additionalProperties"] is False


TYPES: dict[str, Any] = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}
NUMBERS: dict[str, Any] = {"integer": int, "number": int | float}


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """The few words of JSON schema that ours uses, read independently of how it is written."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    kind = schema.get("type")
    if kind in NUMBERS and (isinstance(value, bool) or not isinstance(value, NUMBERS[kind])):
        return False
    if kind in TYPES and not isinstance(value, TYPES[kind]):
        return False
    return (
        value in schema.get("enum", [value])
        and value == schema.get("const", value)
        and ("anyOf" not in schema or any(accepts(one, value, root) for one in schema["anyOf"]))
        and not ("not" in schema and accepts(schema["not"], value, root))
        and (not isinstance(value, dict) or accepts_object(schema, value, root))
        and (not isinstance(value, list) or accepts_list(schema, value, root))
    )


def accepts_object(schema: dict[str, Any], value: dict[str, Any], root: dict[str, Any]) -> bool:
    """``required``, ``properties`` and ``additionalProperties``."""
    known, extra = schema.get("properties", {}), schema.get("additionalProperties", {})
    inner = {key: known.get(key, extra) for key in value}
    return set(schema.get("required", [])) <= set(value) and all(
        one is not False and accepts(one, value[key], root) for key, one in inner.items()
    )


def accepts_list(schema: dict[str, Any], value: list[Any], root: dict[str, Any]) -> bool:
    """``items``, ``prefixItems`` and the number of them."""
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    each = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
    return all(accepts(one, item, root) for one, item in zip(each, value, strict=True))


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_schema_accepts_every_recipe_resolved_and_as_written(name: str, schema: dict[str, Any]) -> None:
    assert accepts(schema, Recipe.load(name, ["data.path=x"]).tree, schema)
    assert accepts(schema, config.parse(shipped()[name].read_text(encoding="utf-8"), name).plain(), schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"modle": {}},
        {"model": {"name": "detector", "nek": "fpn"}},
        {"model": {"name": "detector", "neck": {"name": "fpn", "channels": "many"}}},
        {"model": {"name": "detector", "neck": {"name": "fpn", "in_channels": [1]}}},
        {"model": {"name": "detector", "neck": "fnp"}},
        {"train": {"precision": "fp33"}},
        {"train": {"tricks": ["emma"]}},
        {"data": {"size": [1, 2, 3]}},
    ],
)
def test_the_schema_refuses_what_a_recipe_refuses(wrong: dict[str, Any], schema: dict[str, Any]) -> None:
    assert not accepts(schema, wrong, schema)
    with pytest.raises(RecipeError):
        Recipe.from_tree(wrong, without_data=True)
