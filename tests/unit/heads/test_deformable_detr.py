"""Deformable DETR's head: padding is nothing, each layer answers for its own change, any number of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torso import testing
from torso.assigners import Hungarian
from torso.backbones import Tiny
from torso.boxes.suppress import SUPPRESSORS
from torso.criteria import QueryCriterion
from torso.deploy import onnx
from torso.heads import DeformableDETR
from torso.losses import L1, CrossEntropy, Focal
from torso.models import QueryDetector
from torso.necks import NECKS
from torso.nn.deformable import DeformableAttention
from torso.structures import Batch, QueryOutput, Targets

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "refined": {"refine": True},
    "two_stage": {"refine": True, "two_stage": True},
    "two_stage, not refined": {"two_stage": True},
}
pytestmark = pytest.mark.part("head/deformable_detr")


def head(**options: Any) -> DeformableDETR:
    """A small one whose zeros are drawn, too."""
    torch.manual_seed(0)
    small = {"channels": 16, "heads": 2, "groups": 4, "points": 2, "hidden": 16, "queries": 6, "dropout": 0.0}
    made = DeformableDETR([16, 16], [8, 16], 3, **{**small, "encoder_layers": 2, "decoder_layers": 2, **options})
    for parameter in made.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    return made


def detector(class_loss: nn.Module | None = None, **options: Any) -> QueryDetector:
    backbone = Tiny([8, 16, 16, 16], [3, 4])
    criterion = QueryCriterion(Hungarian(class_cost="focal"), class_loss or Focal(), L1())
    neck = NECKS["identity"](backbone.channels, backbone.strides)
    return QueryDetector(
        backbone, neck, head(**options), criterion, SUPPRESSORS["threshold"](max_detections=10), num_classes=3
    )


def bare(**options: Any) -> DeformableDETR:
    """Without projections, whose norms see padding."""
    made = head(extra=0, **options).double()
    made.project = nn.ModuleList([nn.Identity(), nn.Identity()])
    return made


def laid(maps: list[Tensor], left: int, top: int, right: int, bottom: int) -> tuple[list[Tensor], list[Tensor]]:
    """Maps with so many coarse cells of nothing, not even numbers, around them; and where the picture is."""
    padded, real = [], []
    for x, times in zip(maps, (2, 1), strict=True):
        sides = [side * times for side in (left, right, top, bottom)]
        padded.append(nn.functional.pad(x, sides, value=torch.nan))
        real.append(nn.functional.pad(x.new_ones(len(x), *x.shape[2:]), sides) > 0)
    return padded, real


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("around", [(0, 0, 2, 1), (1, 2, 1, 0), (2, 0, 0, 0)])
def test_a_picture_gets_the_same_answer_however_it_is_padded(variant: str, around: tuple[int, ...]) -> None:
    made = bare(**VARIANTS[variant])
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 16, *shape, generator=generator, dtype=torch.float64) for shape in ((6, 8), (3, 4))]
    alone: QueryOutput = made(maps, None, (48, 64))
    padded: QueryOutput = made(*laid(maps, *around), (80, 96))
    torch.testing.assert_close(padded.logits, alone.logits)
    torch.testing.assert_close(padded.boxes, alone.boxes)
    if alone.proposed is not None:
        assert padded.proposed.valid.sum() == alone.proposed.valid.sum() > 0
        for field in ("logits", "deltas"):
            mine, there = getattr(padded.proposed, field), getattr(alone.proposed, field)
            torch.testing.assert_close(mine[padded.proposed.valid], there[alone.proposed.valid])


@pytest.mark.parametrize("variant", VARIANTS)
def test_pictures_do_not_see_each_other(variant: str) -> None:
    made = head(**VARIANTS[variant]).double()
    maps = [torch.randn(2, 16, *shape, dtype=torch.float64) for shape in ((6, 8), (3, 4))]
    together = made(maps, None, (48, 64))
    for picture in range(2):
        alone = made([x[picture : picture + 1] for x in maps], None, (48, 64))
        torch.testing.assert_close(together.boxes[:, picture], alone.boxes[:, 0])


def test_each_layer_answers_for_its_own_change() -> None:
    """The box of a layer is the one before, moved; what it costs does not reach into the layer before."""
    made = head(**VARIANTS["refined"]).double()
    for layers in made.box_deltas:
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
    made.box_deltas[0][-1].bias.data[:] = torch.tensor([0.2, -0.3, 0.1, 0.4])
    maps = [torch.randn(2, 16, *shape, dtype=torch.float64) for shape in ((6, 8), (3, 4))]
    boxes = made(maps, None, (48, 64)).boxes
    torch.testing.assert_close(boxes[1], boxes[0], msg="a layer that changes nothing")
    first = list(made.box_deltas[0].parameters())
    assert not any(
        x.any() for x in torch.autograd.grad(boxes[1].sum(), first, materialize_grads=True, allow_unused=True)
    )
    made.box_deltas[1][-1].bias.data[:] = torch.tensor([0.0, 0.0, 0.0, 5.0])
    assert (made(maps, None, (48, 64)).boxes[1, ..., 3] > 0.9).all()


def test_without_refinement_boxes_are_said_of_the_same_points_by_the_same_layers() -> None:
    made = head()
    assert len(made.class_logits) == len(made.box_deltas) == 1
    nn.init.zeros_(made.box_deltas[0][-1].weight)
    maps = [torch.randn(1, 16, *shape) for shape in ((6, 8), (3, 4))]
    boxes = made(maps, None, (48, 64)).boxes
    torch.testing.assert_close(boxes[1], boxes[0])


def test_the_best_cells_become_queries() -> None:
    """Where the scores are those of one cell each, the boxes begin at these cells."""
    made = bare(**VARIANTS["two_stage"], queries=3)
    for layers in (*made.box_deltas, made.proposal_deltas):
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
    maps = [torch.randn(1, 16, *shape, dtype=torch.float64) for shape in ((6, 8), (3, 4))]
    wanted = [5, 17, 50]  # 50 is the third of the coarse level, 5 and 17 are columns 5 and 1 of rows 0 and 2
    scores = torch.full((1, 60, 1), 0.1, dtype=torch.float64)
    scores[0, wanted] = torch.tensor([[0.5], [0.9], [0.7]], dtype=torch.float64)
    seen = {}

    def keep(name: str, numbers: Tensor) -> Tensor:
        seen[name] = numbers
        return scores

    boxes = made(maps, None, (48, 64), keep).boxes[-1, 0]
    assert seen["cell_scores"].shape == (1, 60, 1)
    assert made.inside == ("cell_scores",)
    places = [[5.5 / 8, 0.5 / 6, 0.05, 0.05], [1.5 / 8, 2.5 / 6, 0.05, 0.05], [2.5 / 4, 0.5 / 3, 0.1, 0.1]]
    torch.testing.assert_close(boxes, torch.tensor(places, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_neither_padding_nor_a_cell_at_the_very_border_becomes_a_query() -> None:
    made = bare(**VARIANTS["two_stage"], queries=1)
    for layers in (*made.box_deltas, made.proposal_deltas):
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
    maps = [torch.randn(1, 16, *shape, dtype=torch.float64) for shape in ((2, 128), (1, 64))]
    real = [torch.arange(width).lt(width // 2).expand(1, height, width) for height, width in ((2, 128), (1, 64))]
    # Beside each other: padding is the best, then a cell within a hundredth of the border, then a plain one.
    scores = torch.full((1, 320, 1), 0.1, dtype=torch.float64)
    scores[0, [100, 0, 40]] = torch.tensor([[0.9], [0.8], [0.7]], dtype=torch.float64)
    output = made(maps, real, (16, 1024), lambda name, numbers: scores)
    wanted = torch.tensor([40.5 / 64, 0.5 / 2, 0.05, 0.05], dtype=torch.float64)
    torch.testing.assert_close(output.boxes[-1, 0, 0], wanted, rtol=1e-4, atol=1e-4)
    assert not output.proposed.valid[0, [100, 0, 63]].any()
    assert output.proposed.valid[0, [1, 40, 62]].all()


def test_more_queries_than_cells_are_no_error() -> None:
    made = head(**VARIANTS["two_stage"], queries=100)
    maps = [torch.randn(2, 16, *shape) for shape in ((4, 4), (2, 2))]
    output = made(maps, None, (32, 32))
    assert output.boxes.shape == (2, 2, 100, 4)
    assert output.boxes.isfinite().all()


@pytest.mark.parametrize("variant", ["plain", "two_stage"])
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_losses_are_finite_for_any_number_of_objects(variant: str, count: int) -> None:
    model = detector(**VARIANTS[variant])
    corner = torch.rand(2, count, 2) * 40
    boxes = torch.cat([corner, corner + 1 + torch.rand(2, count, 2) * 20], dim=-1)
    valid = torch.ones(2, count, dtype=torch.bool)
    valid[1] = False
    targets = Targets(boxes * valid[..., None], torch.randint(0, 3, (2, count)) * valid, valid, torch.zeros_like(valid))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    images[1, :, 40:] = 114
    batch = Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 64))
    losses = model.losses(batch)
    assert len(losses) == 3 * (2 + (variant == "two_stage"))
    assert all(x.isfinite() for x in losses.values())
    assert not any(x.any() for name, x in losses.items() if count == 0 and not name.endswith("class"))
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


class Alone(nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, variant: str):
        super().__init__()
        self.head = head(**VARIANTS[variant])

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        output = self.head([fine, coarse], None, (48, 64))
        return output.logits, output.boxes, *(() if output.proposed is None else output.proposed[:3])


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_keeps_the_contract_of_modules_and_is_one_graph(variant: str) -> None:
    testing.check_module(Alone(variant), lambda: (torch.randn(2, 16, 6, 8), torch.randn(2, 16, 3, 4)))


def test_two_stages_are_exported_with_their_choice(tmp_path: Path) -> None:
    model = detector(**VARIANTS["two_stage"], encoder_layers=0, decoder_layers=1).eval()
    assert model.inside == ("cell_scores", "query_scores", "query_boxes")
    path = onnx.export(model, tmp_path / "model.onnx", size=64, metadata={"classes": ["a", "b", "c"]})
    assert path.is_file()  # written only when it answers as the model does


def test_it_begins_as_the_paper_says() -> None:
    made = DeformableDETR([8, 8], [8, 16], 3, channels=32, refine=True, encoder_layers=1, decoder_layers=2)
    assert all((layer.bias.sigmoid() - 0.01).abs().max() < 1e-6 for layer in made.class_logits)
    assert made.box_deltas[0][-1].bias.tolist() == [0, 0, -2, -2]
    assert made.box_deltas[1][-1].bias.tolist() == [0, 0, 0, 0]
    assert not any(layers[-1].weight.any() for layers in made.box_deltas)
    for layer in (x for x in made.modules() if isinstance(x, DeformableAttention)):
        assert not layer.sampling_offsets.weight.any()
        assert layer.sampling_offsets.bias.any()
    assert not made.coarser[0][0].bias.any()
    assert made.reference.weight.abs().max() <= (6 / 34) ** 0.5


def test_new_classes_leave_everything_else() -> None:
    for variant in ("plain", "refined"):
        made = head(**VARIANTS[variant]).double()
        before = {name: x.clone() for name, x in made.state_dict().items() if "class_logits" not in name}
        made.reset_classes(7)
        maps = [torch.randn(1, 16, *shape, dtype=torch.float64) for shape in ((6, 8), (3, 4))]
        assert made(maps, None, (48, 64)).logits.shape == (2, 1, 6, 7)
        assert len(made.class_logits) == (2 if variant == "refined" else 1)
        assert all(torch.equal(made.state_dict()[name], x) for name, x in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 18}, "channels must divide by groups=4, heads=2 and 4, got 18"),
        ({"queries": 0}, "queries and decoder_layers of 1 or more"),
        ({"extra": -1}, "encoder_layers and extra of 0 or more"),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**options)
    with pytest.raises(ValueError, match="a level has channels and a stride"):
        DeformableDETR([8], [8, 16], 3)


def test_proposals_want_scores_and_no_softmax() -> None:
    with pytest.raises(ValueError, match="proposals have one score"):
        detector(class_loss=CrossEntropy(), **VARIANTS["two_stage"])
    assert detector(class_loss=CrossEntropy()).background
