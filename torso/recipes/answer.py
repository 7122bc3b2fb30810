"""Predicting on pictures without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torso.boxes.draw import Pixels, draw
from torso.data.decode import decode
from torso.data.sheet import fitted, shaded
from torso.evaluate.matching import Ints
from torso.evaluate.pictures import CROWDED
from torso.evaluate.predictions import Predictions
from torso.recipes.artifact import Artifact, load
from torso.recipes.judge import write_json
from torso.recipes.looking import Looking, answers
from torso.recipes.sources import known_ids, pictures


def predict(
    path: str | Path,
    inputs: Sequence[str],
    *,
    out: str | Path | None = None,
    threshold: float | None = None,
    how: Looking | None = None,
) -> dict[str, Any]:
    """Answers for pictures, drawn and as JSON.

    Args:
        path: a run, a ``model.safetensors`` with its ``config.json``, or an exported file.
        inputs: pictures and folders of pictures.
        out: where drawn pictures and ``predictions.json`` go; ``<run>/predictions`` when ``None``.
        threshold: score below which a detection is left out; when ``None`` all are written, and those from the
            threshold of the best F1 on are drawn.
        how: mirrored, at scales, in windows; once, as the model learned to, when ``None``.

    Returns:
        ``out``, ``images``, ``skipped`` (pictures that could not be read, with reasons) and ``predictions``: rows of
        a COCO results file: original category ids and pixels; the image id is the original one of a picture of the
        data the model was trained on, and the path of any other.
    """
    artifact = load(path)
    data = artifact.recipe.data.build()
    ids = tuple(artifact.config["class_ids"])
    index = pictures(inputs, artifact.config["task"], artifact.classes, ids, known_ids(data))
    found, skipped = answers(artifact, {**data, "workers": 0, "proposals": None}, index, how)
    if threshold is not None and found.probabilities is None:
        found = found.of_rows(found.scores >= threshold)
    folder = Path(out) if out is not None else artifact.folder / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    rows = found.to_coco(index)
    drawn = draw_all(artifact, index.paths, found, folder, artifact.threshold if threshold is None else threshold)
    write_json(folder / "predictions.json", rows)
    return {
        "out": str(folder),
        "images": len(found.seen),
        "drawn": drawn,
        "skipped": [{"path": name, "reason": reason} for name, reason in skipped],
        "predictions": rows,
    }


def with_masks(pixels: Pixels, found: Predictions, rows: Ints) -> Pixels:
    """The picture, shaded with the masks of ``rows`` of the predictions if they have any; the surest on top."""
    if found.masks is None:
        return pixels
    order = rows[np.argsort(found.scores[rows], kind="stable")]
    size = pixels.shape[1], pixels.shape[0]
    return shaded(pixels, fitted([found.masks[row] for row in order.tolist()], size, pixels), found.labels[order])


def draw_all(artifact: Artifact, paths: Sequence[str], found: Predictions, folder: Path, threshold: float) -> list[str]:
    """A JPEG beside ``predictions.json`` for every picture; two of the same name get a number."""
    from PIL import Image

    written: list[str] = []
    for place, row in enumerate(found.seen.tolist()):
        pixels = decode(paths[row])
        if found.probabilities is None:
            mine = (found.image == row) & (found.scores >= threshold)
            pixels = with_masks(pixels, found, np.flatnonzero(mine))
            quiet = [""] * int(mine.sum()) if found.masks is not None and mine.sum() > CROWDED else None
            pixels = draw(
                pixels,
                found.boxes[mine],
                found.labels[mine],
                found.scores[mine],
                names=artifact.classes,
                captions=quiet,
            )
        else:
            best = int(np.argmax(found.probabilities[place]))
            caption = f"{artifact.classes[best]} {found.probabilities[place, best]:.2f}"
            height, width = pixels.shape[:2]
            pixels = draw(pixels, [[0, 0, width, height]], [best], captions=[caption])
        name, number = f"{Path(paths[row]).stem}.jpg", 2
        while name in written:
            name, number = f"{Path(paths[row]).stem}-{number}.jpg", number + 1
        Image.fromarray(pixels).save(folder / name, quality=90)
        written.append(name)
    return written
