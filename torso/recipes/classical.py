"""The wiring of detectors that are not learned by gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torso.config import RecipeError, Role, Spec
from torso.models.classical import SlidingWindow
from torso.models.mining import Mining
from torso.nn.hog import HOG
from torso.recipes.recipe import Recipe


def classical(
    num_classes: int,
    *,
    shapes: Sequence[tuple[int, int]] = ((8, 8),),
    scales: Sequence[float] = (1.0, 0.75, 0.5),
    orientations: int = 9,
    cell: int = 8,
    block: int = 2,
    norm: Literal["l1", "l1_sqrt", "l2", "l2_hys"] = "l2_hys",
    root: bool = False,
    assigner: Annotated[Spec, Role("assigner")] = "max_iou",  # type: ignore[assignment]
    cost: float = 0.01,
    positives: int = 4,
    negatives: int = 20,
    limit: int = 20000,
    suppress: Annotated[Spec, Role("suppress")] = "batched_nms",  # type: ignore[assignment]
    threshold: float = 0.25,
    topk: int = 1000,
) -> SlidingWindow:
    """A detector from before networks: a sliding window, HOG, linear support vectors with mining of hard negatives.

    An epoch is a round of mining. There is no optimizer; see `torso.train.rounds`.

    Args:
        num_classes: classes of the data (wired).
        shapes: width and height of each kind of window in cells.
        scales: sides of the pictures of the pyramid, as shares of the network's input.
        orientations: bins of the directions of gradients.
        cell: side of a cell in pixels.
        block: side of a block in cells.
        norm: of a block.
        root: of the pixels first.
        assigner: says which window is of which object, and which are of none.
        cost: of a window on the wrong side of its plane: C of the support vector machine.
        positives: windows of an object at most.
        negatives: windows of nothing that a picture adds in a round at most, for each shape.
        limit: windows of nothing that are kept at most, for each shape.
        suppress: candidates to detections.
        threshold: score below which nothing is a detection; 0.5 is the plane.
        topk: candidates of a picture at most.

    Source: Histograms of Oriented Gradients for Human Detection, 2005
    """
    return SlidingWindow(
        HOG(orientations, cell, block, norm, root),
        assigner.build(),
        suppress.build(),
        Mining(cost, positives, negatives, limit),
        num_classes=num_classes,
        shapes=shapes,
        scales=scales,
        threshold=threshold,
        topk=topk,
    )


USED = ("epochs", "evaluate_every", "best", "seed", "threads", "device")
"""Of the section ``train`` what means something without an optimizer."""


def without_gradients(recipe: Recipe) -> None:
    """Refuse settings of ``train`` that would do nothing.

    Raises:
        RecipeError: there are some.
    """
    usual = Recipe.from_tree({**recipe.tree, "train": {"schedule": "constant"}}).tree["train"]
    idle = [key for key, value in recipe.tree["train"].items() if key not in USED and value != usual[key]]
    if idle:
        raise RecipeError(
            f"train.{idle[0]}: {recipe.model.name} finds its planes without gradients, so this would do nothing; of "
            f"train it takes {', '.join(USED)}"
        )
