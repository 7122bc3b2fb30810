"""The wiring of detectors of two stages or more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from torch import nn

from torso.assigners.draw import Draw
from torso.config import ModelError, Role, Spec, parameters
from torso.models.masks import MaskBranch
from torso.models.propose import RegionProposals
from torso.models.two_stage import Stage, TwoStage
from torso.models.windows import Windows
from torso.recipes.wiring import fitted, joined, objective_of


def two_stage(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    neck: Annotated[Spec, Role("neck")] = "fpn",  # type: ignore[assignment]
    propose: Annotated[Spec, Role("propose")] = "rpn",  # type: ignore[assignment]
    roi: Annotated[Spec, Role("roi")] = "align",  # type: ignore[assignment]
    head: Annotated[Spec, Role("head")] = "roi_box",  # type: ignore[assignment]
    coder: Annotated[Spec, Role("coder")] = "delta",  # type: ignore[assignment]
    assigner: Annotated[Spec, Role("assigner")] = "max_iou",  # type: ignore[assignment]
    sample: Annotated[Spec | None, Role("sample")] = "random",  # type: ignore[assignment]
    class_loss: Annotated[Spec, Role("loss")] = "cross_entropy",  # type: ignore[assignment]
    box_loss: Annotated[Spec, Role("loss")] = "smooth_l1",  # type: ignore[assignment]
    criterion: Annotated[Spec, Role("criterion")] = "dense",  # type: ignore[assignment]
    class_boxes: bool = True,
    refine: Annotated[Sequence[Any], Role("refine")] = (),
    mask_head: Annotated[Spec | None, Role("head")] = None,
    mask_roi: Annotated[Spec, Role("roi")] = "align",  # type: ignore[assignment]
    mask_loss: Annotated[Spec, Role("loss")] = "binary_cross_entropy",  # type: ignore[assignment]
    mask_weight: float = 1.0,
    mask_count: int | None = None,
    suppress: Annotated[Spec, Role("suppress")] = "batched_nms",  # type: ignore[assignment]
    threshold: float = 0.05,
    topk: int = 1000,
    normalize: Annotated[Spec | None, Role("transform")] = None,
) -> TwoStage:
    """A detector of two stages: backbone, neck, proposals; features of regions and a head; or of more, each finer.

    Args:
        num_classes: classes of the data (wired).
        backbone: pictures to features.
        neck: features to features of equal channels.
        propose: features to regions.
        roi: features of a region at one size.
        head: these to logits and deltas.
        coder: deltas to boxes and back.
        assigner: says which region learns which object.
        sample: which of the assigned regions learn; all of them when None. With an assigner that, as it does, looks at
            boxes alone, it draws them before the head looks at any.
        class_loss: loss of the class scores.
        box_loss: loss of deltas or boxes.
        criterion: how assigner and losses make an objective.
        class_boxes: a region says a box for each class, not one.
        refine: further stages; what one does not name it has as the first has it.
        mask_head: features of a region to a mask of its object; no masks when None. Masks want ``data.masks=true``.
        mask_roi: features of a region for it.
        mask_loss: loss of a mask, one of scores.
        mask_weight: factor of it.
        mask_count: regions of a picture that learn a mask at most; all positives that ``sample`` may draw when None.
        suppress: candidates to detections.
        threshold: score below which nothing is a detection.
        topk: pairs of region and class that the suppressor sees.
        normalize: the first layer, such as ``normalize_robust``; by the backbone's mean and deviation when None.

    Source: own design; Faster R-CNN, 2015, arXiv:1506.01497
    """
    body = backbone.build()
    pyramid = joined(backbone, body, neck)
    proposer = propose.build(in_channels=pyramid.channels, strides=pyramid.strides)
    first = {
        "roi": roi,
        "head": head,
        "coder": coder,
        "assigner": assigner,
        "sample": sample,
        "class_loss": class_loss,
        "box_loss": box_loss,
        "criterion": criterion,
    }
    every = [first, *({**first, "sample": None, **further} for further in refine)]
    stages = [_stage(pyramid, num_classes, class_boxes=class_boxes, **parts) for parts in every]
    return fitted(
        lambda: TwoStage(
            body,
            pyramid,
            proposer,
            stages,
            suppress.build(),
            _mask(mask_head, mask_roi, mask_loss, mask_weight, mask_count, pyramid, num_classes, stages[0]),
            num_classes=num_classes,
            threshold=threshold,
            topk=topk,
            normalize=None if normalize is None else normalize.build(),
        )
    )


def further(
    *,
    roi: Annotated[Spec | None, Role("roi")] = None,
    head: Annotated[Spec | None, Role("head")] = None,
    coder: Annotated[Spec | None, Role("coder")] = None,
    assigner: Annotated[Spec | None, Role("assigner")] = None,
    sample: Annotated[Spec | None, Role("sample")] = None,
    class_loss: Annotated[Spec | None, Role("loss")] = None,
    box_loss: Annotated[Spec | None, Role("loss")] = None,
    criterion: Annotated[Spec | None, Role("criterion")] = None,
) -> dict[str, Spec]:
    """A further look at the boxes of the stage before, as finer as its assigner is stricter.

    Args:
        roi: features of a region at one size.
        head: these to logits and deltas.
        coder: deltas to boxes and back.
        assigner: says which region learns which object.
        sample: which of the assigned regions learn; all of them when None.
        class_loss: loss of the class scores.
        box_loss: loss of deltas or boxes.
        criterion: how assigner and losses make an objective.

    Source: Cascade R-CNN, 2017, arXiv:1712.00726
    """
    return {name: part for name, part in locals().items() if part is not None}


def rpn(
    in_channels: Sequence[int],
    strides: Sequence[int],
    *,
    head: Annotated[Spec, Role("head")] = "rpn",  # type: ignore[assignment]
    prior: Annotated[Spec, Role("prior")] = "anchors",  # type: ignore[assignment]
    coder: Annotated[Spec, Role("coder")] = "delta",  # type: ignore[assignment]
    assigner: Annotated[Spec, Role("assigner")] = "max_iou",  # type: ignore[assignment]
    sample: Annotated[Spec | None, Role("sample")] = "random",  # type: ignore[assignment]
    class_loss: Annotated[Spec, Role("loss")] = "binary_cross_entropy",  # type: ignore[assignment]
    box_loss: Annotated[Spec, Role("loss")] = "smooth_l1",  # type: ignore[assignment]
    criterion: Annotated[Spec, Role("criterion")] = "dense",  # type: ignore[assignment]
    suppress: Annotated[Spec, Role("suppress")] = "level_nms",  # type: ignore[assignment]
    topk: int = 1000,
) -> RegionProposals:
    """Proposals of a dense head.

    Args:
        in_channels: of the levels (wired).
        strides: of the levels (wired).
        head: any dense head.
        prior: the boxes it looks at.
        coder: deltas to boxes and back.
        assigner: says which prior learns which object.
        sample: which of the assigned priors learn.
        class_loss: loss of "is there anything".
        box_loss: loss of deltas or boxes.
        criterion: how assigner and losses make an objective.
        suppress: candidates to proposals; its ``max_detections`` is their number.
        topk: candidates of a level at most.

    Source: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015, arXiv:1506.01497
    """
    _check_takes(head, "num_priors", "dense head such as rpn")
    priors, boxes = prior.build(strides=strides), coder.build()
    objective = objective_of(
        criterion, 1, boxes, rpn, assigner=assigner, class_loss=class_loss, box_loss=box_loss, sample=sample
    )
    made = head.build(
        in_channels=in_channels,
        num_classes=1,
        num_priors=priors.per_cell,
        coder_size=boxes.size,
        branches=objective.branches,
    )
    return fitted(lambda: RegionProposals(made, priors, boxes, objective, suppress.build(), topk))


def _stage(
    pyramid: Any,
    num_classes: int,
    *,
    roi: Spec,
    head: Spec,
    coder: Spec,
    assigner: Spec,
    sample: Spec | None,
    class_loss: Spec,
    box_loss: Spec,
    criterion: Spec,
    class_boxes: bool,
) -> Stage:
    _check_takes(head, "num_boxes", "head of regions such as roi_box")
    if not getattr(criterion.target, "of_regions", False):
        raise ModelError(f"model.criterion: {criterion.name} wants the priors of a grid; regions learn with dense")
    if not getattr(assigner.target, "of_regions", False):
        raise ModelError(f"model.assigner: {assigner.name} wants the priors of a grid; regions learn with max_iou")
    boxes, draw = coder.build(), None
    if sample is not None and all(getattr(part.target, "by_priors", False) for part in (sample, assigner)):
        draw = Draw(assigner.build(), sample.build())
    objective = objective_of(
        criterion,
        num_classes,
        boxes,
        two_stage,
        assigner=assigner,
        class_loss=class_loss,
        box_loss=box_loss,
        sample=None if draw is not None else sample,
    )
    look = roi.build(strides=pyramid.strides)
    made = head.build(
        in_channels=pyramid.channels,
        num_classes=num_classes + bool(objective.background),
        coder_size=boxes.size,
        num_boxes=num_classes if class_boxes else 1,
        region_size=look.size,
    )
    return fitted(lambda: Stage(look, made, boxes, objective, draw))


def _check_takes(head: Spec, what: str, wanted: str) -> None:
    if what not in parameters(head.target):
        raise ModelError(f"{head.path or 'head'}: {head.name} is no {wanted}")


def _mask(
    head: Spec | None,
    roi: Spec,
    loss: Spec,
    weight: float,
    count: int | None,
    pyramid: Any,
    num_classes: int,
    first: Stage,
) -> MaskBranch | None:
    if head is None:
        return None
    if first.draw is None:
        raise ValueError("masks are learned by regions that are drawn before a head looks at them: model.sample=random")
    sample: Any = first.draw.sample
    masks = head.build(in_channels=pyramid.channels, num_classes=num_classes)
    most = int(sample.count * sample.positive) if count is None else count
    return MaskBranch(roi.build(strides=pyramid.strides), masks, loss.build(), pyramid.strides[0], most, weight)


PROPOSERS: dict[str, Callable[..., nn.Module]] = {"rpn": rpn, "windows": Windows}
"""Where the regions come from."""

REFINERS: dict[str, Callable[..., Mapping[str, Spec]]] = {"further": further}
"""Further stages."""
