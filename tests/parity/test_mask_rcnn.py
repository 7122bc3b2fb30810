"""The shipped recipe of Mask R-CNN against torchvision's, with the same weights, in float64."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.parity.test_faster_rcnn import (
    CLASSES,
    KEPT,
    MODES,
    OF_PRIORS,
    OF_REGIONS,
    OVERRIDES,
    SIZE,
    TOP,
    WIDTH,
    case,
    close,
    ours_of,
    torchvision_name,
)
from torso.boxes.masks import cut, paste
from torso.models import TwoStage
from torso.models.inside import go_on
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Detections

DEPTH, CHANNELS = 2, 24
RULES = [
    (r"^mask\.head\.layers\.(\d)\.0\.", r"roi_heads.mask_head.\1.0."),
    (r"^mask\.head\.up\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"^mask\.head\.class_masks\.", "roi_heads.mask_predictor.mask_fcn_logits."),
]


def name_there(name: str) -> str:
    for pattern, there in RULES:
        if re.match(pattern, name):
            return re.sub(pattern, there, name)
    return torchvision_name(name)


def own(name: str, there: Tensor) -> Tensor:
    """Torchvision's numbers as ours: it has a mask of the background too, the first, which nothing learns."""
    return there[1:] if "class_masks" in name else ours_of(name, there)


def torchvision_model() -> nn.Module:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    counts = {f"rpn_{when}_nms_top_n_{mode}": n for when, n in (("pre", TOP), ("post", KEPT)) for mode in MODES}
    masks = MaskRCNNHeads(256, (CHANNELS,) * DEPTH, 1)
    model = MaskRCNN(body, num_classes=CLASSES + 1, min_size=SIZE, max_size=SIZE, mask_head=masks, **counts)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES + 1)
    model.roi_heads.box_head = type(model.roi_heads.box_head)(256 * 49, WIDTH)
    model.roi_heads.box_predictor = type(model.roi_heads.box_predictor)(WIDTH, CLASSES + 1)
    for layer, std in (
        (model.rpn.head.cls_logits, 0.1),
        (model.rpn.head.bbox_pred, 0.02),
        (model.roi_heads.box_predictor.cls_score, 1.0),
        (model.roi_heads.box_predictor.bbox_pred, 0.3),
        (model.roi_heads.mask_predictor.mask_fcn_logits, 0.1),
    ):
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=0.1)
    assign = model.rpn.assign_targets_to_anchors  # says float32, whatever the network is
    model.rpn.assign_targets_to_anchors = lambda *given: [[x.double() for x in part] for part in assign(*given)]
    model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler = OF_PRIORS.theirs, OF_REGIONS.theirs
    return model.double()


@pytest.fixture(scope="module")
def pair() -> tuple[TwoStage, nn.Module]:
    torch.manual_seed(0)
    theirs = torchvision_model()
    changes = [*OVERRIDES, f"model.mask_head.channels={CHANNELS}", f"model.mask_head.depth={DEPTH}"]
    ours: TwoStage = Recipe.load("mask_rcnn", changes, without_data=True).model.build(num_classes=CLASSES).double()
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    ours.propose.criterion.sample, ours.each[0].draw.sample = OF_PRIORS, OF_REGIONS
    state = theirs.state_dict()
    mapped = {name: own(name, state[name_there(name)]) for name, _ in ours.named_parameters()}
    mapped |= {f"backbone.{name}": state[f"backbone.{name}"] for name, _ in ours.backbone.named_buffers()}
    assert set(mapped) == {name for name in ours.state_dict() if "normalize" not in name}
    ours.load_state_dict(mapped, strict=False)
    return ours, theirs


def with_masks() -> tuple[Tensor, list[dict[str, Tensor]], Batch]:
    """The case of Faster R-CNN, its objects blots that do not fill their boxes."""
    images, per_image, batch = case()
    generator = torch.Generator().manual_seed(2)
    count = batch.targets.boxes.shape[1]
    masks = torch.zeros(3, count, SIZE, SIZE, dtype=torch.bool)
    for i, there in enumerate(per_image):
        blots = nn.functional.interpolate(torch.rand(1, 12, 16, 16, generator=generator), size=SIZE, mode="bilinear")
        for j, (x0, y0, x1, y1) in enumerate(there["boxes"].round().long().tolist()):
            masks[i, j, y0:y1, x0:x1] = blots[0, j, y0:y1, x0:x1] > 0.4
        there["masks"] = masks[i, : len(there["boxes"])].to(torch.uint8)
    return images, per_image, replace(batch, targets=replace(batch.targets, masks=masks))


@pytest.mark.part("recipe/mask_rcnn", "head/roi_mask")
def test_losses_and_gradients_equal_torchvision(pair: tuple[TwoStage, nn.Module]) -> None:
    ours, theirs = pair
    images, per_image, batch = with_masks()
    ours.train(), theirs.train()
    heard = []
    hook = theirs.roi_heads.mask_roi_pool.register_forward_pre_hook(lambda _, given: heard.append(given[1]))
    mine, expected = ours.losses(batch), theirs(list(images.double() / 255), per_image)
    hook.remove()
    counts = [len(x) for x in heard[0]]
    assert counts[0] > 10, "many regions learn a mask"
    assert counts[1] == 0, "a picture without objects is among them"
    assert max(counts) <= ours.mask.count
    names = {"mask": "loss_mask", "class": "loss_classifier", "box": "loss_box_reg"}
    for name, there in names.items():
        assert expected[there] > 0.01
        close(mine[name], expected[there], rtol=1e-9, atol=0)
    sum(mine.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        there = own(name, gradients[name_there(name)])
        scale = float(there.abs().max())
        assert scale > 0, name
        close(parameter.grad, there, rtol=1e-6, atol=1e-6 * scale, msg=name)


@pytest.mark.part("recipe/mask_rcnn", "head/roi_mask")
def test_masks_of_detections_equal_torchvision_also_when_pasted(pair: tuple[TwoStage, nn.Module]) -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    ours, theirs = pair
    images, _, _ = with_masks()
    ours.eval(), theirs.eval()
    said = []
    hook = theirs.roi_heads.mask_predictor.register_forward_hook(lambda _, __, found: said.append(found))
    with torch.no_grad():
        found: Detections = ours.answer(images, go_on)
        expected = theirs(list(images.double() / 255))
    hook.remove()
    assert found.masks is not None
    assert found.masks.shape == (3, 100, 28, 28)
    start = 0
    for i, there in enumerate(expected):
        count = int(found.valid[i].sum())
        assert count == len(there["scores"]) > 20
        rows = torch.arange(start, start + count)
        logits = said[0][rows, there["labels"]]
        close(found.masks[i, :count].logit(), logits, rtol=1e-7, atol=1e-7)
        assert 0.1 < float(logits.std()) < 5, "masks that say something"
        pasted = paste_masks_in_image(found.masks[i, :count].unsqueeze(1), found.boxes[i, :count], (SIZE, SIZE))
        close(pasted, there["masks"], rtol=1e-7, atol=1e-7)
        start += count


@pytest.mark.part("head/roi_mask")
def test_one_class_is_the_same_as_that_class_of_all(pair: tuple[TwoStage, nn.Module]) -> None:
    ours, _ = pair
    regions = torch.randn(2, 3, 256, 14, 14, dtype=torch.float64)
    labels = torch.tensor([[0, 4, 2], [2, 2, 1]])
    every, one = ours.mask.head(regions), ours.mask.head.of_labels(regions, labels)
    assert every.shape == (2, 3, CLASSES, 28, 28)
    close(one, every.gather(2, labels[..., None, None, None].expand(-1, -1, 1, 28, 28)).squeeze(2))


@pytest.mark.parametrize("objects", [2, 9])
def test_targets_equal_torchvision_and_do_not_depend_on_how_many_fit_into_memory(
    objects: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    generator = torch.Generator().manual_seed(objects)
    masks = torch.rand(3, objects, 40, 60, generator=generator) > 0.5
    corner = torch.rand(3, 5, 2, generator=generator, dtype=torch.float64) * 30 - 4
    boxes = torch.cat([corner, corner + torch.rand(3, 5, 2, generator=generator, dtype=torch.float64) * 44], dim=-1)
    index = torch.randint(0, objects, (3, 5), generator=generator)
    expected = torch.stack([project_masks_on_boxes(m, b, i, 7) for m, b, i in zip(masks, boxes, index, strict=True)])
    close(cut(masks, index, boxes, 7), expected, rtol=0, atol=0)
    monkeypatch.setattr("torso.boxes.masks.LIMIT", 1)  # a picture at a time
    close(cut(masks, index, boxes, 7), expected, rtol=0, atol=0)


def test_a_pasted_mask_is_torchvisions_but_for_its_rounding() -> None:
    """torchvision moves a box to whole pixels and makes it one larger: at most a pixel at the rim."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(20, 1, 5, 5, generator=generator, dtype=torch.float64)
    masks = nn.functional.interpolate(coarse, size=28, mode="bicubic").clamp(0, 1)
    corner = torch.rand(20, 2, generator=generator, dtype=torch.float64) * 60 - 10
    boxes = torch.cat([corner, corner + 20 + torch.rand(20, 2, generator=generator, dtype=torch.float64) * 50], dim=1)
    theirs = (paste_masks_in_image(masks, boxes, (90, 100)) >= 0.5)[:, 0].numpy()
    for mask, box, there in zip(masks[:, 0].numpy(), boxes.numpy(), theirs, strict=True):
        pixels, left, top = paste(mask, box, np.eye(3), (100, 90))
        whole = np.zeros((90, 100), bool)
        whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        far = there ^ whole
        for picture in (there, whole):  # what differs lies beside the rim of both
            wide = np.pad(picture, 1)
            near = [wide[y : y + 90, x : x + 100] for y in range(3) for x in range(3)]
            far = far & ~(np.logical_or.reduce(near) & ~np.logical_and.reduce(near))
        assert not far.any()
        assert (there & whole).sum() / (there | whole).sum() > 0.8
