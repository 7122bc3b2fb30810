"""The proof that an exported file answers as the model does.

Scores and boxes of every prior are compared number by number. The choice among them (thresholds, top-k, suppression) is
not continuous: a difference in the last bit can turn two almost equal scores around, and then another box survives. So
the choice is compared on the same numbers: what the file chose from its own scores and boxes must be what the model
chooses from these, row by row (`torso.models.inside`). Together this is stricter than comparing the two ends, and needs
no tolerance for ties.

Numbers agree when ``|file - model| <= ATOL + RTOL * |model|``, boxes in units of the picture (0..1): a coordinate is a
difference of two numbers of the order of the picture's size, so near 0 its own size says nothing about its precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torso.config import ExportError
from torso.deploy.exported import Exported, open_session, run_session
from torso.deploy.extras import extra
from torso.deploy.shipped import Shipped, shipped
from torso.models.inside import Kept

RTOL, ATOL = 1e-3, 1e-5


@dataclass
class Agreement:
    """How far one output of the file is from the model's, over all inputs tried."""

    numbers: int = 0  # compared
    difference: float = 0.0  # largest, absolute
    share: float = 0.0  # largest, as a share of what is allowed: above 1 is a mismatch

    def add(self, file: Tensor, model: Tensor) -> float:
        """Compare two tensors; the largest share of what is allowed."""
        difference = (file.double() - model.double()).abs()
        exact = not model.is_floating_point()
        allowed = torch.zeros_like(difference) if exact else ATOL + RTOL * model.double().abs()
        shares = torch.where(difference == 0, 0.0, difference / allowed).nan_to_num(nan=torch.inf, posinf=torch.inf)
        share = float(shares.max()) if shares.numel() else 0.0
        self.numbers += difference.numel()
        self.difference = max(self.difference, float(difference.nan_to_num(nan=torch.inf).max()) if share else 0.0)
        self.share = max(self.share, share)
        return share


@dataclass
class Table:
    """What ``verify`` found."""

    inputs: list[str] = field(default_factory=list)
    outputs: dict[str, Agreement] = field(default_factory=dict)
    detections: int | None = None  # objects among the answers compared; None for a classifier

    def __str__(self) -> str:
        """A table for people, an output a line."""
        lines = [f"{'output':<16}{'numbers':>12}{'max difference':>18}{'of allowed':>14}"]
        for name, row in self.outputs.items():
            lines.append(f"{name:<16}{row.numbers:>12,}{row.difference:>18.2e}{row.share:>14.1%}")
        lines.append(f"compared on: {', '.join(self.inputs)} (rtol {RTOL:g}, atol {ATOL:g})")
        if self.detections == 0:
            lines.append("nothing was detected on any of them: the suppression was compared on empty answers only")
        elif self.detections is not None:
            lines.append(f"{self.detections} detections compared")
        return "\n".join(lines)


def verify(model: nn.Module, path: str | Path, pictures: Tensor | None = None) -> Table:
    """Compare an exported file with the model it was made from, in ONNX Runtime.

    Args:
        model: a detector or classifier.
        path: the file.
        pictures: ``[N, 3, H, W]`` uint8 real pictures of the size the file was exported for, besides random ones.

    Returns:
        The largest differences of each output.

    Raises:
        ExportError: an output differs by more than the tolerance; the worst difference and its input are named.
    """
    file, ship, table = Exported(path), shipped(model), Table()
    probe = _showing_inside(Path(path), ship.inside) if ship.inside else file.session
    for name, images in trials(file.metadata, pictures):
        table.inputs.append(name)
        with torch.no_grad():
            for output, ours, theirs in _outputs(ship, file.session, probe, images):
                share = table.outputs.setdefault(output, Agreement()).add(theirs, ours)
                if share > 1:
                    raise ExportError(_mismatch(output, ours, theirs, name))
                if output == "valid":
                    table.detections = (table.detections or 0) + int(ours.sum())
    return table


def trials(metadata: Mapping[str, Any], pictures: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """Named inputs: batches of 1 and 3, the size of the export and one it has not seen, random and real pictures."""
    (width, height), stride = metadata["preprocessing"]["size"], metadata["stride"]
    dynamic = metadata.get("dynamic", {"batch": True, "size": True})
    shapes = [(1, height, width)]
    if dynamic["batch"]:
        shapes.append((3, height, width))
    if dynamic["size"]:
        shapes.append((shapes[-1][0], _another(height, stride), width))
    sources = {"random": random_pictures(8, height, width)}
    if pictures is not None and len(pictures):
        sources["real"] = pictures
    for kind, source in sources.items():
        used = 0
        for batch, rows, columns in shapes:
            chosen = source[(torch.arange(batch) + used) % len(source)]
            used += batch
            yield f"{kind} {batch}x{columns}x{rows}", F.pad(chosen, (0, 0, 0, max(rows - height, 0)))[..., :rows, :]


def random_pictures(count: int, height: int, width: int) -> Tensor:
    """``[count, 3, height, width]`` uint8, always the same: blots of all sizes, for a network sees little in noise."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.zeros(count, 3, height, width)
    for cells in (2, 5, 16, 64):
        grid = torch.rand(count, 3, cells, cells, generator=generator)
        pictures += F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    low, high = pictures.amin(), pictures.amax()
    return ((pictures - low) / (high - low) * 255).to(torch.uint8)


def _another(side: int, stride: int) -> int:
    """A side the export has not seen: about a fifth shorter, a multiple of the stride."""
    steps = max(side // stride - max(side // stride // 5, 1), 1)
    return steps * stride if steps * stride != side else side + stride


def _outputs(ship: Shipped, session: Any, probe: Any, images: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, the model's, the file's) of everything that is compared for one input."""
    said = run_session(probe, images)
    # Every choice is compared on the file's own numbers: where scores tie to the last bit, no order is the right one.
    kept = Kept({name: said[name] for name in ship.inside})
    answer = dict(zip(ship.answers, ship.answer(images, kept), strict=True))
    whole = run_session(session, images)
    for name, ours in (kept | answer).items():
        theirs = whole[name] if name in answer else said[name]
        yield (
            name,
            *((_in_units(images, ours), _in_units(images, theirs)) if name.endswith("boxes") else (ours, theirs)),
        )


def _in_units(images: Tensor, boxes: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    more = [1] * (boxes.shape[-1] - 4)  # what a suppressor wants to know beside
    return boxes / torch.tensor([width, height, width, height, *more])


def _showing_inside(path: Path, inside: tuple[str, ...]) -> Any:
    """A session of the same file that also gives out what the answer was chosen from."""
    onnx = extra("onnx", "export onnx", error=ExportError)
    proto = onnx.load(str(path))
    known = {name for node in proto.graph.node for name in node.output}
    if not known.issuperset(inside):
        raise ExportError(f"{path} does not hold {', '.join(inside)}: it was not exported from such a detector")
    for name in inside:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return open_session(proto.SerializeToString())


def _mismatch(output: str, model: Tensor, file: Tensor, name: str) -> str:
    difference = (file.double() - model.double()).abs().nan_to_num(nan=torch.inf)
    worst = int(difference.argmax())
    picture = worst // max(difference[0].numel(), 1)
    return (
        f"ONNX Runtime does not give the model's {output}: on picture {picture} of the input '{name}' it says "
        f"{file.flatten()[worst].item():.6g}, the model {model.flatten()[worst].item():.6g} "
        f"(allowed: {ATOL:g} + {RTOL:g} of the model's number)"
    )
