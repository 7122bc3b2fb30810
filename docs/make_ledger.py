"""Writes docs/ledger.md: with what each part was compared, how exactly, and by which test.

Everything on the page is read from the tests: marks, docstrings, imports and tolerances. ``python docs/make_ledger.py``
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ledger.md"
# Libraries that give somebody else's answer, as imported and as known.
ORACLES = {
    "torchvision": "torchvision", "timm": "timm", "pycocotools": "pycocotools", "sklearn": "scikit-learn",
    "scipy": "scipy", "onnxruntime": "onnxruntime", "PIL": "pillow", "cv2": "opencv-python-headless",
}  # fmt: skip
HEAD = """# With what each part was compared

Every row is a test, and `make test` runs it again before your eyes, with the versions you have (its first lines name
them). The page is written by `docs/make_ledger.py` from the tests alone: the mark says which part, the docstring what
is compared, the imports with whom. A tolerance is relative, unless it says otherwise; where there is none, equality is
exact or the sentence says what holds.
"""


class Row(NamedTuple):
    """One marked test."""

    part: str
    claim: str
    tolerance: str
    test: str


def dotted(node: ast.AST) -> str:
    """``pytest.mark.part`` for the expression of that spelling."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def marks(nodes: list[ast.expr]) -> list[str]:
    """Ids of the parts that these decorators name."""
    calls = [node for root in nodes for node in ast.walk(root) if isinstance(node, ast.Call)]
    named = [call.args for call in calls if dotted(call.func) == "pytest.mark.part"]
    return [str(a.value) for arguments in named for a in arguments if isinstance(a, ast.Constant)]


def tolerances(function: ast.FunctionDef) -> str:
    """The numbers given as ``rtol``, ``atol``, ``rel`` or ``abs``."""
    names = {"rtol": "", "rel": "", "atol": "absolute ", "abs": "absolute "}
    found = {
        f"{names[keyword.arg]}{keyword.value.value:g}"
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in names and isinstance(keyword.value, ast.Constant) and keyword.value.value
    }
    return ", ".join(sorted(found))


def oracles(tree: ast.Module) -> list[str]:
    """Libraries this file imports in order to compare with them."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return sorted({ORACLES[top] for name in names if (top := name.partition(".")[0]) in ORACLES})


def claim(function: ast.FunctionDef) -> str:
    """The first sentence of its docstring, or its name in words."""
    page = ast.get_docstring(function) or function.name.removeprefix("test_").replace("_", " ")
    return re.split(r"(?<=[.!?])\s", page.replace("\n", " "))[0].rstrip(".").replace("|", "\\|")


def rows(path: Path, tree: ast.Module) -> Iterator[Row]:
    """One row a marked test and part; a mark on a class or in ``pytestmark`` counts for the tests below it."""

    def walk(body: list[ast.stmt], above: list[str]) -> Iterator[Row]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, above + marks(node.decorator_list))
            elif isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                for part in dict.fromkeys(above + marks(node.decorator_list)):
                    place = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                    yield Row(part, claim(node), tolerances(node), place)

    whole = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and dotted(node.targets[0]) == "pytestmark"
    ]
    yield from walk(tree.body, marks(whole))


def section(title: str, folder: str) -> Iterator[str]:
    """The tests of a folder as a table."""
    table = []
    for path in sorted((ROOT / "tests" / folder).rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        others = ", ".join(oracles(tree))
        table += [f"| `{r.part}` | {r.claim} | {others} | {r.tolerance} | `{r.test}` |" for r in rows(path, tree)]
    yield f"\n## {title}\n"
    yield "| part | what is compared | imports | to | test |\n|---|---|---|---|---|"
    yield from sorted(table)


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    lines += section("Against implementations we did not write", "parity")
    lines += section("Against closed forms, slow plain versions and laws", "unit")
    return "\n".join(lines) + "\n"


def written_with() -> str:
    """The versions on this machine; the only line of the page that differs from one machine to the next."""
    return "Written with " + ", ".join(f"{name} {version(name)}" for name in sorted({"torch", *ORACLES.values()})) + "."


if __name__ == "__main__":
    PAGE.write_text(f"{page()}\n{written_with()}\n", encoding="utf-8")
