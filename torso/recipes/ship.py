"""Export of a run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torso.config import DataError, ExportError
from torso.recipes.artifact import Artifact, load
from torso.recipes.sources import judging_loader, open_split, size_of

PICTURES = 8  # real ones the export is verified with


def export(
    path: str | Path,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write a trained model as a file that another runtime can run, verified against the model.

    Args:
        path: a run, or a ``model.safetensors`` with its ``config.json``.
        to: ``"onnx"``.
        out: the file to write; ``<run>/model.onnx`` when ``None``.
        say: is told what is verified.

    Returns:
        ``file`` and ``size`` (bytes).

    Raises:
        ExportError: an unknown target, or the file does not give the model's answers; nothing is written then.
    """
    if to != "onnx":
        raise ExportError(f"torso exports to onnx, not to {to!r}")
    from torso.deploy import onnx

    artifact = load(path)
    if artifact.path.suffix == ".onnx":
        raise ExportError(f"{path} is exported already: give the run it came from")
    data = artifact.recipe.data.build()
    if data["bits"] != 8:
        raise ExportError(f"{path} learned from pictures of {data['bits']} bits; exported files take 8 bits only")
    target = Path(out) if out is not None else artifact.folder / "model.onnx"
    metadata = {
        "classes": list(artifact.classes),
        "class_ids": artifact.config["class_ids"],
        "recipe": artifact.config["recipe"],
        "preprocessing": {"resize": artifact.config["recipe"]["data"]["resize"]},
        "threshold": artifact.threshold,
    }
    real = real_pictures(artifact, data)
    if real is None:
        say("the data of the run is not here: verified with random pictures only")
    written = onnx.export(artifact.model, target, size=size_of(data), metadata=metadata, pictures=real, say=say)
    return {"file": str(written), "size": written.stat().st_size}


def real_pictures(artifact: Artifact, data: dict[str, Any]) -> Tensor | None:
    """The first pictures of the validation split as the network sees them; ``None`` where the data is not here."""
    try:
        index = open_split(data, data["val"], artifact.classes)
    except DataError:
        return None
    loader = judging_loader({**data, "workers": 0, "batch": 4}, index)
    batches = [batch.images for batch in islice(loader.epoch(0), PICTURES // 4)]
    return torch.cat(batches)[:PICTURES]
