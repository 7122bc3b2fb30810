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
from torso.deploy.shipped import Shipped, shipped
from torso.deploy.verify import random_pictures, verify


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

    The file takes ``images [B, 3, H, W]`` uint8 RGB, any B, H and W multiples of the model's stride. A detector's file
    gives ``boxes [B, D, 4]`` (``xyxy`` pixels of the input), ``scores [B, D]``, ``labels [B, D]``, ``valid [B, D]``; a
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
    program, dynamic = _convert(shipped(model), (height, width), batch_dynamic, tell)
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


def _convert(ship: Shipped, size: tuple[int, int], batch: bool, tell: Callable[[str], None]) -> tuple[Any, Any]:
    """The ONNX program, and which dimensions of its input are free."""
    stride = int(ship.model.stride)  # type: ignore[arg-type]
    free = {"batch": batch, "size": size[0] % stride == 0 and size[1] % stride == 0}
    if not free["size"]:
        tell(f"{size[1]}x{size[0]} is no multiple of the stride {stride}: the file takes pictures of this size only")
    try:
        return _program(ship, size, free), free
    except Exception as error:  # torch.export and its ONNX side raise dozens of kinds
        if not free["size"]:
            raise ExportError(f"torch cannot export this model: {first_line(error)}") from error
        reason = first_line(error)
    free["size"] = False
    try:
        program = _program(ship, size, free)
    except Exception as error:
        raise ExportError(f"torch cannot export this model: {first_line(error)}") from error
    tell(f"the file takes pictures of {size[1]}x{size[0]} only; for other sizes torch refuses this model: {reason}")
    return program, free


def _program(ship: Shipped, size: tuple[int, int], free: Mapping[str, bool]) -> Any:
    images = random_pictures(2 if free["batch"] else 1, *size)
    stride, dims = int(ship.model.stride), {}  # type: ignore[arg-type]
    if free["batch"]:
        dims[0] = torch.export.Dim("batch", min=1, max=65536)
    if free["size"]:
        # torch.export takes multiples of a symbol only, and needs an upper end.
        for axis, name in ((2, "h"), (3, "w")):
            symbol = torch.export.Dim(name, min=1, max=max(65536 // stride, 2))
            dims[axis] = stride * symbol if stride > 1 else symbol
    with warnings.catch_warnings():
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
