"""A detector on pictures that are larger than what it looks at: window by window, and merged across the seams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from torso.boxes.greedy import BatchedNMS
from torso.boxes.ios_nms import pairwise_ios
from torso.boxes.mask_merge import merged_masks
from torso.boxes.suppress import Suppressor
from torso.data.decode import Pixels
from torso.data.render import render
from torso.data.scene import Edit
from torso.data.transforms.geometry import Letterbox
from torso.data.views import View, inverse, scaling, shifting, to_source
from torso.structures import Detections

SEAM = 2.0  # pixels of the network's input: a box that ends so near to a seam was cut there
CHUNK = 1 << 22  # pairs of boxes that are compared at once


class Piece(NamedTuple):
    """What was seen in one window, in pixels of the picture."""

    boxes: Tensor  # [K, 4] float64
    scores: Tensor  # [K]
    labels: Tensor  # [K]
    cut: Tensor  # [K] bool: ends at a seam
    masks: Tensor | None  # [K, S, S]


class Tiled:
    """A detector that looks at a large picture through windows that overlap.

    The windows are as large as the network's input, or ``tile`` pixels wide and scaled to it. They are spread evenly,
    and neighbours share at least ``overlap`` of a window: whatever is smaller than that lies whole in one of them. A
    picture that fits into one window is one look, as without windows.

    A box that ends at a seam may be half of an object. It is dropped where another window has the object whole: where
    most of it lies inside a box of its class that no seam cuts, or of two cut boxes inside the larger. What is left
    goes through ``merge``. An object larger than the overlap may stay in pieces, unless ``whole`` is asked for.

    Memory beside the picture is that of one batch of windows, whatever the size of the picture.

    Args:
        model: anything with ``predict``: a detector of torso, an exported file, several looks (`torso.evaluate.tta`).
        size: width, height of the network's input.
        tile: width of a window in pixels of the picture; its height follows the network's. ``size`` when None.
        overlap: share (0..1, less than 1) of a window that its neighbour sees too.
        whole: look at the whole picture as well, as without windows: for objects larger than the overlap.
        batch: windows at a time.
        merge: what all windows say to one answer; within each class, by IoU of at most 0.5, when None.
        inside: the share (0..1) of a cut box that lies inside another from which it is a part of it.
        resize: how a picture is fitted to the network when it is looked at as a whole; letterbox when empty.
        device: where the model wants its pictures.

    Raises:
        ValueError: an argument outside its range.

    Source: Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection, 2022, arXiv:2202.06934; what is
        done about cut boxes is our own.
    """

    def __init__(
        self,
        model: Any,
        size: tuple[int, int],
        *,
        tile: int | None = None,
        overlap: float = 0.2,
        whole: bool = False,
        batch: int = 8,
        merge: Suppressor | None = None,
        inside: float = 0.7,
        resize: Sequence[Edit] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= overlap < 1 or not 0 < inside <= 1:
            raise ValueError(f"overlap is a share from 0 to below 1, inside one of 0..1, got {overlap} and {inside}")
        if batch < 1 or (tile is not None and tile < 1):
            raise ValueError(f"batch and tile are at least 1, got {batch} and {tile}")
        self.model, self.size, self.batch, self.whole = model, size, batch, whole
        width, height = size
        self.tile = size if tile is None else (tile, max(round(tile * height / width), 1))
        self.overlap, self.inside, self.device = overlap, inside, device
        self.merge: Suppressor = BatchedNMS(0.5, max_detections=1000) if merge is None else merge
        self.resize = list(resize) if any(edit.fits for edit in resize) else [Letterbox(), *resize]

    def windows(self, width: int, height: int) -> NDArray[np.int64]:
        """The windows ``[N, 4]`` of a picture, xyxy pixels; a side that is shorter than a window is one."""
        across, down = (places(side, tile, self.overlap) for side, tile in zip((width, height), self.tile, strict=True))
        x, y = (corner.ravel() for corner in np.meshgrid(across, down))
        right, bottom = np.minimum(x + self.tile[0], width), np.minimum(y + self.tile[1], height)
        return np.stack([x, y, right, bottom], axis=1)

    def predict(self, picture: Pixels) -> Detections:
        """The objects on a picture ``[H, W, 3]``: a batch of one, boxes in its pixels; masks where the model has some.

        Raises:
            ValueError: the model is no detector.
        """
        height, width = picture.shape[:2]
        windows = self.windows(width, height)
        shown: list[tuple[View, NDArray[np.int64]]] = []
        everything = np.array([0, 0, width, height])
        if len(windows) == 1 or self.whole:
            shown.append((self._fitted(width, height), everything))
        if len(windows) > 1:
            shown += [(self._view(window, width, height), window) for window in windows]
        pieces = list(self._pieces(picture, shown))
        boxes, scores, labels, cut = (torch.cat(column) for column in list(zip(*pieces, strict=True))[:4])
        masks = [piece.masks for piece in pieces if piece.masks is not None]
        window_of = torch.cat([torch.full((len(p.scores),), i) for i, p in enumerate(pieces)])
        if len(pieces) > 1:
            scores = torch.where(parts_of_others(boxes, labels, cut, window_of, self.inside), 0.0, scores)
            answer = self.merge(boxes[None], scores[None], labels[None])
        else:  # nothing to merge: the answer is the model's own
            answer = Detections(
                boxes[None], scores[None], labels[None], torch.ones_like(scores[None], dtype=torch.bool)
            )
        if not masks:
            return answer
        said = Detections(boxes[None], scores[None], labels[None], scores[None] > 0, torch.cat(masks)[None])
        if len(pieces) == 1:
            return said
        overlap = getattr(self.merge, "overlap", 0.5)
        return answer._replace(masks=merged_masks(answer, [with_a_row(said)], overlap))

    def _fitted(self, width: int, height: int) -> View:
        """The whole picture, as the network sees it without windows."""
        view = View.of((width, height), self.size)
        generator = Generator().manual_seed(0)
        for edit in self.resize:
            view = edit(view, generator)
        return view

    def _view(self, window: NDArray[np.int64], width: int, height: int) -> View:
        """A window drawn over the network's input; where the picture ends before it, there is grey all round."""
        x, y = self.size[0] / self.tile[0], self.size[1] / self.tile[1]
        sides = (window[2:] - window[:2]) * (x, y)
        left, top = ((np.array(self.size) - sides) // 2).tolist()
        matrix = shifting(left, top) @ scaling(x, y) @ shifting(-float(window[0]), -float(window[1]))
        return View.of((width, height), self.size).then(matrix, self.size)

    def _pieces(self, picture: Pixels, shown: Sequence[tuple[View, NDArray[np.int64]]]) -> Iterator[Piece]:
        """What the model says of each window."""
        height, width = picture.shape[:2]
        for start in range(0, len(shown), self.batch):
            some = shown[start : start + self.batch]
            canvas = np.empty((len(some), self.size[1], self.size[0], 3), picture.dtype)
            drawn = [render(picture, view, canvas[i])[1] for i, (view, _) in enumerate(some)]
            with torch.no_grad():
                found = self.model.predict(torch.from_numpy(canvas).permute(0, 3, 1, 2).to(self.device))
            if isinstance(found, Tensor):
                raise ValueError("windows are for detectors: a class of the whole picture cannot be found in its parts")
            for i, (view, (_, window)) in enumerate(zip(drawn, some, strict=True)):
                kept = found.valid[i].cpu()
                boxes = found.boxes[i].cpu().double()[kept]
                yield Piece(
                    to_source(boxes, inverse(view.matrix), (width, height)),
                    found.scores[i].cpu().double()[kept],
                    found.labels[i].cpu()[kept],
                    ends_at_seam(boxes, view, window, (width, height)),
                    None if found.masks is None else found.masks[i].cpu()[kept],
                )


def places(side: int, tile: int, overlap: float) -> NDArray[np.int64]:
    """Where windows of ``tile`` pixels begin on a side, evenly spread from its one end to the other.

    Two neighbours share at least ``overlap`` of a window, rounded up to whole pixels, but always move by one.

    >>> places(1000, 400, 0.2).tolist()
    [0, 300, 600]
    """
    if side <= tile:
        return np.zeros(1, dtype=np.int64)
    step = max(tile - int(np.ceil(overlap * tile)), 1)
    last = -(-(side - tile) // step)
    return np.arange(last + 1) * (side - tile) // last


def ends_at_seam(boxes: Tensor, view: View, window: NDArray[np.int64], size: tuple[int, int]) -> Tensor:
    """Which boxes ``[K, 4]`` of the network's input end where their window ends and the picture goes on: ``[K]``."""
    width, height = size
    corners = view.matrix[:2, :2] @ window.reshape(2, 2).T + view.matrix[:2, 2:]  # [2, 2] of the window, drawn
    (x0, x1), (y0, y1) = corners.tolist()
    inner = window[0] > 0, window[1] > 0, window[2] < width, window[3] < height
    near = boxes[:, 0] <= x0 + SEAM, boxes[:, 1] <= y0 + SEAM, boxes[:, 2] >= x1 - SEAM, boxes[:, 3] >= y1 - SEAM
    cut = torch.zeros(len(boxes), dtype=torch.bool)
    for side, close in zip(inner, near, strict=True):
        cut |= close & bool(side)
    return cut


def parts_of_others(boxes: Tensor, labels: Tensor, cut: Tensor, windows: Tensor, inside: float) -> Tensor:
    """Which boxes are parts of others: cut, and inside a box of their class of another window that is more of it.

    Args:
        boxes: ``[K, 4]`` xyxy pixels of the picture.
        labels: ``[K]``.
        cut: ``[K]`` bool.
        windows: ``[K]``, which window a box comes from.
        inside: see `Tiled`.

    Returns:
        ``[K]`` bool.
    """
    part = torch.zeros_like(cut)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)
    rows = torch.nonzero(cut).flatten()
    order = torch.arange(len(boxes))
    for some in torch.split(rows, max(CHUNK // max(len(boxes), 1), 1)):
        larger = (size[some, None] < size) | ((size[some, None] == size) & (some[:, None] > order))
        more = ~cut | larger
        other = (labels[some, None] == labels) & (windows[some, None] != windows)
        # The smaller of the two is the cut one, or else it could not lie inside.
        within = (pairwise_ios(boxes[some], boxes) >= inside) & (size[some, None] <= size)
        part[some] = (more & other & within).any(dim=-1)
    return part


def with_a_row(found: Detections) -> Detections:
    """The same detections with at least one (padding) row, so that gathering needs no special case."""
    if found.scores.shape[1]:
        return found
    assert found.masks is not None
    side = found.masks.shape[-1]
    row = found.scores.new_zeros(len(found.scores), 1)
    boxes, masks = row.new_zeros(len(row), 1, 4), row.new_zeros(len(row), 1, side, side)
    return Detections(boxes, row, row.long(), row.bool(), masks)
