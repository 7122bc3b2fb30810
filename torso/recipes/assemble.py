"""The wiring: what flows from one part to the next. One function a family of models, and one for data and for training.

The signatures are the schema of a recipe: the sections ``model``, ``data`` and ``train`` may hold exactly these
arguments.
What other parts decide (channels, strides, numbers of classes and priors) appears only here, never in a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from torch import nn

from torso.config import Role, Spec
from torso.criteria.classify import ClassifyCriterion
from torso.data.formats.voc_lists import voc_protocol
from torso.models import Classifier, Detector
from torso.recipes.classical import classical
from torso.recipes.corners import corners
from torso.recipes.query import query
from torso.recipes.two_stage import two_stage
from torso.recipes.wiring import fitted, joined, objective_of
from torso.train.optim import groups


def detector(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    neck: Annotated[Spec, Role("neck")] = "fpn",  # type: ignore[assignment]
    head: Annotated[Spec, Role("head")] = "retina",  # type: ignore[assignment]
    prior: Annotated[Spec, Role("prior")] = "anchors",  # type: ignore[assignment]
    coder: Annotated[Spec, Role("coder")] = "delta",  # type: ignore[assignment]
    assigner: Annotated[Spec, Role("assigner")] = "max_iou",  # type: ignore[assignment]
    class_loss: Annotated[Spec, Role("loss")] = "focal",  # type: ignore[assignment]
    box_loss: Annotated[Spec, Role("loss")] = "l1",  # type: ignore[assignment]
    suppress: Annotated[Spec, Role("suppress")] = "batched_nms",  # type: ignore[assignment]
    sample: Annotated[Spec | None, Role("sample")] = None,
    criterion: Annotated[Spec, Role("criterion")] = "dense",  # type: ignore[assignment]
    threshold: float = 0.05,
    topk: int = 1000,
    topk_of: Literal["level", "class"] = "level",
    score_powers: tuple[float, float, float] = (1.0, 1.0, 1.0),
    peaks: int | None = None,
    normalize: Annotated[Spec | None, Role("transform")] = None,
) -> Detector:
    """A dense detector: backbone, neck, head; priors and a coder; an assigner and two losses; a suppressor.

    Args:
        num_classes: classes of the data (wired).
        backbone: pictures to features.
        neck: features to features of equal channels.
        head: features to logits and deltas at every prior.
        prior: the boxes the head looks at.
        coder: deltas to boxes and back.
        assigner: says which prior learns which object.
        class_loss: loss of the class scores.
        box_loss: loss of deltas or boxes.
        suppress: candidates to detections.
        sample: which of the assigned priors learn, and how much; all of them when None.
        criterion: how assigner and losses make an objective: their weights, and what else is learned.
        threshold: score below which nothing is a detection.
        topk: candidates a level, or a class.
        topk_of: which of the two (SSD: class).
        score_powers: of class probability, objectness and quality in a score.
        peaks: side in cells of the window in which only the highest score of a class is a candidate.
        normalize: the first layer, such as ``normalize_robust``; by the backbone's mean and deviation when None.

    Source: own design.
    """
    body = backbone.build()
    pyramid = joined(backbone, body, neck)
    priors = prior.build(strides=pyramid.strides)
    boxes = coder.build()
    losses = {"class_loss": class_loss, "box_loss": box_loss}
    objective = objective_of(criterion, num_classes, boxes, detector, assigner=assigner, sample=sample, **losses)
    return fitted(
        lambda: Detector(
            body,
            pyramid,
            head.build(
                in_channels=pyramid.channels,
                strides=pyramid.strides,
                num_classes=num_classes + bool(objective.background),
                num_priors=priors.per_cell,
                coder_size=boxes.size,
                branches=objective.branches,
            ),
            priors,
            boxes,
            objective,
            suppress.build(),
            num_classes=num_classes,
            threshold=threshold,
            topk=topk,
            topk_of=topk_of,
            score_powers=score_powers,
            peaks=peaks,
            normalize=None if normalize is None else normalize.build(),
        )
    )


def classifier(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    head: Annotated[Spec, Role("head")] = "classify",  # type: ignore[assignment]
    class_loss: Annotated[Spec, Role("loss")] = "cross_entropy",  # type: ignore[assignment]
    normalize: Annotated[Spec | None, Role("transform")] = None,
) -> Classifier:
    """A classifier: backbone and head.

    Args:
        num_classes: classes of the data (wired).
        backbone: pictures to features; the head takes the last level.
        head: features to logits.
        class_loss: loss of the class of the picture.
        normalize: the first layer, such as ``normalize_robust``; by the backbone's mean and deviation when None.

    Source: own design.
    """
    body = backbone.build()
    top = head.build(in_channels=body.channels, num_classes=num_classes)
    first = None if normalize is None else normalize.build()
    return fitted(lambda: Classifier(body, top, ClassifyCriterion(class_loss.build()), num_classes, normalize=first))


def data(
    *,
    path: str,
    format: str | None = None,  # noqa: A002  the word users type
    options: dict[str, bool | int | float | str] | None = None,
    train: str = "train",
    val: str = "val",
    splits: str | None = None,
    agnostic: bool = False,
    protocol: Literal["voc07", "voc12", "voc12_val", "voc07+12", "voc07++12"] | None = None,
    size: int | tuple[int, int] = 640,
    batch: int = 16,
    workers: int = 2,
    transforms: Annotated[Sequence[Any], Role("transform")] = (),
    resize: Annotated[Sequence[Any], Role("transform")] = ("letterbox",),
    sampler: Annotated[Spec, Role("sampler")] = "random",  # type: ignore[assignment]
    close_mosaic: int = 0,
    multiscale: tuple[float, float] = (1.0, 1.0),
    proposals: str | Sequence[str] | None = None,
    masks: bool = False,
    mask_stride: int = 1,
    max_detections: int = 100,
    bits: Literal[8, 16] = 8,
    cache: int = 0,
    max_bad: float = 0.01,
) -> dict[str, Any]:
    """Which pictures, and how they become batches.

    Args:
        path: a VOCdevkit (or year) folder, a COCO folder, a YOLO folder or data.yaml, class folders; ``digits`` is
            built in.
        format: a name of ``torso parts format``; recognised from the folder where not given.
        options: the format's own, by name: ``{allow_outside: true}``.
        train: name of the split to learn from; ``train+val`` joins two.
        val: name of the split to judge with.
        splits: a file of ``torso data split`` that says which pictures are of which split.
        agnostic: objects are all of one class, ``object``, as proposals are (RPN).
        protocol: one of PASCAL VOC's: sets ``train`` and ``val`` for a VOCdevkit with VOC2007 and VOC2012.
        size: side of the network's input in pixels, or (width, height).
        batch: pictures a step.
        workers: processes that read pictures; the samples do not depend on it.
        transforms: augmentations of the training pictures, in order.
        resize: how a picture of any size becomes one of ``size``.
        sampler: which training pictures an epoch shows, in what order.
        close_mosaic: in so many last epochs no transform mixes pictures (mosaic, mix-up, copy-paste).
        multiscale: range of a factor of ``size`` that each batch draws.
        proposals: files of COCO results (``torso eval`` writes such) with boxes of the pictures of both splits, that a
            detector of two stages looks at instead of proposing some; at new pictures it looks as it is.
        masks: load the masks of objects too.
        mask_stride: of every so many rows and columns only; 4 makes masks 16 times smaller.
        max_detections: of a class in a picture, that are judged, > 10; 100 is COCO's rule. Pictures with more objects
            want more, here and in ``model.suppress``.
        bits: of a channel; 16 keeps what scans of 16 bits have.
        cache: megabytes of memory for decoded pictures.
        max_bad: share of unreadable pictures an epoch may have before training stops.
    """
    if protocol:
        train, val = voc_protocol(protocol.removeprefix("voc"))
    return dict(locals())


def training(
    *,
    epochs: int = 12,
    init: str | None = None,
    init_parts: Sequence[str] = (),
    init_drop: Sequence[str] = (),
    init_minimum: float = 0.5,
    freeze: Sequence[str] = (),
    optimizer: Annotated[Spec, Role("optimizer")] = "sgd",  # type: ignore[assignment]
    schedule: Annotated[Any, Role("schedule")] = "multistep",
    tricks: Annotated[Sequence[Any], Role("trick")] = (),
    backbone_factor: float = 1.0,
    slow: Sequence[str] = (),
    decay_norm_bias: bool = False,
    accumulate: int = 1,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    evaluate_every: int = 1,
    save_every: int | None = None,
    best: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """How the model learns.

    Args:
        epochs: passes over the training split.
        init: the weights to begin with: a run, a checkpoint, or a file of weights of torso, timm or torchvision. What
            does not fit begins anew, and a table says what.
        init_parts: sections of the model that they go into, ``[backbone]``; the whole model where not given.
        init_drop: patterns of names in the file that are left out, ``["head.*"]``.
        init_minimum: least share of the tensors that must fit, 0..1.
        freeze: patterns of parameters that stay as they are, ``["backbone.*", "!backbone.body.layer4.*"]``; ``!`` takes
            out again.
        optimizer: update rule.
        schedule: factor of the learning rate, per step.
        tricks: clipping, averaging of weights and the like.
        backbone_factor: factor of the backbone's learning rate.
        slow: patterns of parameters that learn with that factor, too, ``["*.sampling_offsets"]``.
        decay_norm_bias: weight decay on norms and biases too.
        accumulate: batches an optimizer step.
        precision: ``auto`` is bfloat16 where the processor has it, else float32.
        evaluate_every: epochs between evaluations.
        save_every: steps between checkpoints, beside the one at the end of each epoch.
        best: the metric that decides which checkpoint is kept as best.
        seed: of weights, order and augmentation.
        threads: threads of the processor torch may use.
        device: ``cpu``, ``cuda``, or ``auto``.
    """
    return dict(locals())


def parameter_groups(settings: dict[str, Any], model: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's parameter groups for a model, from the built ``train`` section."""
    rule: Spec = settings["optimizer"]
    return groups(
        model,
        lr=rule.args["lr"],
        weight_decay=rule.args.get("weight_decay", 0.0),
        backbone_factor=settings["backbone_factor"],
        slow=settings["slow"],
        decay_norm_bias=settings["decay_norm_bias"],
    )


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "detector": detector,
    "two_stage": two_stage,
    "corners": corners,
    "query": query,
    "classifier": classifier,
    "classical": classical,
}
