"""The wiring of detectors that pair corners."""

from __future__ import annotations

from typing import Annotated

from torso.config import Role, Spec
from torso.models.corners import Corners
from torso.recipes.wiring import fitted, joined, objective_of


def corners(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    neck: Annotated[Spec, Role("neck")] = "identity",  # type: ignore[assignment]
    head: Annotated[Spec, Role("head")] = "corner",  # type: ignore[assignment]
    class_loss: Annotated[Spec, Role("loss")] = "heatmap_focal",  # type: ignore[assignment]
    box_loss: Annotated[Spec, Role("loss")] = "smooth_l1",  # type: ignore[assignment]
    criterion: Annotated[Spec, Role("criterion")] = "corner",  # type: ignore[assignment]
    suppress: Annotated[Spec, Role("suppress")] = "soft_nms",  # type: ignore[assignment]
    threshold: float = 0.0,
    topk: int = 100,
    pairs: int = 1000,
    distance: float = 0.5,
    peaks: int = 3,
    parts: tuple[int, int] = (3, 5),
    large: float = 150.0,
    normalize: Annotated[Spec | None, Role("transform")] = None,
) -> Corners:
    """A detector of corners: backbone, head, and how corners become boxes; a class loss and a loss of offsets.

    Args:
        num_classes: classes of the data (wired).
        backbone: pictures to features: one map, or several of one stride.
        neck: features to features of one stride.
        head: features to heatmaps, embeddings and offsets.
        class_loss: loss of the heatmaps.
        box_loss: loss of where in its cell a point is.
        criterion: how losses make an objective.
        suppress: boxes to detections.
        threshold: score below which two corners are no detection.
        topk: corners of each kind, and centres.
        pairs: boxes of two corners at most.
        distance: how far the embeddings of an object's corners are apart at most.
        peaks: side in cells of the window in which a point is the highest of its class.
        parts: of which the middle one has to have a centre: of small and of large boxes.
        large: the root of its area in pixels from above which a box is large.
        normalize: the first layer, such as ``normalize_robust``; by the backbone's mean and deviation when None.

    Source: own design; CornerNet, 2018, arXiv:1808.01244
    """
    body = backbone.build()
    pyramid = joined(backbone, body, neck)
    objective = objective_of(criterion, num_classes, None, corners, class_loss=class_loss, box_loss=box_loss)
    return fitted(
        lambda: Corners(
            body,
            pyramid,
            head.build(in_channels=pyramid.channels, num_classes=num_classes),
            objective,
            suppress.build(),
            num_classes=num_classes,
            threshold=threshold,
            topk=topk,
            pairs=pairs,
            distance=distance,
            peaks=peaks,
            parts=parts,
            large=large,
            normalize=None if normalize is None else normalize.build(),
        )
    )
