"""A picture of the data itself: what the labels say, and what a recipe's augmentation makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torso.config import DataError
from torso.data import Index
from torso.data.decode import DecodeError
from torso.data.sheet import augmented, grid, labelled, legend
from torso.recipes.recipe import Recipe
from torso.recipes.sources import read, training_loader

TIMES = 4  # versions of a picture beside the original
PARTNERS = 16  # pictures that a mosaic has to choose from


def look(
    path: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    format: str | None = None,  # noqa: A002  the word users type
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    count: int = 12,
    side: int = 320,
    seed: int = 0,
) -> dict[str, Any]:
    """Draws pictures of a data set with their labels into one file; with a recipe also four augmented versions of each.

    Args:
        path: the data set.
        out: the PNG (or JPEG) that is written.
        split: which; the first the data set has when None.
        format: as in a recipe; recognised when None.
        recipe: a recipe whose ``data`` section is applied; the first column is the original.
        overrides: of the recipe.
        count: pictures.
        side: of a picture on the sheet, in pixels.
        seed: which pictures, and which augmentation.

    Returns:
        ``file``, ``split``, ``pictures`` (their paths) and ``skipped`` (path and reason of what cannot be read).

    Raises:
        DataError: the data set cannot be read, or not one picture of it.
    """
    from PIL import Image

    settings = [f"data.path={path}", *([f"data.format={format}"] if format else []), *overrides]
    data = Recipe.load(recipe or "demo", settings).data.build()
    split = split or (data["train"] if recipe else _first_split(data))
    index = read(data, split)
    chosen = np.random.default_rng(seed).permutation(len(index))
    rows, originals, skipped = _readable(index, chosen.tolist(), count, side)
    if not rows:
        raise DataError(
            f"{path}: none of the pictures tried can be read, the first: {skipped[0][1] if skipped else ''}"
        )
    cells, columns = originals, min(4, len(originals))
    if recipe:
        # All rows stay, those on the sheet first: a mosaic needs others.
        index = index.select([*rows, *(row for row in chosen.tolist() if row not in rows)])
        batch = max(len(rows), PARTNERS)
        cells, columns = _versions({**data, "workers": 0, "batch": batch}, index, originals, side, seed), TIMES + 1
    file = Path(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet = grid(cells, columns)
    if index.task in ("detect", "segment"):
        sheet = np.concatenate([sheet, legend(index.classes, sheet.shape[1], side)])
    Image.fromarray(sheet).save(file)
    return {"file": str(file), "split": split, "pictures": index.paths[: len(rows)], "skipped": skipped}


def _first_split(data: dict[str, Any]) -> str:
    from torso.data import recognise
    from torso.data.formats import FORMATS
    from torso.recipes.sources import locate

    where = locate(data["path"])
    splits = FORMATS[data["format"] or recognise(where)].splits(where)
    return "train" if "train" in splits or not splits else splits[0]


def _readable(
    index: Index, rows: Sequence[int], count: int, side: int
) -> tuple[list[int], list[Any], list[tuple[str, str]]]:
    """The first ``count`` rows whose pictures can be read, drawn; and what cannot."""
    found: list[int] = []
    cells = []
    skipped: list[tuple[str, str]] = []
    for row in rows:
        if len(found) == count or len(skipped) > 20:
            break
        try:
            cells.append(labelled(index, row, side))
            found.append(row)
        except DecodeError as error:
            skipped.append((index.paths[row], error.reason))
    return found, cells, skipped


def _versions(data: dict[str, Any], index: Index, originals: list[Any], side: int, seed: int) -> list[Any]:
    loader = training_loader(data, index, seed, shuffle=False)
    batches = [next(loader.epoch(epoch)) for epoch in range(TIMES)]
    cells = []
    for row, original in enumerate(originals):
        cells += [original, *(augmented(batch, row, index.classes, side) for batch in batches)]
    return cells
