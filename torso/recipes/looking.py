"""How a trained model looks at pictures when it answers: once, as it learned to, or mirrored, at scales, in windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from torso.boxes.suppress import BESIDE, Suppressor
from torso.config import DataError, RecipeError, parse, spec
from torso.data import Index
from torso.data.decode import DecodeError, decode
from torso.deploy.tiled import Tiled
from torso.evaluate.predictions import Predictions, collect, in_source
from torso.evaluate.tta import Looks
from torso.recipes.artifact import Artifact
from torso.recipes.sources import check_proposals, judging_loader, size_of

ENOUGH = 5  # pictures that cannot be read, and a hundredth of all, stop nothing


@dataclass(frozen=True)
class Looking:
    """Mirrored, at other scales, and window by window; all of it may be asked for at once.

    Args:
        flip: look mirrored, too.
        scales: factors of the network's input to look at beside 1.
        tiles: width of windows in pixels of the picture; the whole picture at once when None.
        overlap: share of a window that its neighbour sees too; 0.2 when None.
        whole: beside windows, look at the whole picture, too.
        merge: a suppressor as a recipe names it, ``ios_nms`` or ``{name: nms, overlap: 0.6}``, for looks and for
            windows; when None weighted fusion of looks, and batched NMS of windows.

    Raises:
        RecipeError: an argument outside its range, or one of windows without ``tiles``.
    """

    flip: bool = False
    scales: tuple[float, ...] = ()
    tiles: int | None = None
    overlap: float | None = None
    whole: bool = False
    merge: str | None = None

    def __post_init__(self) -> None:
        if self.tiles is None and (self.whole or self.overlap is not None):
            raise RecipeError("--overlap and --whole are about windows: say how wide they are with --tiles PIXELS")
        if self.tiles is not None and self.tiles < 1:
            raise RecipeError(f"--tiles is the width of a window in pixels, at least 1, got {self.tiles}")
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise RecipeError(f"--overlap is a share of a window, from 0 to below 1, got {self.overlap:g}")
        if not all(0 < scale < float("inf") for scale in self.scales):
            raise RecipeError(f"--tta takes factors above 0, got {', '.join(f'{scale:g}' for scale in self.scales)}")
        if self.merge is not None and self.once:
            raise RecipeError("--merge says what becomes of several looks: ask for some with --tta or --tiles")
        self.suppressor()

    @property
    def once(self) -> bool:
        """Nothing is asked for."""
        return not self.flip and not self.scales and self.tiles is None

    def suppressor(self) -> Suppressor | None:
        """The part that ``merge`` names."""
        if self.merge is None:
            return None
        tree = parse(self.merge, "--merge").plain()
        name = tree.get("name") if isinstance(tree, Mapping) else tree
        if name in BESIDE:
            raise RecipeError(f"--merge: {name} {BESIDE[name]}")
        part: Any = spec("suppress", tree, "--merge").build()
        if getattr(part, "extra", ()):
            raise RecipeError(f"--merge: {name} wants the {part.extra[0]} of every box, which an answer does not have")
        return part  # type: ignore[no-any-return]

    def model(self, model: Any) -> Any:
        """The model that looks again and again, or itself."""
        if not self.flip and not self.scales:
            return model
        try:
            return Looks(model, self.scales, self.flip, self.suppressor())
        except ValueError as error:  # weights of fusion that are not as many as the looks
            raise RecipeError(f"--merge: {error}") from error

    def told(self) -> dict[str, Any]:
        """What was asked for, for JSON."""
        return {key: value for key, value in asdict(self).items() if value not in (None, False, ())}


def looking(
    tta: str | None = None,
    tiles: int | None = None,
    overlap: float | None = None,
    whole: bool = False,
    merge: str | None = None,
) -> Looking | None:
    """What the words of the command line ask for; None where they ask for nothing.

    Args:
        tta: ``flip`` and factors, with commas: ``flip,0.8,1.2``.
        tiles: see `Looking`.
        overlap: see `Looking`.
        whole: see `Looking`.
        merge: see `Looking`.

    Raises:
        RecipeError: see `Looking`; or a word that is neither ``flip`` nor a number.
    """
    words = [word.strip() for word in tta.split(",")] if tta is not None else []
    scales = []
    for word in words:
        if word != "flip":
            try:
                scales.append(float(word))
            except ValueError:
                raise RecipeError(f"--tta takes flip and factors such as flip,0.8,1.2, got {word!r}") from None
    found = Looking("flip" in words, tuple(scales), tiles, overlap, whole, merge)
    return None if found.once else found


def answers(
    artifact: Artifact, data: dict[str, Any], index: Index, how: Looking | None = None
) -> tuple[Predictions, list[tuple[str, str]]]:
    """What a model says of every picture of an index, and which pictures could not be read, with reasons.

    Args:
        artifact: the model.
        data: the section of its recipe, built.
        index: the pictures.
        how: once, as it learned to, when None.

    Raises:
        RecipeError: windows for a model that is no detector; proposals for one that takes none.
        DataError: too many pictures cannot be read.
    """
    check_proposals(artifact.model, data)
    if how is not None and data["proposals"]:
        raise RecipeError("data.proposals are of pictures as they are: --tta and --tiles look at others")
    model = artifact.model if how is None else how.model(artifact.model)
    if how is None or how.tiles is None:
        loader = judging_loader(data, index)
        return collect(model.predict, loader), loader.skipped
    if artifact.config["task"] != "detect":
        raise RecipeError("--tiles is for detectors: the class of a whole picture cannot be told from its parts")
    tiled = Tiled(
        model,
        size_of(data),
        tile=how.tiles,
        overlap=0.2 if how.overlap is None else how.overlap,
        whole=how.whole,
        batch=data["batch"],
        merge=how.suppressor(),
        resize=data["resize"],
    )
    parts, skipped = [], []
    for row in range(len(index)):
        try:
            picture = decode(index.picture(row), bits=data["bits"])
        except DecodeError as error:
            skipped.append((index.paths[row], error.reason))
            if len(skipped) > max(ENOUGH, len(index) / 100):
                raise DataError(f"{index.root}: too many pictures cannot be read, the last is {error}") from error
            continue
        size = np.array([picture.shape[1::-1]])
        parts.append(in_source(tiled.predict(picture), np.array([row]), np.eye(3)[None], size))
    return Predictions.merge(parts), skipped
