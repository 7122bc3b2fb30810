"""One look at regions, the whole of two stages, and the last stage of a ResNet as a head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.recipes.test_stage_swaps import built
from tests.recipes.test_swaps import CLASSES, batch_of
from torso.assigners import ASSIGNERS, MaxIoU
from torso.boxes.coders import Delta
from torso.config import ModelError
from torso.criteria import DenseCriterion
from torso.criteria.targets import of_matched_class
from torso.heads import RoIBox, RoIStage
from torso.losses import L1, CrossEntropy, Focal, GIoU
from torso.models import TwoStage, replace_head
from torso.models.inside import go_on
from torso.necks import Identity
from torso.structures import Assignment, Batch, DenseOutput, Targets

close = torch.testing.assert_close


def regions(num_boxes: int = 3, count: int = 6) -> tuple[DenseOutput, Targets]:
    """What a stage says about two pictures: three classes and a background; the last two regions are padding."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 40
    boxes = torch.cat([low, low + 5 + torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 20], dim=-1)
    valid = torch.arange(count).expand(2, -1) < count - 2
    boxes = boxes * valid[..., None]
    logits = torch.randn(2, count, 4, generator=generator, dtype=torch.float64).requires_grad_()
    deltas = torch.randn(2, count, num_boxes * 4, generator=generator, dtype=torch.float64).mul(0.1).requires_grad_()
    one = torch.ones(count, 2)
    output = DenseOutput(logits, deltas, boxes, boxes, (count,), {}, one, (64, 64), background=True, valid=valid)
    objects = boxes[:, :2] + torch.tensor([0.5, 0, 0, 0.5])
    labels = torch.tensor([[2, 0], [1, 1]])
    there = torch.tensor([[True, True], [True, False]])
    return output, Targets(objects, labels, there, torch.zeros_like(there))


@pytest.mark.part("criterion/dense")
def test_the_box_of_the_matched_class_learns() -> None:
    """Against a loop over pictures and regions: the class and box losses, and who gets a gradient."""
    output, targets = regions()
    coder = Delta((10, 10, 5, 5))
    losses = DenseCriterion(MaxIoU(0.5, 0.5), CrossEntropy(), L1(), coder, average="samples")(output, targets)
    classes, boxes, learned = [], [], 0
    for i, matches in enumerate(({0: 0, 1: 1}, {0: 0})):
        for r in range(4):  # the last two are padding
            label = int(targets.labels[i, matches[r]]) if r in matches else 3
            classes.append(-output.logits[i, r].log_softmax(0)[label])
            learned += 1
            if r in matches:
                wanted = coder.encode(targets.boxes[i, matches[r]], output.priors[i, r])
                boxes.append((output.deltas[i, r].view(3, 4)[label] - wanted).abs().sum())
    close(losses["class"], sum(classes) / learned, rtol=1e-12, atol=0)
    close(losses["box"], sum(boxes) / learned, rtol=1e-12, atol=0)
    sum(losses.values()).backward()
    taught = output.deltas.grad.view(2, 6, 3, 4).any(dim=-1).nonzero().tolist()
    assert taught == [[0, 0, 2], [0, 1, 0], [1, 0, 1]], "of each positive region the box of its object's class"
    assert not output.logits.grad[:, 4:].any(), "padding teaches nothing"
    assert output.logits.grad[:, :4].any(dim=-1).all()


@pytest.mark.part("criterion/dense")
@pytest.mark.parametrize("num_boxes", [1, 3])
def test_boxes_are_decoded_of_the_matched_class(num_boxes: int) -> None:
    output, targets = regions(num_boxes)
    labels = torch.tensor([[2, 0, 1, 1, 0, 0]] * 2)
    coder = Delta()
    mine = of_matched_class(output, labels, coder)
    for i in range(2):
        for r in range(6):
            deltas = output.deltas[i, r].view(num_boxes, 4)[int(labels[i, r]) if num_boxes > 1 else 0]
            assert torch.equal(mine.deltas[i, r], deltas)
            if num_boxes > 1:
                close(mine.boxes[i, r], coder.decode(deltas, output.priors[i, r]))
    loss = DenseCriterion(MaxIoU(0.5, 0.5), CrossEntropy(), GIoU(), coder)(output, targets)["box"]
    assert loss.isfinite()


@pytest.mark.part("criterion/dense")
def test_what_was_said_before_is_not_asked_again() -> None:
    output, targets = regions()

    class Never(nn.Module):
        def forward(self, *_: object) -> Assignment:
            raise AssertionError("asked")

    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive[:, 3] = True
    positive[:, 5] = True  # padding, which stays so
    said = Assignment(torch.zeros(2, 6, dtype=torch.int64), positive, torch.zeros_like(positive))
    DenseCriterion(Never(), CrossEntropy(), L1(), Delta(), average="samples")(output, targets, said)["class"].backward()
    assert output.logits.grad.any(dim=-1).nonzero().tolist() == [[0, 3], [1, 3]]


@pytest.mark.part("assigner/max_iou", "assigner/atss", "assigner/sim_ota", "assigner/task_aligned")
@pytest.mark.parametrize("name", ["max_iou", "atss", "sim_ota", "task_aligned"])
def test_padding_is_near_no_object(name: str) -> None:
    """Assigners that take the nearest regions of an object at the corner take none of the rows that are nothing."""
    generator = torch.Generator().manual_seed(4)
    low = torch.rand(1, 12, 2, generator=generator) * 14
    boxes = torch.cat([low, low + 8 + torch.rand(1, 12, 2, generator=generator) * 8], dim=-1)
    there = torch.ones(1, 1, dtype=torch.bool)
    objects = Targets(torch.tensor([[[-9.0, -9, 12, 14]]]), torch.tensor([[1]]), there, ~there)
    logits, deltas = torch.randn(1, 12, 4, generator=generator), torch.randn(1, 12, 4, generator=generator) * 0.1
    criterion = DenseCriterion(ASSIGNERS[name](), CrossEntropy(), L1(), Delta(), average="samples")
    found = []
    for rows in (12, 32):
        pad = (0, 0, 0, rows - 12)
        padded = [nn.functional.pad(x, pad) for x in (logits, deltas, boxes)]
        valid = torch.arange(rows)[None] < 12
        where = padded[2].clone()
        said = DenseOutput(*padded, where, (rows,), {}, torch.ones(rows, 2), (64, 64), background=True, valid=valid)
        found.append(criterion(said, objects))
    assert found[0]["box"] > 0
    for key, loss in found[0].items():
        close(loss, found[1][key], rtol=1e-6, atol=0)


@pytest.mark.part("head/roi_box", "recipe/faster_rcnn")
@pytest.mark.parametrize("boxes", ["true", "false"])
def test_a_region_says_a_box_for_each_class_or_one(boxes: str) -> None:
    model = built(f"model.class_boxes={boxes}").eval()
    (stage,) = model.each
    images = batch_of(2).images
    with torch.no_grad():
        (said,) = model(images).stages
        every = stage.boxes_of(said)
    assert every.shape[2] == (CLASSES if boxes == "true" else 1)
    best = said.class_scores().argmax(dim=-1)
    for i, r in ((0, 0), (1, 7), (2, 20)):
        number = int(best[i, r]) if boxes == "true" else 0
        deltas = said.deltas[i, r].view(-1, 4)
        assert torch.equal(said.boxes[i, r], every[i, r, number])
        for c, each in enumerate(deltas):
            close(every[i, r, c], stage.coder.decode(each, said.priors[i, r]))


@pytest.mark.part("recipe/faster_rcnn", "propose/rpn")
def test_a_picture_without_proposals_has_no_detections_and_learns_from_its_objects() -> None:
    """All scores of the proposer are 0 in float32: every region is padding."""
    model = built("model.threshold=0.0")
    nn.init.constant_(model.propose.head.class_logits.bias, -200.0)
    nn.init.zeros_(model.propose.head.class_logits.weight)
    batch = batch_of(3)
    boxes, valid = proposals(model, batch.images)
    assert not valid.any()
    assert not boxes.any()
    losses = model.losses(batch)
    assert all(x.isfinite() for x in losses.values())
    assert losses["box"] > 0, "its objects are regions, too"
    assert not model.eval().predict(batch.images).valid.any()


@pytest.mark.part("neck/identity")
def test_no_neck_passes_levels_as_they_are() -> None:
    neck, levels = Identity([4, 6], [8, 16]), [torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4)]
    assert (neck.channels, neck.strides) == ([4, 6], [8, 16])
    assert all(a is b for a, b in zip(neck(levels), levels, strict=True))
    with pytest.raises(ValueError, match="identity"):
        Identity([4, 6], [8])


@pytest.mark.part("propose/rpn")
def test_boxes_that_are_too_small_are_no_proposals() -> None:
    model, images = built().eval(), batch_of(3).images
    model.propose.head.box_deltas.bias.data.view(-1, 4)[:, 2:] = -1.0
    sides = []
    for least in (1e-3, 12.0):
        model.propose.least = least
        with torch.no_grad():
            boxes, valid = proposals(model, images)
        assert valid.any()
        sides.append((boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)[valid].min())
    assert sides[0] < 12 <= sides[1]


@pytest.mark.part("recipe/faster_rcnn", "propose/rpn", "model/two_stage")
def test_pictures_do_not_see_each_other() -> None:
    """Answers, and the losses of a picture's own regions, alone and beside others."""
    model = built("model.threshold=0.0").eval()
    images = batch_of(3).images
    together = model.predict(images)
    for i in range(3):
        alone = model.predict(images[i : i + 1])
        assert torch.equal(together.valid[i : i + 1], alone.valid)
        close(together.boxes[i : i + 1], alone.boxes, rtol=1e-4, atol=1e-3)
        close(together.scores[i : i + 1], alone.scores, rtol=1e-4, atol=1e-6)


def proposals(model: TwoStage, images: Tensor) -> tuple[Tensor, Tensor]:
    features, size = model.features(images), (images.shape[-2], images.shape[-1])
    return model.propose.choose(model.propose(features, size), features, size, go_on)


@pytest.mark.part("recipe/faster_rcnn")
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("recipe", ["faster_rcnn", "faster_rcnn_c4"])
def test_other_classes_keep_all_else(loss: str, recipe: str) -> None:
    model = built(f"model.class_loss={loss}", recipe=recipe)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    report = replace_head(model, 7)
    fresh = {name for name in before if name not in report.names("loaded")}
    head = "stages.0.head."
    assert fresh == {f"{head}{layer}.{end}" for layer in ("class_logits", "box_deltas") for end in ("weight", "bias")}
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items() if name not in fresh)
    assert model.num_classes == model.each[0].head.num_boxes == 7
    batch = batch_of(4)
    targets = Targets(batch.targets.boxes, batch.targets.labels + 4, batch.targets.valid, batch.targets.ignore)
    batch = Batch(batch.images, targets, batch.index, batch.to_source, batch.source_size)
    sum(model.losses(batch).values()).backward()
    assert model.each[0].head.class_logits.weight.grad.any()
    labels = model.eval().predict(batch.images).labels
    assert labels.max() < 7


@pytest.mark.part("head/roi_stage", "recipe/faster_rcnn_c4")
def test_the_stage_is_that_of_a_resnet(tmp_path: Path) -> None:
    """Against torchvision's layer4 with its weights, read from a file."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    theirs = resnet50().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2), nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, -0.2, 0.2)
    save_file(theirs.state_dict(), tmp_path / "resnet50.safetensors")
    head = RoIStage([1024], CLASSES + 1, weights=str(tmp_path / "resnet50.safetensors")).train()
    regions = torch.rand(2, 3, 1024, 6, 6)
    with torch.no_grad():
        features = theirs.layer4(regions.flatten(0, 1))
        said = head(regions)
        close(head.stage(regions.flatten(0, 1)), features, rtol=1e-4, atol=1e-4)
        close(said.logits, head.class_logits(features.mean(dim=(2, 3)).view(2, 3, -1)), rtol=1e-4, atol=1e-4)
    assert said.deltas.shape == (2, 3, 4)


@pytest.mark.part("head/roi_stage")
def test_a_stage_goes_on_from_one_level(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goes on from one level, got 2"):
        RoIStage([8, 8], 4)
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"layer4\.0\.downsample"):
        RoIStage([8], 4, channels=16, weights=str(tmp_path / "other.safetensors"))


@pytest.mark.part("head/roi_box")
def test_a_head_of_regions_begins_near_the_regions_themselves() -> None:
    torch.manual_seed(0)
    head = RoIBox([4], CLASSES + 1, 4, CLASSES, 3, channels=32)
    said = head(torch.rand(2, 5, 4, 3, 3))
    assert said.deltas.abs().max() < 0.05
    assert said.logits.softmax(-1).sub(1 / (CLASSES + 1)).abs().max() < 0.1
    scores = DenseCriterion(MaxIoU(), Focal(), L1(), Delta())
    assert not scores.background
