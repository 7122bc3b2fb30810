"""The matrix: four heads with what surrounds them, and every assigner in each of them, by one word."""

from __future__ import annotations

import pytest
import torch

from tests.recipes.small import SMALL
from torso.config import ModelError
from torso.models import Detector
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

SIZE, CLASSES = 128, 3
HEADS = ["retinanet", "fcos", "gfl", "yolov3"]
ASSIGNERS = ["max_iou", "atss", "center", "hungarian", "sim_ota", "ota", "task_aligned", "paa", "fcos", "iqdet"]
# Bags of the priors that overlap an object: of FCOS's points, squares of one stride, hardly any does.
FREE_ANCHOR = ["retinanet", "gfl", "yolov3"]
# A branch that says how good a box is, or whether there is one, is learned by the dense criterion alone.
BARE = {"yolov3": ["model.box_loss=giou", "model.coder.scale=1.1"], "gfl": ["model.coder=ltrb"]}


def built(recipe: str, *overrides: str) -> Detector:
    torch.manual_seed(0)
    model: Detector = Recipe.load(recipe, [*SMALL[recipe], *overrides], without_data=True).model.build(
        num_classes=CLASSES
    )
    return model.train()


def batch_of(count: int, seed: int = 0) -> Batch:
    """Two pictures with so many objects, every fourth of them ignored, and a third that is ignored as a whole."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    rows = max(count, 1)
    corner = torch.rand(3, rows, 2, generator=generator) * 90
    boxes = torch.cat([corner, corner + 4 + torch.rand(3, rows, 2, generator=generator) * 34], dim=-1)
    there = (torch.arange(rows) < count).expand(3, -1)
    crowd = there & (torch.arange(rows) % 4 == 3)
    valid, ignore = there & ~crowd, crowd.clone()
    valid[2], ignore[2] = False, False
    boxes[2, 0], ignore[2, 0] = torch.tensor([-1e3, -1e3, 1e3, 1e3]), True
    labels = torch.randint(0, CLASSES, (3, rows), generator=generator)
    targets = Targets(boxes, labels, valid, ignore)
    return Batch(images, targets, torch.arange(3), torch.eye(3).expand(3, 3, 3), torch.full((3, 2), SIZE))


def check_learns(model: Detector, count: int) -> None:
    """Finite losses and gradients; what is ignored teaches nothing."""
    batch = batch_of(count)
    output = model(batch.images)
    said = [output.logits, output.deltas, *output.extra.values()]
    for x in said:
        x.retain_grad()
    losses = model.criterion(output, batch.targets)
    assert all(loss.isfinite() for loss in losses.values()), losses
    sum(losses.values()).backward()
    for x in said:
        assert x.grad is None or x.grad.isfinite().all()
        assert x.grad is None or not x.grad[2].any(), "an ignored picture teaches nothing"
    assert output.logits.grad is not None
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    taught = any(x.grad is not None and x.grad[:2].any() for x in said)
    assert taught, "and the others do"


@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("assigner", ASSIGNERS)
@pytest.mark.parametrize("recipe", HEADS)
def test_any_assigner_teaches_any_head(recipe: str, assigner: str, count: int) -> None:
    check_learns(built(recipe, f"model.assigner={assigner}"), count)


@pytest.mark.part("criterion/free_anchor")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("recipe", FREE_ANCHOR)
def test_free_anchor_teaches_heads_with_anchors(recipe: str, count: int) -> None:
    overrides = ["model.assigner=max_iou", "model.criterion=free_anchor", "model.class_loss=focal"]
    check_learns(built(recipe, *overrides, *BARE.get(recipe, [])), count)


def test_a_part_that_the_criterion_has_no_use_for_is_refused() -> None:
    with pytest.raises(ModelError, match=r"free_anchor takes no assigner, but model\.assigner is atss"):
        built("retinanet", "model.assigner=atss", "model.criterion=free_anchor")


@pytest.mark.part("suppress/variance_voting", "loss/kl_box")
def test_a_suppressor_that_wants_what_no_head_says_is_refused() -> None:
    with pytest.raises(ModelError, match="VarianceVoting wants the variance of every box"):
        built("retinanet", "model.suppress=variance_voting")
    model = built("retinanet", "model.suppress=variance_voting", "model.box_loss=kl_box").eval()
    assert model.predict(batch_of(3).images).boxes.isfinite().all()


@pytest.mark.parametrize("suppress", ["nms", "batched_nms", "soft_nms", "diou_nms", "cluster_nms", "matrix_nms"])
@pytest.mark.parametrize("recipe", HEADS)
def test_any_suppressor_answers_for_any_head(recipe: str, suppress: str) -> None:
    model = built(recipe, f"model.suppress={suppress}").eval()
    found = model.predict(batch_of(5).images)
    assert found.boxes.isfinite().all()
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()


@pytest.mark.parametrize("sample", ["random", "hard_negative", "ohem", "s_ohem", "pisa"])
@pytest.mark.parametrize("recipe", HEADS)
def test_any_sampler_serves_any_head(recipe: str, sample: str) -> None:
    check_learns(built(recipe, f"model.sample={sample}"), 10)


@pytest.mark.parametrize(
    "loss", ["focal", "binary_cross_entropy", "quality_focal", "ghm_c", "varifocal", "cross_entropy", "softmax_focal"]
)
@pytest.mark.parametrize("recipe", HEADS)
def test_any_class_loss_teaches_any_head(recipe: str, loss: str) -> None:
    model = built(recipe, f"model.class_loss={loss}")
    check_learns(model, 10)
    assert model.background == (loss in ("cross_entropy", "softmax_focal"))


@pytest.mark.parametrize("loss", ["giou", "diou", "ciou", "iou", "bounded_iou"])
@pytest.mark.parametrize("recipe", HEADS)
def test_any_loss_of_boxes_teaches_any_head(recipe: str, loss: str) -> None:
    check_learns(built(recipe, f"model.box_loss={loss}"), 10)


@pytest.mark.parametrize("loss", ["l1", "smooth_l1", "balanced_l1", "mse", "ghm_r", "kl_box"])
@pytest.mark.parametrize("recipe", ["retinanet", "fcos", "yolov3"])
def test_any_loss_of_deltas_teaches_any_head(recipe: str, loss: str) -> None:
    check_learns(built(recipe, f"model.box_loss={loss}"), 10)
