"""The matrix of detectors of two stages: samplers, assigners, losses, coders and suppressors, each by one word."""

from __future__ import annotations

import pytest
import torch

from tests.recipes.small import SMALL
from tests.recipes.test_swaps import CLASSES, batch_of
from torso.assigners import ASSIGNERS
from torso.config import ModelError
from torso.models import TwoStage
from torso.recipes.recipe import Recipe

FEW = ["model.propose.suppress.max_detections=24", "model.propose.topk=40", "model.sample.count=16"]


def built(*overrides: str, recipe: str = "faster_rcnn") -> TwoStage:
    torch.manual_seed(0)
    few = FEW if recipe == "faster_rcnn" else []
    if any(word.startswith("model.sample=") for word in overrides):
        few = few[:2]
    loaded = Recipe.load(recipe, [*SMALL[recipe], *few, *overrides], without_data=True)
    model: TwoStage = loaded.model.build(num_classes=CLASSES)
    return model.train()


def check_learns(model: TwoStage, count: int) -> None:
    """Finite losses and gradients, and the second stage learns; what is ignored teaches nothing."""
    batch, heard = batch_of(count), []
    for stage in model.each:
        stage.register_forward_hook(lambda _, __, output: heard.append(output))
    losses = model.losses(batch)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values()), losses
    for output in heard:
        output.logits.retain_grad(), output.deltas.retain_grad()
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert len(heard) == len(model.each)
    for output in heard:
        assert not output.logits.grad[2].any(), "an ignored picture teaches nothing"
        assert output.logits.grad[:2].any(), "and the others do"
        taught = [x.grad for x in (output.logits, output.deltas) if x.grad is not None]
        assert not any(grad[~output.valid].any() for grad in taught), "padding teaches nothing"


@pytest.mark.part("recipe/faster_rcnn", "propose/rpn", "head/roi_box")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("boxes", ["true", "false"])
def test_any_number_of_objects(count: int, boxes: str) -> None:
    model = built(f"model.class_boxes={boxes}")
    check_learns(model, count)
    found = model.eval().predict(batch_of(count).images)
    assert found.boxes.isfinite().all()


@pytest.mark.part("recipe/fast_rcnn", "propose/windows")
@pytest.mark.part("recipe/faster_rcnn_c4", "head/roi_stage")
@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("recipe", ["fast_rcnn", "faster_rcnn_c4"])
def test_any_number_of_objects_in_the_older_forms(recipe: str, count: int) -> None:
    check_learns(built(recipe=recipe), count)


@pytest.mark.part("sample/random", "sample/ohem", "sample/s_ohem", "sample/pisa")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("sample", ["random", "{name: hard_negative, least: 4}", "ohem", "s_ohem", "pisa", "null"])
def test_any_sampler_chooses_regions(sample: str, count: int) -> None:
    model = built(f"model.sample={sample}")
    assert (model.each[0].draw is None) == (sample != "random"), "who asks what a region costs sees them all"
    check_learns(model, count)


@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("assigner", ["max_iou", "atss", "sim_ota", "task_aligned"])
def test_any_assigner_that_needs_no_grid_teaches_regions(assigner: str, count: int) -> None:
    check_learns(built(f"model.assigner={assigner}"), count)


@pytest.mark.parametrize("assigner", sorted(name for name in ASSIGNERS if not hasattr(ASSIGNERS[name], "of_regions")))
def test_an_assigner_of_a_grid_is_refused(assigner: str) -> None:
    with pytest.raises(ModelError, match=rf"model\.assigner: {assigner} wants the priors of a grid"):
        built(f"model.assigner={assigner}")


@pytest.mark.parametrize("boxes", ["true", "false"])
@pytest.mark.parametrize("loss", ["giou", "ciou", "iou", "l1", "smooth_l1", "balanced_l1", "mse", "ghm_r"])
def test_any_loss_of_boxes_teaches_regions(loss: str, boxes: str) -> None:
    check_learns(built(f"model.box_loss={loss}", f"model.class_boxes={boxes}"), 10)


@pytest.mark.parametrize(
    "loss", ["focal", "binary_cross_entropy", "quality_focal", "ghm_c", "varifocal", "cross_entropy", "softmax_focal"]
)
def test_any_class_loss_teaches_regions(loss: str) -> None:
    model = built(f"model.class_loss={loss}")
    check_learns(model, 10)
    assert model.background == (loss in ("cross_entropy", "softmax_focal"))
    assert model.eval().predict(batch_of(3).images).boxes.isfinite().all()


@pytest.mark.parametrize("suppress", ["nms", "batched_nms", "soft_nms", "diou_nms", "cluster_nms", "matrix_nms"])
@pytest.mark.parametrize("boxes", ["true", "false"])
def test_any_suppressor_answers(suppress: str, boxes: str) -> None:
    model = built(f"model.suppress={suppress}", f"model.class_boxes={boxes}", "model.threshold=0.0").eval()
    found = model.predict(batch_of(5).images)
    assert found.valid.any()
    assert found.boxes.isfinite().all()
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.suppress=level_nms", "LevelNMS wants the level of every box, which no region has"),
        ("model.suppress=variance_voting", "VarianceVoting wants the variance of every box"),
        ("model.box_loss=kl_box", "says classes and boxes, but the criterion asks for the variance"),
        ("model.criterion={name: dense, quality: iou}", "the criterion asks for the iou, too"),
        ("model.criterion=free_anchor", r"model\.criterion: free_anchor wants the priors of a grid"),
        ("model.head=retina", r"model\.head: retina is no head of regions such as roi_box"),
        ("model.propose.head=roi_box", r"model\.propose\.head: roi_box is no dense head such as rpn"),
        ("model.propose.class_loss=cross_entropy", "proposals have one score, so their class loss takes scores"),
        ("model.refine=[further]", "a stage before another says one box a region: class_boxes=false"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        built(override)


@pytest.mark.parametrize("head", ["retina", "fcos", "yolox"])
def test_any_dense_head_proposes(head: str) -> None:
    check_learns(built(f"model.propose.head={head}"), 10)
