"""The command line: verbs of a few lines each. torch and all else that is slow is imported inside a verb."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import torso
from torso.cli import data
from torso.cli.tell import Asked, Unread, numbers, table, tell

EPILOG = """\
anything of a recipe is changed with key=value (or --key value):
  torso train retinanet data.path=DIR model.neck.channels=64 train.epochs=3
exit codes: 0 done, 2 recipe or command, 3 data, 4 model or checkpoint, 5 export,
            75 preempted, 130 interrupted, 1 anything else"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors of a user are one sentence on standard error.

    ``TORSO_DEBUG=1`` shows their traceback too.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name of a file that the terminal cannot show
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except (Unread, BrokenPipeError):  # and Python must not complain when it flushes at its end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return 1
    except KeyboardInterrupt:
        print("torso: interrupted", file=sys.stderr)
        return 130
    return code


def _run(argv: list[str]) -> int:
    parser, verbs = _parser()
    words = 2 if argv[:1] == ["data"] else 1
    verb = verbs.get(" ".join(argv[:words]))
    if verb is None:
        if not argv:
            parser.print_help()
            return 2
        parser.parse_args(argv)  # help and version end here, and what is no verb is told so
        parser.error("a verb is needed")
    asked = verb.parse_intermixed_args(_overrides_as_words(argv[words:], verb))
    from torso.config import TorsoError, add_module

    asked.stdout = sys.stdout
    try:
        # With --json only the result goes to standard output, whatever else is printed on the way.
        with redirect_stdout(sys.stderr if asked.json else sys.stdout):
            for module in asked.imports:
                add_module(module)
            asked.do(asked)
    except TorsoError as error:
        return _failed(error, error.code)
    except OSError as error:  # a disk that is full, a folder that may not be written
        return _failed(error, 1)
    return 0


def _failed(error: Exception, code: int) -> int:
    if os.environ.get("TORSO_DEBUG") == "1":
        raise error
    print(f"torso: {error}", file=sys.stderr)
    return code


def _overrides_as_words(argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """``--data.path DIR`` and ``--data.path=DIR`` as ``data.path=DIR``: options of torso itself have no dots."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--":
            return [*words, word, *rest]
        if not re.match(r"--\w+(\.\w+)+(=|$)", word):
            words.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                parser.error(f"{word} needs a value: {word} VALUE, or {key}=VALUE")
            value = str(following)
        words.append(f"{key}={value}")
    return words


# ---------------------------------------------------------------- what can be asked


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of everything, and the parsers of the verbs by name."""
    look: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser("torso", description="Vision models as recipes of parts.", epilog=EPILOG, **look)
    parser.add_argument("--version", action="version", version=f"torso {torso.__version__}")
    choices = parser.add_subparsers(title="verbs", metavar="VERB")
    verbs: dict[str, argparse.ArgumentParser] = {}

    def verb(name: str, do: Callable[[Asked], None], sentence: str, among: Any = choices) -> Callable[..., Any]:
        found = among.add_parser(name.rpartition(" ")[2], help=sentence, description=sentence, **look)
        found.set_defaults(do=do)
        found.add_argument("--json", action="store_true", help="print the result as JSON")
        found.add_argument(
            "--import", dest="imports", metavar="MODULE", action="append", default=[], help="a module with PARTS to add"
        )
        verbs[name] = found
        return found.add_argument  # type: ignore[no-any-return]

    _recipe_verbs(verb)
    _run_verbs(verb)
    group = choices.add_parser("data", help="make, check or change a data set", **look)
    data.verbs(verb, group.add_subparsers(title="verbs", metavar="VERB", required=True))
    return parser, verbs


def _recipe_verbs(verb: Callable[..., Any]) -> None:
    add = verb("train", _train, "Train a recipe: a new run folder with everything in it.")
    add("recipe", metavar="RECIPE", help="a name of `torso parts recipe`, or a YAML file")
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="data.path=DIR model.neck.channels=64 ...")
    add("--runs", default="runs", metavar="DIR", help="where run folders are made (%(default)s)")
    add("--name", help="of the run (the recipe's)")
    add("--quiet", action="store_true", help="print nothing while training")
    add = verb("show", _show, "What a recipe or a run is made of: the resolved recipe, its parts, their parameters.")
    add("target", metavar="RECIPE|RUN")
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add("--depth", type=int, default=2, help="how deep to look into the model (%(default)s)")
    add("--svg", metavar="FILE", help="draw backbone, neck and head with their shapes")
    add = verb("parts", _parts, "What parts there are, or the page of one.")
    add("role", nargs="?", metavar="ROLE", help="neck, loss, ... or recipe")
    add("name", nargs="?", metavar="NAME")
    add("--schema", action="store_true", help="the JSON schema of a recipe, for editors")


def _run_verbs(verb: Callable[..., Any]) -> None:
    add = verb("resume", _resume, "Go on with a run that was stopped, as if nothing had happened.")
    add("run", metavar="RUN")
    add("--quiet", action="store_true", help="print nothing while training")
    add = verb("eval", _eval, "Judge a run or an exported model on a split of its data, or of other data.")
    add("model", metavar="RUN|FILE", help="a run folder, model.safetensors or model.onnx")
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="data.path=DIR ...")
    add("--split", help="the recipe's data.val where not given")
    add("--out", metavar="DIR", help="write predictions.json and evaluation.json there")
    _looking(add)
    add = verb("predict", _predict, "Answer for pictures: drawn, and as COCO results.")
    add("model", metavar="RUN|FILE")
    add("inputs", nargs="+", metavar="IMAGE|DIR")
    add("--out", metavar="DIR", help="where answers go (RUN/predictions)")
    add("--threshold", type=float, metavar="SCORE", help="leave out detections below")
    _looking(add)
    add = verb("export", _export, "Write a model for another runtime, and verify it there.")
    add("model", metavar="RUN|FILE")
    add("--to", default="onnx", choices=["onnx"])
    add("--out", metavar="FILE", help="RUN/model.onnx where not given")


def _looking(add: Callable[..., Any]) -> None:
    add("--tta", metavar="LOOKS", help="look again mirrored and at scales, and merge the answers: flip,0.8,1.2")
    add(
        "--tiles", type=int, metavar="PIXELS", help="look through windows so wide, for pictures larger than the network"
    )
    add("--overlap", type=float, metavar="SHARE", help="what two windows share at least (0.2)")
    add("--whole", action="store_true", help="beside windows, look at the whole picture too")
    add(
        "--merge",
        metavar="SUPPRESS",
        help="to one answer: weighted_fusion, soft_nms, '{name: ios_nms, overlap: 0.6}' ...",
    )


# ---------------------------------------------------------------- the verbs


def _how(asked: Asked) -> Any:
    """How the model looks at pictures; None as it learned to."""
    from torso.recipes.looking import looking

    return looking(asked.tta, asked.tiles, asked.overlap, asked.whole, asked.merge)


def _train(asked: Asked) -> None:
    from torso.recipes import run

    result = run.train(asked.recipe, asked.overrides, runs=asked.runs, name=asked.name, quiet=asked.quiet)
    tell(asked, result, _trained(result))


def _resume(asked: Asked) -> None:
    from torso.recipes import run

    result = run.resume(asked.run, quiet=asked.quiet)
    tell(asked, result, _trained(result))


def _trained(result: Mapping[str, Any]) -> Iterator[str]:
    folder = result["run"]
    yield f"{numbers(result['metrics'])}  in {result['seconds']:.0f} s"
    yield f"report   {folder}/report.html"
    yield f"next     torso eval {folder} | torso predict {folder} IMAGE | torso export {folder} --to onnx"


def _eval(asked: Asked) -> None:
    from torso.recipes import run

    result = run.evaluate(asked.model, asked.overrides, split=asked.split, out=asked.out, how=_how(asked))
    where = f"{result['split']}: {result['images']} pictures of {result['data']}, {result['seconds']:.1f} s"
    lines = [where, *table(result.get("per_class", [])), numbers(result["summary"])]
    for name in ("errors", "mask_errors"):
        if name in result:
            lines += [f"{name.replace('_', ' ')}, and what AP50 would gain without them:", *table(result[name])]
    if "voc" in result:
        lines.append(f"by the rules of VOC: {numbers(result['voc'])}")
    tell(asked, result, lines)


def _predict(asked: Asked) -> None:
    from torso.recipes import run

    result = run.predict(asked.model, asked.inputs, out=asked.out, threshold=asked.threshold, how=_how(asked))
    lines = [f"skipped  {one['path']}: {one['reason']}" for one in result["skipped"]]
    tell(asked, result, [*lines, f"{result['images']} pictures, drawn and in predictions.json: {result['out']}"])


def _export(asked: Asked) -> None:
    from torso.recipes import run

    result = run.export(asked.model, asked.to, out=asked.out, say=print)
    tell(asked, result, [f"{result['file']}  {result['size'] / 1e6:.1f} MB, verified"])


def _show(asked: Asked) -> None:
    from torso.recipes import run

    result = run.show(asked.target, asked.overrides, depth=asked.depth, svg=asked.svg)
    tell(asked, result, _shown(result))


def _shown(result: Mapping[str, Any]) -> Iterator[str]:
    yield str(result["yaml"])
    yield from table(result["parts"], ["path", "id", "source"])
    width, height = result["size"]
    yield f"\none picture of {width} x {height}; FLOPs are 2 a multiply-add, strides and receptive fields in pixels"
    yield from table([_layer(row) for row in result["layers"]])
    for group in result.get("groups", []):
        yield "group    " + "  ".join(f"{key} {value}" for key, value in group.items())


def _layer(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the anatomy as the table shows it."""
    from torso.anatomy.summary import shown

    shapes = [" x ".join(map(str, shape[1:] if shape[:1] == (1,) else shape)) for shape in row["outputs"]]
    field = row["receptive_field"]
    return {
        "layer": row["path"] or "all",
        "kind": row["kind"],
        "output": ", ".join(shapes[:1] + ([f"{len(shapes)} in all"] if len(shapes) > 1 else [])),
        "parameters": f"{row['parameters']:,}",
        "FLOPs": shown(row["flops"]),
        "stride": "-" if row["stride"] is None else f"{row['stride']:g}",
        "field": "-" if field is None else shown(field) if field > 1e6 else f"{field:g}",
    }


def _parts(asked: Asked) -> None:
    from dataclasses import asdict

    from torso.recipes import parts, schema

    if asked.schema:
        asked.json = True
        tell(asked, schema.recipe_schema(), [])
    elif asked.name:
        row, text = parts.page(asked.role, asked.name)
        tell(asked, asdict(row) | {"text": text}, [f"{row.id}  ({row.provider})", row.signature, "", text])
    else:
        rows = [asdict(row) for row in parts.rows(asked.role)]
        tell(asked, rows, table(rows, ["id", "year", "summary"]))
