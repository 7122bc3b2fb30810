"""Export to ONNX: decoding and suppression inside, outputs of fixed size, any batch; verified before it is written."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torso.config import ExportError
from torso.deploy.exported import first_line
from torso.deploy.extras import extra
from torso.deploy.metadata import describe, encode
from torso.deploy.padding import same_padding_settled
from torso.deploy.shipped import Shipped, shipped
from torso.deploy.verify import random_pictures, verify

ANY_SIZE = 32  # the free step of models that take any size


def export(
    model: nn.Module,
    path: str | Path,
    *,
    size: int | tuple[int, int],
    metadata: Mapping[str, Any],
    pictures: Tensor | None = None,
    batch_dynamic: bool = True,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write ``model.predict`` as an ONNX file, once ONNX Runtime has been seen to give the same answers.

    The file takes ``images [B, 3, H, W]`` uint8 RGB, any B, H and W multiples of its stride (of 32 where a model
    takes any size: torch.export asks at every strided layer whether its input divides). A detector's file gives
    ``boxes [B, D, 4]`` (``xyxy`` pixels of the input), ``scores [B, D]``, ``labels [B, D]``, ``valid [B, D]``; a
    classifier's ``probabilities [B, C]``. Should the model refuse other sizes, its file takes the given size only.

    Args:
        model: a detector or classifier; it is not changed.
        path: the file to write; an old one stays as it is if anything fails.
        size: side, or (width, height), of the network's input in pixels.
        metadata: goes into the file, see ``torso.deploy.metadata.describe``; ``classes`` is required.
        pictures: ``[N, 3, H, W]`` uint8 real pictures of that size, to verify with.
        batch_dynamic: False makes a file for one picture at a time.
        say: is told the notes and the table of differences.

    Returns:
        The path.

    Raises:
        ExportError: the model cannot be exported, or its file gives other answers; nothing is written then.

    Source: torch.onnx (dynamo exporter).
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        extra(module, "export onnx", error=ExportError)
    path, tell = Path(path), say or (lambda line: None)
    width, height = (size, size) if isinstance(size, int) else size
    content = describe(model, (width, height), metadata)
    step = content["stride"] = content["stride"] if content["stride"] > 1 else ANY_SIZE
    program, dynamic = _convert(shipped(model), (height, width), step, batch_dynamic, tell)
    program.model.metadata_props.update(encode({**content, "dynamic": dynamic}))
    program.model.producer_name, program.model.producer_version = "torso", content["torso"]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        program.save(str(unfinished))
        _check(unfinished)
        tell(str(verify(model, unfinished, pictures)))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _convert(
    ship: Shipped, size: tuple[int, int], step: int, batch: bool, tell: Callable[[str], None]
) -> tuple[Any, dict[str, bool]]:
    """The ONNX program, and which dimensions of its input are free."""
    only = f"the file takes pictures of {size[1]}x{size[0]} only"
    if size[0] % step == 0 and size[1] % step == 0:
        try:
            program = _program(ship, size, step, batch)
            if not any(str(side).isdigit() for side in program.model.graph.inputs[0].shape[2:]):
                return program, {"batch": batch, "size": True}
            # Torch pins the sides without a word where the model is made for one size (YOLOv1's grid).
            tell(f"{only}, because the model is made for that size")
        except Exception as error:  # torch.export and its ONNX side raise dozens of kinds
            tell(f"{only}, because torch refuses other sizes of this model: {_reason(error)}")
    else:
        tell(f"{only}, because that is no multiple of {step}")
    try:
        return _program(ship, size, None, batch), {"batch": batch, "size": False}
    except Exception as error:
        raise ExportError(f"torch cannot export this model: {_reason(error)}") from error


def _program(ship: Shipped, size: tuple[int, int], step: int | None, batch: bool) -> Any:
    """The ONNX program for pictures whose sides are any multiples of ``step``, or for one size only."""
    images, dims = random_pictures(2 if batch else 1, *size), {}
    if batch:
        dims[0] = torch.export.Dim("batch", min=1, max=65536)
    if step is not None:
        dims[2], dims[3] = (step * torch.export.Dim(side, min=1, max=65536 // step) for side in ("h", "w"))
    with warnings.catch_warnings(), same_padding_settled():
        # Deprecations inside torch and onnxscript: nothing that a user of torso could act on.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.export.export(ship, (images,), dynamic_shapes=(dims,), strict=False)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=list(ship.names),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
        )
    return _tidy(program, len(ship.answers))


def _reason(error: BaseException) -> str:
    """The line of torch's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Constraints violated")]
    return (telling or lines or [type(error).__name__])[0]


def _stable_sort() -> Callable[..., Any]:
    """``torch.sort(stable=True)`` in ONNX, which torch does not translate: TopK puts the first of equals first."""
    from onnxscript import opset18 as op

    def sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        length = op.Shape(self, start=dim, end=dim + 1 or None)
        return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    return sort


def _tidy(program: Any, answers: int) -> Any:
    """Only answers as outputs, speaking names of free dimensions, and no traces of the machine that exported."""
    del program.model.graph.outputs[answers:]  # verify finds the others by their names
    shape = program.model.graph.inputs[0].shape
    for axis, name in ((0, "batch"), (2, "h"), (3, "w")):
        if symbol := re.search(r"[a-z]\w*", str(shape[axis])):
            program.rename_axes({symbol.group(): name})
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces with paths of this machine
        for value in node.outputs:
            value.metadata_props.clear()
    return program


def _check(path: Path) -> None:
    onnx = extra("onnx", "export onnx", error=ExportError)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"torch wrote an invalid ONNX file: {first_line(error)}") from error
