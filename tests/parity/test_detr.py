"""DETR made of torso's parts against transformers', with the same weights, in float64, on pictures of two sizes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torso.assigners import Hungarian
from torso.backbones import Timm
from torso.boxes.convert import cxcywh_to_xyxy
from torso.boxes.suppress import Threshold
from torso.criteria import QueryCriterion
from torso.heads import DETR
from torso.losses import L1, CrossEntropy
from torso.models import QueryDetector
from torso.necks import Identity
from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.structures import Batch, Targets

pytestmark = pytest.mark.part("recipe/detr", "model/query", "head/detr", "criterion/query", "assigner/hungarian")
CLASSES, QUERIES, LAYERS = 5, 12, 3
SIZES = [(96, 160), (70, 100)]  # height, width; the second lies in the top left corner
Pair = tuple[QueryDetector, nn.Module]


def torso_detr() -> QueryDetector:
    body = Timm("resnet18", levels=[5], frozen_norm=True)
    neck = Identity(body.channels, body.strides)
    head = DETR(
        neck.channels,
        CLASSES + 1,
        channels=32,
        queries=QUERIES,
        encoder_layers=2,
        decoder_layers=LAYERS,
        heads=4,
        hidden=48,
        dropout=0.0,
    )
    criterion = QueryCriterion(Hungarian(), CrossEntropy(), L1())
    return QueryDetector(body, neck, head, criterion, Threshold(20), num_classes=CLASSES, one_class=True).double()


def transformers_detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_labels=CLASSES,
        num_queries=QUERIES,
        d_model=32,
        encoder_layers=2,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        dropout=0.0,
    )
    torch.manual_seed(0)
    model = DetrForObjectDetection(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # nothing that is 0 or 1 by chance, and queries that differ
        for name, x in model.state_dict().items():
            if x.ndim == 1:
                middle = 1.0 if name.endswith(("norm.weight", "normalization.weight", "running_var")) else 0.0
                x.copy_(middle + torch.rand(x.shape, generator=generator) * 0.4 - 0.2)
            elif x.ndim == 2:
                x.copy_(torch.randn(x.shape, generator=generator) * (2 if "query" in name else 2 * x.shape[1] ** -0.5))
    return model.double().requires_grad_()  # transformers freezes the whole of such a backbone


RULES = [
    (r"^backbone\.body\.conv1\.", "model.backbone.model.embedder.embedder.convolution."),
    (r"^backbone\.body\.bn1\.", "model.backbone.model.embedder.embedder.normalization."),
    (r"^backbone\.body\.layer(\d)\.(\d)\.downsample\.0\.", r"STAGE\1.layers.\2.shortcut.convolution."),
    (r"^backbone\.body\.layer(\d)\.(\d)\.downsample\.1\.", r"STAGE\1.layers.\2.shortcut.normalization."),
    (r"^backbone\.body\.layer(\d)\.(\d)\.conv(\d)\.", r"STAGE\1.layers.\2.layer.NUMBER\3.convolution."),
    (r"^backbone\.body\.layer(\d)\.(\d)\.bn(\d)\.", r"STAGE\1.layers.\2.layer.NUMBER\3.normalization."),
    (r"^head\.project\.", "model.input_projection."),
    (r"^head\.query$", "model.query_position_embeddings.weight"),
    (r"^head\.class_logits\.", "class_labels_classifier."),
    (r"^head\.box\.0\.", "bbox_predictor.layers.0."),
    (r"^head\.box\.2\.", "bbox_predictor.layers.1."),
    (r"^head\.box\.4\.", "bbox_predictor.layers.2."),
    (r"^head\.decoder_norm\.", "model.decoder.layernorm."),
    (r"^head\.(\w+)\.(\d)\.attention\.", r"model.\1.layers.\2.self_attn."),
    (r"^head\.(\w+)\.(\d)\.look\.", r"model.\1.layers.\2.encoder_attn."),
    (r"^head\.(\w+)\.(\d)\.feed\.0\.", r"model.\1.layers.\2.mlp.fc1."),
    (r"^head\.(\w+)\.(\d)\.feed\.3\.", r"model.\1.layers.\2.mlp.fc2."),
    (r"^head\.(\w+)\.(\d)\.norms\.0\.", r"model.\1.layers.\2.self_attn_layer_norm."),
    (r"^head\.decoder\.(\d)\.norms\.1\.", r"model.decoder.layers.\1.encoder_attn_layer_norm."),
    (r"^head\.(\w+)\.(\d)\.norms\.\d\.", r"model.\1.layers.\2.final_layer_norm."),
]


def theirs_of(name: str, tensors: dict[str, Tensor]) -> Tensor:
    """The tensor of transformers' model that belongs to a name of ours."""
    rule = next(rule for rule in RULES if re.match(rule[0], name))
    there = re.sub(*rule, name)
    there = re.sub(r"STAGE(\d)", lambda m: f"model.backbone.model.encoder.stages.{int(m[1]) - 1}", there)
    there = re.sub(r"NUMBER(\d)", lambda m: str(int(m[1]) - 1), there)
    if "in_proj_" in there:
        return torch.cat([tensors[there.replace("in_proj_", f"{part}_proj.")] for part in "qkv"])
    return tensors[there.replace("out_proj", "o_proj")]


@pytest.fixture(scope="module")
def pair() -> Pair:
    ours, theirs = torso_detr(), transformers_detr()
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours.normalize.scale, ours.normalize.shift = 1 / (255 * std), -mean / std  # float32 constants would differ by 1e-8
    state = theirs.state_dict()
    wanted = [name for name in ours.state_dict() if "num_batches" not in name and "normalize" not in name]
    ours.load_state_dict({name: theirs_of(name, state) for name in wanted}, strict=False)
    return ours, theirs


def case() -> tuple[Tensor, Tensor, Batch, list[dict[str, Tensor]]]:
    """Pictures, their mask, what they show, and that in shares of each picture."""
    generator = torch.Generator().manual_seed(1)
    (height, width), counts = SIZES[0], [4, 3]
    images = torch.full((2, 3, height, width), 114, dtype=torch.uint8)
    mask = torch.zeros(2, height, width, dtype=torch.int64)
    boxes, labels = torch.zeros(2, 6, 4, dtype=torch.float64), torch.zeros(2, 6, dtype=torch.int64)
    valid, theirs = torch.zeros(2, 6, dtype=torch.bool), []
    for i, ((h, w), count) in enumerate(zip(SIZES, counts, strict=True)):
        images[i, :, :h, :w] = torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
        mask[i, :h, :w] = 1
        share = torch.rand(count, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.2
        label = torch.randint(0, CLASSES, (count,), generator=generator)
        boxes[i, :count] = cxcywh_to_xyxy(share) * torch.tensor([w, h, w, h])
        labels[i, :count], valid[i, :count] = label, True
        theirs.append({"boxes": share, "class_labels": label})
    targets = Targets(boxes, labels, valid, torch.zeros_like(valid))
    batch = Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 1))
    return images, mask, batch, theirs


def say(theirs: Any, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Logits and boxes after every layer of the decoder, as the paper's code makes them, and the answer.

    Asked for auxiliary losses, transformers hands on to the next layer what was normalised for the classes; so the
    layers are listened to instead.
    """
    heard: list[Tensor] = []
    hooks = [x.register_forward_hook(lambda _, __, out: heard.append(out)) for x in theirs.model.decoder.layers]
    answer = theirs(pixel_values=pixels, pixel_mask=mask)
    for hook in hooks:
        hook.remove()
    every = torch.stack([theirs.model.decoder.layernorm(x) for x in heard])
    return theirs.class_labels_classifier(every), theirs.bbox_predictor(every).sigmoid(), answer


@pytest.mark.part("attention/encoder_decoder", "position/sine")
def test_what_every_layer_says_equals_transformers(pair: Pair) -> None:
    ours, theirs = (x.eval() for x in pair)
    images, mask, _, _ = case()
    with torch.no_grad():
        said = ours(images)
        logits, boxes, answer = say(theirs, ours.normalize(images), mask)
    torch.testing.assert_close(said.logits, logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said.boxes, boxes, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said.logits[-1], answer.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said.boxes[-1], answer.pred_boxes, rtol=1e-9, atol=1e-9)
    assert said.logits.std(dim=2).min() > 0.02, "queries differ"
    assert said.frame is not None
    assert said.frame.tolist() == [[0, 0, 160, 96], [0, 0, 100, 70]]


@pytest.mark.part("attention/encoder_decoder")
def test_losses_and_gradients_equal_transformers(pair: Pair) -> None:
    from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

    ours, theirs = (x.train() for x in pair)
    images, mask, batch, labels = case()
    losses = ours.losses(batch)
    logits, boxes, _ = say(theirs, ours.normalize(images), mask)
    theirs.config.auxiliary_loss = True
    torch.set_default_dtype(torch.float64)  # the weight of nothing is a tensor of its own
    try:
        total, each, _ = ForObjectDetectionLoss(
            logits[-1], labels, "cpu", boxes[-1], theirs.config, outputs_class=logits, outputs_coord=boxes
        )
    finally:
        torch.set_default_dtype(torch.float32)
        theirs.config.auxiliary_loss = False
    for name, there, weight in (("class", "loss_ce", 1), ("box", "loss_bbox", 5), ("overlap", "loss_giou", 2)):
        torch.testing.assert_close(losses[name], weight * each[there], rtol=1e-9, atol=0)
        torch.testing.assert_close(losses[f"layer1_{name}"], weight * each[f"{there}_0"], rtol=1e-9, atol=0)
    torch.testing.assert_close(sum(losses.values()), total, rtol=1e-9, atol=0)
    ours.zero_grad(), theirs.zero_grad()
    sum(losses.values()).backward()  # type: ignore[union-attr]
    total.backward()
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        there = theirs_of(name, gradients)
        assert parameter.grad is not None, name
        scale = float(there.abs().max())
        # Queries begin as zeros: whom they look at in the first layer has no gradient but what is rounded.
        torch.testing.assert_close(parameter.grad, there, rtol=1e-6, atol=1e-7 * scale + 1e-12, msg=name)


def test_detections_equal_transformers(pair: Pair) -> None:
    from transformers.models.detr.image_processing_detr import DetrImageProcessor

    ours, theirs = (x.eval() for x in pair)
    images, mask, _, _ = case()
    with torch.no_grad():
        found = ours.predict(images)
        answer = theirs(pixel_values=ours.normalize(images), pixel_mask=mask)
    expected = DetrImageProcessor().post_process_object_detection(answer, threshold=0.0, target_sizes=SIZES)
    limit = torch.tensor([160.0, 96, 160, 96], dtype=torch.float64)
    for i, there in enumerate(expected):
        count = int(found.valid[i].sum())
        order = there["scores"].argsort(descending=True)
        assert count == len(order) == QUERIES
        torch.testing.assert_close(found.scores[i, :count], there["scores"][order], rtol=1e-9, atol=1e-12)
        boxes = there["boxes"][order].double().clamp(min=0).minimum(limit)
        torch.testing.assert_close(found.boxes[i, :count], boxes, rtol=1e-5, atol=1e-4)  # they scale in float32
        assert torch.equal(found.labels[i, :count], there["labels"][order])
    assert len(found.labels.unique()) > 1, "the case must tell classes apart"
