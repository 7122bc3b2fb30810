"""The command line: what is asked reaches the verbs, what comes back is told, and errors are one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torso import cli
from torso.config import DataError, ExportError, ModelError, RecipeError, TorsoError
from torso.recipes import run

VERBS = [
    "train",
    "eval",
    "predict",
    "export",
    "resume",
    "parts",
    "show",
    "data make",
    "data check",
    "data convert",
    "data split",
    "data stats",
]
TRAINED = {"run": "runs/detect/x-1", "seconds": 61.4, "metrics": {"AP": 0.51234, "AP50": None}}
JUDGED = {
    "split": "val", "images": 3, "data": "DIR", "seconds": 1.23,
    "summary": {"AP": 0.5}, "per_class": [{"class": "cat", "AP": 0.25}, {"class": "seal", "AP": None}],
}  # fmt: skip
PREDICTED = {"out": "O", "images": 2, "drawn": [], "skipped": [{"path": "a.jpg", "reason": "torn"}], "predictions": []}

SHOWN = {
    "yaml": "model: x\n",
    "parts": [{"path": "model", "id": "a/b", "source": "s"}],
    "parameters": {"neck": 1234},
    "size": [64, 32],
    "layers": [
        {
            "path": "neck",
            "kind": "FPN",
            "outputs": [(1, 8, 4, 8), (1, 8, 2, 4)],
            "parameters": 1234,
            "learned": 1234,
            "flops": 5678,
            "stride": 16.0,
            "receptive_field": float("inf"),
        }
    ],
}


class Calls(list[tuple[str, tuple[Any, ...], dict[str, Any]]]):
    """What the verbs were called with."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    heard = Calls()

    def stand_in(name: str, result: Any) -> None:
        def verb(*args: Any, **options: Any) -> Any:
            sys.stdout.write("chatter\n")  # whatever a library prints on the way
            heard.append((name, args, options))
            return result

        monkeypatch.setattr(run, name, verb)

    for name, result in [
        ("train", TRAINED), ("resume", TRAINED), ("evaluate", JUDGED), ("predict", PREDICTED),
        ("export", {"file": "m.onnx", "size": 2_500_000}),
        ("show", SHOWN),
    ]:  # fmt: skip
        stand_in(name, result)
    return heard


# ---------------------------------------------------------------- asking


BY_DEFAULT = {"runs": "runs", "name": None, "quiet": False}


@pytest.mark.part("cli/verbs")
@pytest.mark.parametrize(
    ("asked", "verb", "given", "options"),
    [
        ("train retinanet", "train", ("retinanet", []), BY_DEFAULT),
        (
            "train --quiet r data.path=x --runs R model.neck=fpn --name a=b train.epochs=1",
            "train",
            ("r", ["data.path=x", "model.neck=fpn", "train.epochs=1"]),
            {"runs": "R", "name": "a=b", "quiet": True},
        ),
        (
            "train r --data.path x --model.neck=fpn train.tricks.0.norm=1 --train.lr -1",
            "train",
            ("r", ["data.path=x", "model.neck=fpn", "train.tricks.0.norm=1", "train.lr=-1"]),
            BY_DEFAULT,
        ),
        ("resume R --quiet", "resume", ("R",), {"quiet": True}),
        (
            "eval m.onnx data.path=d --split test",
            "evaluate",
            ("m.onnx", ["data.path=d"]),
            {"split": "test", "out": None, "how": None},
        ),
        ("eval R --out O", "evaluate", ("R", []), {"split": None, "out": "O", "how": None}),
        (
            "predict R a.jpg x=y.jpg --out O",
            "predict",
            ("R", ["a.jpg", "x=y.jpg"]),
            {"out": "O", "threshold": None, "how": None},
        ),
        ("predict R a --threshold 0.3", "predict", ("R", ["a"]), {"out": None, "threshold": 0.3, "how": None}),
        ("predict R -- --data.path", "predict", ("R", ["--data.path"]), {"out": None, "threshold": None, "how": None}),
        ("export R --to onnx --out f", "export", ("R", "onnx"), {"out": "f", "say": print}),
        ("show r a.b=1", "show", ("r", ["a.b=1"]), {"depth": 2, "svg": None}),
    ],
)
def test_what_is_asked_reaches_the_verb(
    asked: str, verb: str, given: tuple[Any, ...], options: dict[str, Any], calls: Calls
) -> None:
    assert cli.main(asked.split()) == 0
    assert calls == [(verb, given, options)]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("trian x", "argument VERB: invalid choice: 'trian'"),
        ("train", "the following arguments are required: RECIPE"),
        ("train r --bogus 3", "unrecognized arguments: --bogus"),
        ("train r --data.path", "--data.path needs a value: --data.path VALUE, or data.path=VALUE"),
        ("train r --data.path --quiet", "--data.path needs a value"),
        ("predict R", "the following arguments are required: IMAGE|DIR"),
        ("predict R a.jpg --threshold high", "argument --threshold: invalid float value: 'high'"),
        ("export R --to coreml", "argument --to: invalid choice: 'coreml'"),
        ("data", "the following arguments are required: VERB"),
        ("data chek x", "argument VERB: invalid choice: 'chek'"),
        ("data make letters x", "argument what: invalid choice: 'letters'"),
    ],
)
def test_what_cannot_be_asked_ends_with_2(asked: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(asked.split())
    assert left.value.code == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert not said.out


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "torso train retinanet data.path=DIR" in capsys.readouterr().out


# ---------------------------------------------------------------- telling


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        (
            "train r",
            [
                "AP 0.5123  AP50 -  in 61 s",
                "report   runs/detect/x-1/report.html",
                "next     torso eval runs/detect/x-1 | torso predict runs/detect/x-1 IMAGE "
                "| torso export runs/detect/x-1 --to onnx",
            ],
        ),
        ("eval R", ["val: 3 pictures of DIR, 1.2 s", "class  AP", "cat    0.25", "seal   -", "AP 0.5"]),
        ("predict R x", ["skipped  a.jpg: torn", "2 pictures, drawn and in predictions.json: O"]),
        ("export R", ["m.onnx  2.5 MB, verified"]),
        (
            "show r",
            [
                *["model: x", "", "path   id   source", "model  a/b  s"],
                "",
                "one picture of 64 x 32; FLOPs are 2 a multiply-add, strides and receptive fields in pixels",
                "layer  kind  output               parameters  FLOPs   stride  field",
                "neck   FPN   8 x 4 x 8, 2 in all  1,234       5.68 k  16      all",
            ],
        ),
    ],
)  # fmt: skip
def test_results_are_told(asked: str, lines: list[str], calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(asked.split()) == 0
    assert capsys.readouterr().out.splitlines() == ["chatter", *lines]
    assert len(calls) == 1


@pytest.mark.parametrize("asked", ["train r", "resume R", "eval R", "predict R x", "export R", "show r"])
def test_json_is_all_there_is_on_standard_output(asked: str, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*asked.split(), "--json"]) == 0
    said = capsys.readouterr()
    assert isinstance(json.loads(said.out), dict)
    assert "chatter" in said.err
    assert len(calls) == 1


def test_json_holds_what_python_has_and_json_has_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    result = {
        "yaml": "",
        "parts": [],
        "parameters": {},
        "x": [float("nan"), np.float64(0.5), np.arange(2), Path("图/a b"), {1: (True, None)}],
    }
    monkeypatch.setattr(run, "show", lambda *_, **__: result)
    assert cli.main(["show", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["x"] == [None, 0.5, [0, 1], "图/a b", {"1": [True, None]}]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecipeError("wrong"), 2), (DataError("wrong"), 3), (ModelError("wrong"), 4), (ExportError("wrong"), 5),
        (TorsoError("wrong"), 1), (type("Preempted", (TorsoError,), {"code": 75})("wrong"), 75),
        (OSError(28, "No space left on device", "x/y"), 1), (BrokenPipeError(32, "Broken pipe"), 1),
        (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(run, "train", fails)
    monkeypatch.delenv("TORSO_DEBUG", raising=False)
    assert cli.main(["train", "r"]) == code
    said = capsys.readouterr()
    assert not said.out
    sentence = {130: "interrupted"}.get(code) or (str(error) if isinstance(error, OSError) else "wrong")
    assert said.err == f"torso: {sentence}\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise DataError("wrong")

    monkeypatch.setattr(run, "train", fails)
    monkeypatch.setenv("TORSO_DEBUG", "1")
    with pytest.raises(DataError):
        cli.main(["train", "r"])


def test_a_bad_recipe_is_a_list_of_problems_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "retinanet", "data.path=nowhere", "model.nek=fpn", "epochs=3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "torso: 2 problems in the recipe",
        "  override epochs=3: a recipe has no section 'epochs'; did you mean 'train.epochs'?",
        "  override model.nek=fpn: model.nek: model 'detector' has no 'nek'; did you mean 'neck'?",
    ]


# ---------------------------------------------------------------- parts and data


def test_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parts", "neck"]) == 0
    assert re.search(r"neck/fpn +2016  Top-down pathway", capsys.readouterr().out)
    assert cli.main(["parts", "neck", "fpn"]) == 0
    assert "channels: int = 256" in capsys.readouterr().out
    assert cli.main(["parts", "neck", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert list(row) == ["id", "summary", "source", "year", "provider", "signature"]
    assert cli.main(["parts", "neck", "fpn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "neck/fpn"
    assert cli.main(["parts", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "A recipe of torso"
    assert cli.main(["parts", "nek"]) == 2
    assert capsys.readouterr().err == "torso: there is no role 'nek'; did you mean 'neck'?\n"


def test_parts_of_a_module_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torso.config import roles

    (tmp_path / "mylab_for_cli.py").write_text('class N:\n    """Mine."""\nPARTS = {"neck": {"cli_neck": N}}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(roles, "_added", {})
    assert cli.main(["parts", "neck", "--import", "mylab_for_cli", "--json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)][-1] == "neck/cli_neck"
    assert cli.main(["parts", "neck", "--import", "no_such_lab"]) == 2
    assert "--import no_such_lab: ModuleNotFoundError" in capsys.readouterr().err
    del sys.modules["mylab_for_cli"]


@pytest.mark.parametrize("form", ["voc", "coco", "yolo", "folder"])
def test_data_made_and_checked(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "two words 数"
    asked = ["data", "make", "digits", str(folder), "--format", form, "--count", "10", "--size", "64", "--seed", "3"]
    assert cli.main(asked) == 0
    assert capsys.readouterr().out == f"10 pictures in {form} form: {folder}\n"
    assert cli.main(["data", "check", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == form
    assert {split: report["images"] for split, report in found["splits"].items()} == {"train": 8, "val": 2}
    assert cli.main(["data", "check", str(folder), "--split", "val"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{folder}: {form}, 2 pictures\n  val: 2 pictures")
    assert "train:" not in said


def test_labels_that_are_wrong_end_with_3_and_name_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "d"
    assert cli.main(["data", "make", "digits", str(folder), "--format", "yolo", "--count", "5", "--size", "64"]) == 0
    label = next((folder / "labels" / "train").glob("*.txt"))
    label.write_text(label.read_text() + "99 0.5 0.5 0.1 0.1\n")
    line = len(label.read_text().splitlines())
    capsys.readouterr()
    assert cli.main(["data", "check", str(folder)]) == 3
    said = capsys.readouterr()
    assert f"{label.name}:{line}" in said.out
    assert said.err == f"torso: {folder}: Not fit for training: 1 thing to correct first.\n"
    assert cli.main(["data", "check", str(folder), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["problems"]
    assert cli.main(["data", "check", str(tmp_path / "nowhere")]) == 3


# ---------------------------------------------------------------- as a process


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torso", *words], capture_output=True, text=True, check=False, **options
    )


@pytest.mark.parametrize("verb", ["", *VERBS, "data"])
def test_help_imports_nothing_that_is_slow(verb: str) -> None:
    code = (
        "import sys; from torso.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "slow = {'torch', 'numpy', 'yaml', 'rich', 'inspect', 'torso.config'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *verb.split(), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: torso {verb}".rstrip())


def test_version() -> None:
    import torso

    assert process("--version").stdout == f"torso {torso.__version__}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_reading_is_no_error(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "torso", "parts", "recipe"],
            stdout=write,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    done = process("data", "check", str(tmp_path / "数"), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3
    assert "\\u6570" in done.stderr
    assert "Traceback" not in done.stderr
