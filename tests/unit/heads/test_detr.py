"""DETR's head and the family of queries: padding, classes, answers, what does not go together. Parity: tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.recipes.small import SMALL
from tests.recipes.test_swaps import batch_of
from torso import testing
from torso.assigners import Hungarian
from torso.boxes.suppress import Threshold
from torso.config import ModelError
from torso.criteria import QueryCriterion
from torso.deploy import onnx
from torso.deploy.verify import verify
from torso.heads import DETR
from torso.losses import L1, CrossEntropy
from torso.models import QueryDetector, replace_head
from torso.necks import Identity
from torso.recipes.recipe import Recipe
from torso.structures import Features

pytestmark = pytest.mark.part("head/detr")
CLASSES = 3


def head(norm_first: bool = False) -> DETR:
    torch.manual_seed(0)
    layers = {"encoder_layers": 2, "decoder_layers": 2, "heads": 4, "hidden": 48}
    return DETR([8], CLASSES + 1, channels=32, queries=6, dropout=0.0, norm_first=norm_first, **layers)


def built(*overrides: str) -> QueryDetector:
    torch.manual_seed(0)
    model: QueryDetector = Recipe.load("detr", [*SMALL["detr"], *overrides], without_data=True).model.build(
        num_classes=CLASSES
    )
    return model


class Patches(nn.Module):
    """A backbone whose cells see nothing but their own 16 x 16 pixels."""

    channels, strides, mean, std = [8], [16], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 16, 16)

    def forward(self, images: Tensor) -> Features:
        return [self.patch(images)]


def patchy(fill: int = 114) -> QueryDetector:
    made = head()
    body = Patches()
    criterion = QueryCriterion(Hungarian(), CrossEntropy(), L1())
    model = QueryDetector(
        body, Identity([8], [16]), made, criterion, Threshold(6), num_classes=CLASSES, fill=fill, one_class=True
    )
    return model.double().eval()


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_head_keeps_the_contract(norm_first: bool) -> None:
    real = torch.arange(5).expand(2, 4, -1) < torch.tensor([3, 5])[:, None, None]
    testing.check_module(head(norm_first), lambda: ([torch.randn(2, 8, 4, 5)], [real], (64, 80)))
    output = head(norm_first)([torch.randn(2, 8, 4, 5)], None, (64, 80))
    assert output.logits.shape == (2, 2, 6, CLASSES + 1)
    assert output.boxes.shape == (2, 2, 6, 4)
    assert output.size == (64, 80)


def test_what_lies_in_the_padding_is_not_seen() -> None:
    made = head().double().eval()
    real = torch.zeros(1, 6, 7, dtype=torch.bool)
    real[:, 1:5, 2:6] = True
    x = torch.randn(1, 8, 6, 7, dtype=torch.float64)
    other = torch.where(real[:, None], x, 100 * torch.randn_like(x))
    first, second = made([x], [real], (96, 112)), made([other], [real], (96, 112))
    torch.testing.assert_close(first.logits, second.logits)
    torch.testing.assert_close(first.boxes, second.boxes)
    alone = made([x[:, :, 1:5, 2:6]], None, (64, 64))
    torch.testing.assert_close(first.logits, alone.logits)
    torch.testing.assert_close(first.boxes, alone.boxes)
    assert not torch.allclose(made([x], None, (96, 112)).logits, made([other], None, (96, 112)).logits)


@pytest.mark.part("recipe/detr")
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 32, 0, 16), (16, 16, 32, 32), (48, 0, 0, 0)])
def test_a_picture_gets_the_same_answer_however_it_is_padded(place: tuple[int, int, int, int]) -> None:
    """Its boxes are where it is; without its mask, the answer would be another."""
    picture = batch_of(0).images[:1, :, :64, :48]
    padded = functional.pad(picture, place, value=114)
    with torch.no_grad():
        alone, found = patchy().predict(picture), patchy().predict(padded)
        blind = patchy(fill=-1).predict(padded)
    left, _, top, _ = place
    torch.testing.assert_close(found.scores, alone.scores)
    assert torch.equal(found.labels, alone.labels)
    torch.testing.assert_close(found.boxes, alone.boxes + torch.tensor([left, top, left, top]))
    assert torch.allclose(blind.scores, alone.scores) == (not any(place))


@pytest.mark.part("recipe/detr")
def test_the_mean_over_a_batch_does_not_depend_on_its_padding() -> None:
    """Losses, too: boxes are compared as shares of their picture."""
    batch = batch_of(0)
    picture = batch.images[:, :, :64, :48]
    boxes = torch.tensor([[[4.0, 6, 30, 40]]]).expand(3, 1, 4)
    there = torch.ones(3, 1, dtype=torch.bool)
    targets = type(batch.targets)(boxes, torch.ones(3, 1, dtype=torch.int64), there, ~there)
    moved = type(batch.targets)(boxes + torch.tensor([32.0, 16, 32, 16]), targets.labels, there, ~there)
    model = patchy()
    alone = model.criterion(model(picture), targets)
    padded = model.criterion(model(functional.pad(picture, (32, 0, 16, 32), value=114)), moved)
    for name, x in alone.items():
        torch.testing.assert_close(padded[name], x)


def test_other_classes_begin_anew_and_all_else_stays() -> None:
    model = built().eval()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    replace_head(model, 7)  # type: ignore[arg-type]
    assert model(batch_of(0).images).logits.shape[-1] == 8
    changed = [name for name, x in model.state_dict().items() if x.shape != before[name].shape]
    assert changed == ["head.class_logits.weight", "head.class_logits.bias"]
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items() if name not in changed)


@pytest.mark.part("recipe/detr", "criterion/query")
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "quality_focal", "softmax_focal"])
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_class_loss_teaches_queries(loss: str, count: int) -> None:
    model = built(f"model.class_loss={loss}").train()
    batch = batch_of(count)
    losses = model.losses(batch)
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.background == (loss in ("cross_entropy", "softmax_focal"))


@pytest.mark.parametrize("assigner", ["hungarian", "max_iou"])
def test_an_assigner_that_knows_boxes_of_each_picture_teaches_queries(assigner: str) -> None:
    losses = built(f"model.assigner={assigner}", "model.class_loss=focal").losses(batch_of(5))
    assert all(x.isfinite() for x in losses.values())


def test_a_query_answers_once_or_with_every_class() -> None:
    images = batch_of(0).images
    once, every = built("model.threshold=0.0"), built("model.one_class=false", "model.threshold=0.0")
    with torch.no_grad():
        said = once.eval()(images).layer(-1).class_scores()  # [B, Q, C]
        found, all_found = once.predict(images), every.eval().predict(images)
    assert found.valid.sum(dim=1).tolist() == [20] * 3
    torch.testing.assert_close(found.scores[:, :20], said.amax(dim=-1).sort(dim=1, descending=True).values)
    assert all_found.valid.sum(dim=1).tolist() == [20 * CLASSES] * 3
    torch.testing.assert_close(all_found.scores[:, : 20 * CLASSES], said.flatten(1).sort(dim=1, descending=True).values)


@pytest.mark.part("deploy/onnx")
def test_an_exported_file_finds_the_padding_itself(tmp_path: Path) -> None:
    model = built("model.suppress={name: batched_nms, overlap: 0.7, max_detections: 10}").eval()
    for parameter in model.head.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    path = onnx.export(model, tmp_path / "model.onnx", size=128, metadata={"classes": ["a", "b", "c"]})
    pictures = functional.pad(batch_of(0).images[:, :, :100, :70], (20, 38, 14, 14), value=114)
    table = verify(model, path, pictures)
    assert any(name.startswith("real") for name in table.inputs)
    assert table.detections


def test_parts_that_know_no_queries_are_refused() -> None:
    with pytest.raises(ModelError, match="needs a head of queries such as detr, not retina"):
        Recipe.load("detr", ["model.head=retina"], without_data=True).model.build(num_classes=3)
    with pytest.raises(ModelError, match="needs a criterion such as query, got DenseCriterion"):
        built("model.criterion=dense")
    with pytest.raises(ModelError, match="needs a dense head such as retina, got DETR"):
        Recipe.load("retinanet", [*SMALL["retinanet"][:2], "model.head=detr"], without_data=True).model.build(
            num_classes=3
        )


def test_a_head_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="divide by heads=8 and by 4"):
        DETR([8], 3, channels=36)
    with pytest.raises(ValueError, match="decoder_layers of 1 or more"):
        DETR([8], 3, decoder_layers=0)
