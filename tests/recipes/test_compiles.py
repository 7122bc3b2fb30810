"""Every shipped detector at a small size: one graph each for network, losses and answer; its export is verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.recipes.small import SMALL
from torso.deploy import onnx
from torso.models import Detector
from torso.recipes.recipe import Recipe, shipped
from torso.structures import Batch, DenseOutput, Targets

CLASSES, SIZE = ["ball", "cone", "cube"], 128
DETECTORS = sorted(
    name
    for name in shipped()
    if Recipe.load(name, without_data=True).model.name in ("detector", "two_stage", "corners", "query", "classical")
    and name != "transfer"
)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = Recipe.load(name, SMALL[name], without_data=True).model.build(num_classes=len(CLASSES))
    for module in model.modules():  # statistics of norms that are not 0 and 1, and scores that are not all alike
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    for learned in [*model.head.parameters()] or [*model.head.buffers()]:  # planes of support vectors are buffers
        learned.data += torch.randn_like(learned) * 0.02
    return model


def batch_of(seed: int, objects: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    corner = torch.rand(2, objects, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 8 + torch.rand(2, objects, 2, generator=generator) * 40], dim=-1)
    valid = torch.rand(2, objects, generator=generator) > 0.3
    labels = torch.randint(0, len(CLASSES), (2, objects), generator=generator)
    x, y = torch.arange(SIZE) + 0.5, torch.arange(SIZE)[:, None] + 0.5
    x0, y0, x1, y1 = boxes[..., None, None].unbind(dim=2)
    round_ones = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 < 1  # [B, M, H, W]
    targets = Targets(boxes, labels, valid, ~valid, masks=round_ones)
    return Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), SIZE))


def leaves(output: DenseOutput) -> DenseOutput:
    """The same numbers as inputs that want gradients."""
    extra = {name: x.detach().requires_grad_() for name, x in output.extra.items()}
    logits, deltas, boxes = (x.detach().requires_grad_() for x in (output.logits, output.deltas, output.boxes))
    return output._replace(logits=logits, deltas=deltas, boxes=boxes, extra=extra)


def graphs(call: Any, inputs: list[tuple[Any, ...]]) -> int:
    """How often the compiler had to look, over several inputs of one size; a break in the graph is an error."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(call, fullgraph=True, backend=counter)
    for each in inputs:
        compiled(*each)
    return int(counter.frame_count)


def test_every_detector_has_a_small_form() -> None:
    assert set(DETECTORS) == set(SMALL)


@pytest.mark.parametrize("name", DETECTORS)
def test_network_losses_and_answer_are_one_graph_each(name: str) -> None:
    model = small(name)
    batches = [batch_of(seed) for seed in range(3)]
    assert graphs(model.train(), [(batch.images,) for batch in batches]) == 1
    if isinstance(model, Detector):
        outputs = [leaves(model(batch.images)) for batch in batches]
        assert graphs(model.criterion, [(o, b.targets) for o, b in zip(outputs, batches, strict=True)]) == 1
    else:  # regions are chosen between the losses
        assert graphs(model.losses, [(batch,) for batch in batches]) == 1
    with torch.no_grad():
        assert graphs(model.eval().predict, [(batch.images,) for batch in batches]) == 1


@pytest.mark.part("deploy/onnx")
@pytest.mark.parametrize("name", DETECTORS)
def test_the_export_is_verified(name: str, tmp_path: Path) -> None:
    path = onnx.export(small(name).eval(), tmp_path / "model.onnx", size=SIZE, metadata={"classes": CLASSES})
    assert path.is_file()  # written only when it answers as the model does, for several sizes and batches
