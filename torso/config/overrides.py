"""One tree over another: a recipe over its base, an override over a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torso.config.errors import Problem, RecipeError
from torso.config.nodes import MAX_DEPTH, Node, is_text, parse, scalar


def merge(old: Node, new: Node, problems: list[Problem], path: str = "") -> Node:
    """What holds after ``new`` has been said over ``old``.

    A mapping without ``name`` changes the keys it has (of a part, its arguments; of a list, the items with these
    numbers); anything else takes the place of the old value, so naming a part anew drops the old part's arguments.
    """
    if not isinstance(new.value, dict) or "name" in new.value:
        return new
    if isinstance(old.value, list) and _numbered(new):
        return _merge_items(old, new, problems, path)
    if isinstance(old.value, str):
        old = Node({"name": old}, old.where)
    if not isinstance(old.value, dict):
        return new
    merged = dict(old.value)
    for key, value in new.value.items():
        merged[key] = merge(merged[key], value, problems, _below(path, key)) if key in merged else value
    return Node(merged, old.where)


def _numbered(node: Node) -> bool:
    return bool(node.value) and all(key.isascii() and key.isdigit() and len(key) < 9 for key in node.value)


def _merge_items(old: Node, new: Node, problems: list[Problem], path: str) -> Node:
    items = list(old.value)
    for key, value in new.value.items():
        place = int(key)
        if place < len(items):
            items[place] = merge(items[place], value, problems, _below(path, key))
        elif place == len(items):
            items.append(value)
        else:
            problems.append(
                Problem(value.where, f"{path} is a list of {len(items)}: it has no item {key} (they count from 0)")
            )
    return Node(items, old.where)


def override(tree: Node, texts: str | Sequence[str], problems: list[Problem]) -> Node:
    """The tree after overrides like ``model.neck=bifpn``, ``model.assigner.topk=13`` or ``train.tricks.0.norm=10``.

    What is no ``key=value``, is not YAML or counts further than a list goes is added to ``problems``. Whether the keys
    exist and the values fit is for `check` to say: it knows the signatures.
    """
    for text in [texts] if isinstance(texts, str) else texts:
        try:
            tree = merge(tree, _said(text), problems)
        except RecipeError as error:
            problems += error.problems
    return tree


def _said(text: str) -> Node:
    """The override as a tree with one leaf."""
    where = f"override {text}"
    if not is_text(text):
        raise RecipeError([Problem(ascii(where), "this is not UTF-8")])
    key, equals, value = text.partition("=")
    names = key.strip().removeprefix("--").split(".")
    if not equals or not all(names) or len(names) > MAX_DEPTH:
        raise RecipeError([Problem(where, "expected key=value, for example data.path=DIR")])
    new = _value(value.strip(), where)
    for name in reversed(names):
        new = Node({name: new}, where)
    return new


def _value(text: str, where: str) -> Node:
    """Brackets, braces and quotes are YAML; everything else is one scalar, so that no path needs quotes."""
    if text[:1] not in {"[", "{", '"', "'"}:
        return Node(scalar(text), where, text)
    try:
        return _moved(parse(text, "the value"), where)
    except RecipeError as error:
        raise RecipeError([Problem(where, problem.message) for problem in error.problems]) from None


def _moved(node: Node, where: str) -> Node:
    value = node.value
    if isinstance(value, dict):
        value = {key: _moved(item, where) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_moved(item, where) for item in value]
    return Node(value, where, node.text)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
