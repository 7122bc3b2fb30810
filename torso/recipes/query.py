"""The wiring of detectors of queries."""

from __future__ import annotations

from typing import Annotated, Any

from torso.config import ModelError, Role, Spec
from torso.models.query import QueryDetector
from torso.recipes.wiring import fitted, joined, objective_of


def query(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    neck: Annotated[Spec, Role("neck")] = "identity",  # type: ignore[assignment]
    head: Annotated[Spec, Role("head")] = "detr",  # type: ignore[assignment]
    assigner: Annotated[Spec, Role("assigner")] = "hungarian",  # type: ignore[assignment]
    class_loss: Annotated[Spec, Role("loss")] = "cross_entropy",  # type: ignore[assignment]
    box_loss: Annotated[Spec, Role("loss")] = "l1",  # type: ignore[assignment]
    criterion: Annotated[Spec, Role("criterion")] = "query",  # type: ignore[assignment]
    suppress: Annotated[Spec, Role("suppress")] = "threshold",  # type: ignore[assignment]
    threshold: float = 0.0,
    topk: int = 100,
    one_class: bool = False,
    fill: int = 114,
    normalize: Annotated[Spec | None, Role("transform")] = None,
) -> QueryDetector:
    """A detector of queries: backbone, neck, and a head whose queries learn to find every object once.

    Args:
        num_classes: classes of the data (wired).
        backbone: pictures to features.
        neck: features to features.
        head: features to what every query says.
        assigner: says which query learns which object.
        class_loss: loss of the class scores.
        box_loss: loss of centre, width and height, or of boxes.
        criterion: how assigner and losses make an objective.
        suppress: candidates to detections; ``threshold`` lets all pass.
        threshold: score below which nothing is a detection.
        topk: pairs of query and class that the suppressor sees.
        one_class: a query answers with its best class only.
        fill: grey of the padding, which is no picture, 0..255.
        normalize: the first layer, such as ``normalize_robust``; by the backbone's mean and deviation when None.

    Raises:
        ModelError: a head that has no queries.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872
    """
    if not getattr(head.target, "of_queries", False):
        raise ModelError(f"a detector of queries needs a head of queries such as detr, not {head.name}")
    body = backbone.build()
    pyramid: Any = joined(backbone, body, neck)
    objective = objective_of(
        criterion, num_classes, None, query, assigner=assigner, class_loss=class_loss, box_loss=box_loss
    )
    return fitted(
        lambda: QueryDetector(
            body,
            pyramid,
            head.build(
                in_channels=pyramid.channels,
                strides=pyramid.strides,
                num_classes=num_classes + bool(objective.background),
            ),
            objective,
            suppress.build(),
            num_classes=num_classes,
            threshold=threshold,
            topk=topk,
            one_class=one_class,
            fill=fill,
            normalize=None if normalize is None else normalize.build(),
        )
    )
