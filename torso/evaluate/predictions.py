"""What a model says about every picture of a data set, in flat arrays and in pixels of the original pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torso.boxes.masks import paste
from torso.config import DataError
from torso.data.masks import encoded_window
from torso.structures import Batch, Detections

if TYPE_CHECKING:
    from torso.data.index import Index

Predict = Callable[..., Detections | Tensor]
Runs = dict[str, Any]
"""A mask ``{"size": [h, w], "counts": "..."}`` as COCO writes it."""
FORMAT = "torso predictions 1"


class Batches(Protocol):
    """What ``collect`` reads: the loader of a split, in order."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one pass."""
        ...


@dataclass(frozen=True)
class Predictions:
    """Answers in columns: K detections over S pictures, or one row of probabilities a picture.

    ``image`` holds rows of the data index (not image ids). ``seen`` names the rows that were looked at, each once: a
    picture without a detection is in ``seen`` only.
    """

    image: NDArray[np.int64]  # [K]
    boxes: NDArray[np.float64]  # [K, 4] xyxy, pixels of the original picture, inside it
    scores: NDArray[np.float64]  # [K] in 0..1
    labels: NDArray[np.int64]  # [K] in 0..C-1
    seen: NDArray[np.int64]  # [S]
    probabilities: NDArray[np.float64] | None = None  # [S, C], classification only
    masks: list[Runs] | None = None  # K compressed COCO run lengths over the original picture

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of(
        cls,
        image: Any = (),
        boxes: Any = (),
        scores: Any = (),
        labels: Any = (),
        *,
        seen: Any = None,
        probabilities: Any = None,
        masks: Sequence[Runs] | None = None,
    ) -> Predictions:
        """Predictions from anything numpy understands; ``seen`` is the pictures named in ``image`` unless given."""
        rows = np.asarray(image, dtype=np.int64).reshape(-1)
        table = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
        default = np.unique(rows) if table is None else np.arange(len(table))
        return cls(
            image=rows,
            boxes=np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            scores=np.asarray(scores, dtype=np.float64).reshape(-1),
            labels=np.asarray(labels, dtype=np.int64).reshape(-1),
            seen=np.asarray(default if seen is None else seen, dtype=np.int64).reshape(-1),
            probabilities=table,
            masks=None if masks is None else list(masks),
        )

    def of_rows(self, rows: Any) -> Predictions:
        """The detections of ``rows`` (indices, or ``[K]`` bool); all pictures stay ``seen``."""
        chosen = np.arange(len(self))[rows]
        return replace(
            self,
            image=self.image[chosen],
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            masks=None if self.masks is None else [self.masks[row] for row in chosen.tolist()],
        )

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """One from many (batches, machines); a picture that comes twice (padding of a shard) counts once, the first."""
        if not parts:
            return cls.of()
        kept: list[Predictions] = []
        known = np.zeros(1 + max(int(part.seen.max(initial=-1)) for part in parts), dtype=bool)
        for part in parts:
            first = np.zeros(len(part.seen), dtype=bool)
            first[np.unique(part.seen, return_index=True)[1]] = True
            first &= ~known[part.seen]
            fresh = np.isin(part.image, part.seen[first])
            known[part.seen] = True
            table = None if part.probabilities is None else part.probabilities[first]
            kept.append(replace(part.of_rows(fresh), seen=part.seen[first], probabilities=table))
        tables = [part.probabilities for part in kept if part.probabilities is not None]
        return cls(
            image=np.concatenate([part.image for part in kept]),
            boxes=np.concatenate([part.boxes for part in kept]),
            scores=np.concatenate([part.scores for part in kept]),
            labels=np.concatenate([part.labels for part in kept]),
            seen=np.concatenate([part.seen for part in kept]),
            probabilities=np.concatenate(tables) if tables else None,
            masks=[mask for part in kept for mask in part.masks or ()] if kept[0].masks is not None else None,
        )

    def to_coco(self, index: Index) -> list[dict[str, Any]]:
        """Rows of a COCO results file: original image ids, original category ids, xywh boxes in original pixels.

        For classification a row has the best class and its probability and no box; with masks a row has its
        ``segmentation`` too.
        """
        if self.probabilities is not None:
            best = self.probabilities.argmax(axis=1)
            return [
                {
                    "image_id": index.image_ids[row],
                    "category_id": int(index.class_ids[label]),
                    "score": float(self.probabilities[place, label]),
                }
                for place, (row, label) in enumerate(zip(self.seen.tolist(), best.tolist(), strict=True))
            ]
        xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        rows = zip(self.image.tolist(), xywh.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        found = [
            {
                "image_id": index.image_ids[image],
                "category_id": int(index.class_ids[label]),
                "bbox": box,
                "score": score,
            }
            for image, box, score, label in rows
        ]
        for row, mask in zip(found, self.masks or (), strict=self.masks is not None):
            row["segmentation"] = mask
        return found

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, exact to the last bit (`load` reads it back)."""
        path = Path(path)
        columns = {
            name: getattr(self, name) for name in ("image", "boxes", "scores", "labels", "seen", "probabilities")
        }
        lists = {name: None if column is None else column.tolist() for name, column in columns.items()}
        lists["masks"] = self.masks
        path.write_text(json.dumps({"format": FORMAT, **lists}), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what ``save`` wrote. Raises ``DataError`` if the file is something else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise KeyError("format")
            return cls.of(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{path} is not a file of predictions ({FORMAT!r} expected); write one with `torso eval`"
            raise DataError(message) from error


def collect(predict: Predict, loader: Batches, device: torch.device | str = "cpu") -> Predictions:
    """Run ``predict`` over every batch of ``loader`` and bring its answers back to the original pictures.

    Args:
        predict: images ``[B, 3, H, W]`` -> ``Detections`` or probabilities ``[B, C]``; a model's ``predict`` or an
            exported file's.
        loader: batches of a split; pictures that come twice count once. Where proposals are given, ``predict`` gets
            them beside the images.
        device: where ``predict`` wants its images.
    """
    parts = []
    with torch.no_grad():
        for batch in loader.epoch(0):
            given = () if batch.proposals is None else (batch.proposals.to(device),)
            answer = predict(batch.images.to(device), *given)
            if isinstance(answer, Tensor):
                table = answer.double().cpu().numpy()
                parts.append(Predictions.of(seen=batch.index.numpy(), probabilities=table))
            else:
                rows, matrices, sizes = (x.numpy() for x in (batch.index, batch.to_source, batch.source_size))
                parts.append(in_source(answer, rows, matrices, sizes))
    return Predictions.merge(parts)


def in_source(
    answer: Detections, rows: NDArray[np.int64], to_source: NDArray[np.float64], source_size: NDArray[np.int64]
) -> Predictions:
    """One batch of detections, without its padding, in pixels of the original pictures.

    Args:
        answer: of B pictures.
        rows: ``[B]`` of the data index.
        to_source: ``[B, 3, 3]`` affine, pixels of the boxes -> original pixels.
        source_size: ``[B, 2]`` width and height of the original pictures.
    """
    picture, place = (part.numpy() for part in torch.nonzero(answer.valid.cpu(), as_tuple=True))
    boxes = answer.boxes.double().cpu().numpy()[picture, place]
    matrices, sizes = to_source[picture], source_size[picture]
    masks = None
    if answer.masks is not None:
        said = answer.masks.double().cpu().numpy()[picture, place]
        masks = [
            encoded_window(*paste(*each[:3], tuple(each[3])), tuple(each[3]))
            for each in zip(said, boxes, matrices, sizes.tolist(), strict=True)
        ]
    return Predictions(
        image=rows[picture],
        boxes=back_to_source(boxes, matrices, sizes),
        scores=answer.scores.double().cpu().numpy()[picture, place],
        labels=answer.labels.cpu().numpy()[picture, place],
        seen=rows,
        masks=masks,
    )


def back_to_source(
    boxes: NDArray[np.float64], matrices: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Boxes of the network's input -> the smallest upright boxes of the original pictures, clipped to them.

    Args:
        boxes: ``[K, 4]`` xyxy pixels.
        matrices: ``[K, 3, 3]`` affine, network pixels -> original pixels, one for each box.
        sizes: ``[K, 2]`` width and height of the original pictures.
    """
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]  # [K, 4, 2]
    moved = corners @ matrices[:, :2, :2].swapaxes(1, 2) + matrices[:, None, :2, 2]  # [K, 4, 2]
    found = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    return np.asarray(np.clip(found, 0, np.tile(sizes, 2)), dtype=np.float64)
