"""An exported model, used like a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torso.config import ModelError
from torso.deploy.extras import extra
from torso.deploy.metadata import decode
from torso.structures import Detections


class Exported:
    """A file written by ``torso export``, run by ONNX Runtime on the CPU.

    It has what evaluation and prediction ask of a model: ``task``, ``num_classes``, ``stride``, ``predict``; and
    ``classes``, ``class_ids``, ``size`` (width, height) and the whole ``metadata`` that the file carries.

    Args:
        path: the ``.onnx`` file.
        threads: threads of ONNX Runtime; None leaves the number to it.

    Raises:
        ModelError: the file is missing, damaged, or was not written by torso; or ONNX Runtime is not installed.

    Source: onnxruntime.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError(f"{self.path}: no such file; `torso export RUN --to onnx` writes one")
        self.session = open_session(self.path, threads)
        self.metadata: dict[str, Any] = decode(self.session.get_modelmeta().custom_metadata_map)
        if "task" not in self.metadata:
            raise ModelError(f"{self.path} was not exported by torso: nothing in it says its task, classes and input")
        self.task: str = self.metadata["task"]
        self.classes: tuple[str, ...] = tuple(self.metadata["classes"])
        self.class_ids: tuple[int, ...] = tuple(self.metadata["class_ids"])
        self.num_classes = len(self.classes)
        self.stride: int = self.metadata["stride"]
        width, height = self.metadata["preprocessing"]["size"]
        self.size: tuple[int, int] = (width, height)

    def predict(self, images: Tensor) -> Detections | Tensor:
        """The answer to pictures ``[B, 3, H, W]`` uint8 RGB: ``Detections``, or probabilities ``[B, C]``.

        Raises:
            ModelError: the pictures have a size or type the file does not take.
        """
        answer = run_session(self.session, images)
        return answer["probabilities"] if self.task == "classify" else Detections(**answer)


def open_session(source: Path | bytes, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU that keeps its chatter to itself."""
    runtime = extra("onnxruntime", "reading an ONNX file", error=ModelError)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what matters comes as an exception
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    try:
        model = source if isinstance(source, bytes) else str(source)
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common class of their own
        name = "the file" if isinstance(source, bytes) else source
        raise ModelError(f"ONNX Runtime cannot read {name}: {first_line(error)}") from error


def run_session(session: Any, images: Tensor) -> dict[str, Tensor]:
    """All outputs of a session by name."""
    expected = session.get_inputs()[0]
    if images.dtype != torch.uint8:
        raise ModelError(f"an exported model takes uint8 pictures 0..255, got {images.dtype}")
    names = [output.name for output in session.get_outputs()]
    try:
        values = session.run(names, {expected.name: images.cpu().contiguous().numpy()})
    except Exception as error:
        raise ModelError(
            f"the exported model takes pictures {expected.shape}, got {list(images.shape)}: {first_line(error)}"
        ) from error
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of ours."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
