"""Deformable DETR against transformers', with the same weights, on padded pictures, in float64."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from torso.assigners import Hungarian
from torso.criteria import QueryCriterion
from torso.heads import DeformableDETR
from torso.losses import L1, Focal
from torso.structures import QueryOutput, Targets

CHANNELS, CLASSES, QUERIES, LAYERS = 32, 3, 9, 2
SIZE = (96, 128)
PICTURES = [(96, 80), (64, 128)]  # heights and widths without padding
VARIANTS = {
    "plain": {},
    "refined": {"refine": True},
    "two-stage": {"refine": True, "two_stage": True},
}


def transformers_model(refine: bool = False, two_stage: bool = False) -> nn.Module:
    """A small one, whose weights are all drawn: as it begins much of it is 0."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )
    config = DeformableDetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        d_model=CHANNELS,
        num_feature_levels=4,
        num_queries=QUERIES,
        two_stage_num_proposals=QUERIES,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_n_points=3,
        decoder_n_points=3,
        num_labels=CLASSES,
        dropout=0.0,
        with_box_refine=refine,
        two_stage=two_stage,
        auxiliary_loss=True,
        disable_custom_kernels=True,
        attn_implementation="eager",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DeformableDetrForObjectDetection(config)
    if refine:  # layers of their own, as in the paper; the library ties them all to the first
        for layers in (model.class_embed, model.bbox_embed):
            for number in range(1, len(layers)):
                layers[number] = copy.deepcopy(layers[0])
        model.model.decoder.bbox_embed = model.bbox_embed
    if two_stage:
        model.model.decoder.class_embed = model.class_embed
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" not in name or parameter.ndim > 1:
            scale = 1.0 if "sampling_offsets.bias" in name else 0.2
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
        parameter.requires_grad_(True)
    return model.train()


def head_of(theirs: nn.Module, refine: bool = False, two_stage: bool = False) -> DeformableDETR:
    """Ours with its weights."""
    ours = DeformableDETR(
        [6, 8, 10],
        [8, 16, 32],
        CLASSES,
        channels=CHANNELS,
        queries=QUERIES,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        heads=4,
        points=3,
        hidden=24,
        dropout=0.0,
        refine=refine,
        two_stage=two_stage,
    ).double()
    there = dict(theirs.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(counterpart(name, parameter, there))
    return ours


def transformers_name(name: str) -> str:
    """The name in transformers' model of a parameter of ours."""
    rules = [
        (r"^project\.(\d)\.", r"model.input_proj.\1."),
        (r"^coarser\.0\.", "model.input_proj.3."),
        (r"^level$", "model.level_embed"),
        (r"^query\.weight$", "model.query_position_embeddings.weight"),
        (r"^reference\.", "model.reference_points."),
        (r"^proposal\.0\.", "model.enc_output."),
        (r"^proposal\.1\.", "model.enc_output_norm."),
        (r"^query\.0\.", "model.pos_trans."),
        (r"^query\.1\.", "model.pos_trans_norm."),
        (r"^proposal_logits\.", f"class_embed.{LAYERS}."),
        (r"^proposal_deltas\.(\d)\.", lambda m: f"bbox_embed.{LAYERS}.layers.{int(m[1]) // 2}."),
        (r"^class_logits\.", "class_embed."),
        (r"^box_deltas\.(\d)\.(\d)\.", lambda m: f"bbox_embed.{m[1]}.layers.{int(m[2]) // 2}."),
        (r"^(en|de)coder\.(\d)\.", r"model.\1coder.layers.\2."),
    ]
    for pattern, there in rules:
        if re.match(pattern, name):
            name = re.sub(pattern, there, name)
            break
    else:
        raise AssertionError(f"no rule for {name}")
    look = "encoder_attn" if "decoder" in name else "self_attn"
    for ours, its in [
        ("look_norm", f"{look}_layer_norm"),
        ("look", look),
        ("meet_norm", "self_attn_layer_norm"),
        ("meet.out_proj", "self_attn.o_proj"),
        ("meet.in_proj", "self_attn.*_proj"),
        ("feed.0", "mlp.fc1"),
        ("feed.3", "mlp.fc2"),
        ("feed_norm", "final_layer_norm"),
    ]:
        name = name.replace("in_proj_", "in_proj.")
        name = re.sub(rf"(layers\.\d\.){re.escape(ours)}\.", rf"\g<1>{its}.", name)
    return name


def counterpart(name: str, mine: Tensor, theirs: dict[str, Tensor]) -> Tensor:
    """What corresponds to a tensor of ours.

    Queries, keys and values have one matrix here and three there; its layer of proposals has a row for every class and
    uses the first, ours has one.
    """
    there = transformers_name(name)
    if "*" in there:
        return torch.cat([theirs[there.replace("*", letter)] for letter in "qkv"])
    return theirs[there][: len(mine)]


class Run(NamedTuple):
    logits: Tensor  # [L, B, Q, C]
    boxes: Tensor  # [L, B, Q, 4] shares of the picture
    proposed: Tensor | None  # [B, S, 5] logits and boxes of cells that can be proposals
    valid: Tensor | None


def pictures() -> tuple[Tensor, Tensor]:
    """Two pictures of different sizes, padded below and right; and where they are."""
    pixels = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    real = torch.zeros(2, *SIZE, dtype=torch.bool)
    for row, (height, width) in enumerate(PICTURES):
        real[row, :height, :width] = True
    return pixels * real[:, None], real


def run_theirs(theirs: nn.Module, pixels: Tensor, real: Tensor) -> Run:
    nothing = [{"class_labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4).double()}] * 2
    output = theirs(pixels, pixel_mask=real.long(), labels=nothing)
    layers = [*output.auxiliary_outputs, {"logits": output.logits, "pred_boxes": output.pred_boxes}]
    logits, boxes = (torch.stack([layer[key] for layer in layers]) for key in ("logits", "pred_boxes"))
    if output.enc_outputs_class is None:
        return Run(logits, boxes, None, None)
    said = output.enc_outputs_coord_logits
    valid = said.isfinite().all(dim=-1)
    cells = torch.cat([output.enc_outputs_class[..., :1], said.sigmoid()], dim=-1)
    return Run(logits, boxes, cells, valid)


def run_ours(head: DeformableDETR, theirs: nn.Module, pixels: Tensor, real: Tensor) -> tuple[Run, QueryOutput]:
    """On the features of its backbone."""
    found = theirs.model.backbone(pixels, real)
    output = head([x for x, _ in found], [mask for _, mask in found], SIZE)
    cells = None
    if output.proposed is not None:
        cells = torch.cat([output.proposed.logits, output.proposed.deltas], dim=-1)
    return Run(output.logits, output.boxes, cells, None if cells is None else output.proposed.valid), output


def in_order(run: Run) -> Run:
    """Queries that come from cells have no order of their own: by the last layer's first logit."""
    order = run.logits[-1, :, :, 0].argsort(dim=1)
    rows = torch.arange(2)[:, None]
    return run._replace(logits=run.logits[:, rows, order], boxes=run.boxes[:, rows, order])


def weighed(run: Run) -> Tensor:
    """One number of all outputs."""
    total = torch.zeros((), dtype=torch.float64)
    cells = () if run.proposed is None else (run.proposed[run.valid],)
    for x in (run.logits, run.boxes, *cells):
        total = total + (x * torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view(x.shape)).sum()
    return total


def gradients(loss: Tensor, *modules: nn.Module) -> list[dict[str, Tensor]]:
    named = [dict(module.named_parameters(remove_duplicate=False)) for module in modules]
    flat = [parameter for each in named for parameter in each.values()]
    found = iter(torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True))
    return [{name: next(found) for name in each} for each in named]


def compare_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    for name, gradient in ours.items():
        its = counterpart(name, gradient, theirs)
        torch.testing.assert_close(gradient, its, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.part("head/deformable_detr")
@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_pictures_give_transformers_logits_and_boxes_and_gradients(variant: str) -> None:
    options: dict[str, Any] = VARIANTS[variant]
    # The library makes the positions of proposals in float32.
    tolerance = 1e-5 if variant == "two-stage" else 1e-10
    theirs = transformers_model(**options)
    head = head_of(theirs, **options)
    pixels, real = pictures()
    its = run_theirs(theirs, pixels, real)
    mine, _ = run_ours(head, theirs, pixels, real)
    assert mine.logits.shape == (LAYERS, 2, QUERIES, CLASSES)
    if variant == "two-stage":
        assert torch.equal(mine.valid, its.valid)
        torch.testing.assert_close(mine.proposed[its.valid], its.proposed[its.valid], rtol=1e-10, atol=1e-10)
        mine, its = in_order(mine), in_order(its)
    for field in ("logits", "boxes"):
        torch.testing.assert_close(getattr(mine, field), getattr(its, field), rtol=tolerance, atol=tolerance)
    of_head, of_body = gradients(weighed(mine), head, theirs.model.backbone)
    (of_theirs,) = gradients(weighed(its), theirs)
    compare_gradients(of_head, of_theirs, 100 * tolerance)
    assert any(x.any() for x in of_body.values())
    for name, gradient in of_body.items():
        torch.testing.assert_close(gradient, of_theirs["model.backbone." + name], rtol=tolerance * 100, atol=tolerance)


def targets_of(counts: tuple[int, int], sizes: list[tuple[int, int]]) -> tuple[Targets, list[dict[str, Tensor]]]:
    """The same objects for both: pixels of the padded input, and shares of each picture."""
    generator = torch.Generator().manual_seed(2)
    rows = max(counts)
    centre = torch.rand(2, rows, 2, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    side = torch.rand(2, rows, 2, generator=generator, dtype=torch.float64) * 0.3 + 0.05
    labels = torch.randint(0, CLASSES, (2, rows), generator=generator)
    valid = torch.arange(rows) < torch.tensor(counts)[:, None]
    pixels = torch.tensor([[w, h] * 2 for h, w in sizes], dtype=torch.float64)
    boxes = torch.cat([centre - side / 2, centre + side / 2], dim=-1) * pixels[:, None] * valid[..., None]
    shares = torch.cat([centre, side], dim=-1)
    theirs = [{"class_labels": labels[i, :n], "boxes": shares[i, :n]} for i, n in enumerate(counts)]
    return Targets(boxes, labels * valid, valid, torch.zeros_like(valid)), theirs


def frame(sizes: list[tuple[int, int]]) -> Tensor:
    return torch.tensor([[0, 0, w, h] for h, w in sizes], dtype=torch.float64)


def criterion() -> QueryCriterion:
    """With the library's weights, which its loss of classes has not."""
    assigner = Hungarian(class_weight=2.0, class_cost="focal")
    return QueryCriterion(assigner, Focal(), L1(), class_weight=1.0, box_weight=5.0, overlap_weight=2.0)


def library_names(name: str) -> tuple[str, float]:
    """The name of a loss of ours in the library's dict, and the weight that is already in ours."""
    layer = re.match(r"layer(\d)_", name)
    kind, weight = {"class": ("ce", 1.0), "box": ("bbox", 5.0), "overlap": ("giou", 2.0)}[name.rpartition("_")[2]]
    return f"loss_{kind}" + (f"_{int(layer[1]) - 1}" if layer else ""), weight


@pytest.mark.part("head/deformable_detr", "criterion/query", "assigner/hungarian", "recipe/deformable_detr")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("counts", [(3, 5), (0, 1), (0, 0)])
def test_padded_pictures_cost_what_transformers_says(variant: str, counts: tuple[int, int]) -> None:
    options: dict[str, Any] = VARIANTS[variant]
    tolerance = 1e-4 if variant == "two-stage" else 1e-8
    theirs = transformers_model(**options)
    theirs.config.class_cost = 2
    head = head_of(theirs, **options)
    pixels, real = pictures()
    targets, labels = targets_of(counts, PICTURES)
    its = theirs(pixels, pixel_mask=real.long(), labels=labels)
    _, output = run_ours(head, theirs, pixels, real)
    losses = criterion()(output.within(frame(PICTURES)), targets)
    learned = {name: loss for name, loss in losses.items() if not name.startswith("proposal")}
    assert len(learned) == 3 * LAYERS
    for name, loss in learned.items():
        key, weight = library_names(name)
        torch.testing.assert_close(loss, weight * its.loss_dict[key], rtol=tolerance, atol=tolerance)
    total = torch.stack(list(learned.values())).sum()
    torch.testing.assert_close(total, its.loss, rtol=tolerance, atol=tolerance)
    (of_head,) = gradients(total, head)
    (of_theirs,) = gradients(its.loss, theirs)
    compare_gradients(of_head, of_theirs, tolerance)


@pytest.mark.part("head/deformable_detr")
def test_proposals_cost_what_the_library_says_of_one_class() -> None:
    """The library leaves this loss of the paper's code out, but has all of its parts."""
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher, DeformableDetrImageLoss

    theirs = transformers_model(**VARIANTS["two-stage"])
    head = head_of(theirs, **VARIANTS["two-stage"])
    pixels, real = pictures()[0], torch.ones(2, *SIZE, dtype=torch.bool)
    targets, labels = targets_of((3, 5), [SIZE, SIZE])
    its = run_theirs(theirs, pixels, real)
    assert its.valid.all()
    loss = DeformableDetrImageLoss(DeformableDetrHungarianMatcher(2, 5, 2), 1, 0.25, ["labels", "boxes"])
    of_one = [{**each, "class_labels": torch.zeros_like(each["class_labels"])} for each in labels]
    wanted = loss({"logits": its.proposed[..., :1], "pred_boxes": its.proposed[..., 1:]}, of_one)
    _, output = run_ours(head, theirs, pixels, real)
    losses = criterion()(output.within(frame([SIZE, SIZE])), targets)
    found = {name: x for name, x in losses.items() if name.startswith("proposal")}
    assert len(found) == 3
    for name, x in found.items():
        key, weight = library_names(name)
        torch.testing.assert_close(x, weight * wanted[key], rtol=1e-8, atol=1e-8)
    total = sum(weight * wanted[key] for key, weight in map(library_names, found))
    (of_head,) = gradients(torch.stack(list(found.values())).sum(), head)
    (of_theirs,) = gradients(total, theirs)
    compare_gradients(of_head, of_theirs, 1e-8)
