"""Assignment by the overlap of priors and objects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.boxes.convert import area
from torso.structures import Assignment, DenseOutput, Targets

# Objects compared with all priors at a time: bounds memory at B x CHUNK x P floats, however crowded a picture is.
CHUNK = 32


class MaxIoU(nn.Module):
    """A prior learns the object it overlaps most from an IoU of ``positive`` on, and "nothing" below ``negative``.

    Args:
        positive: IoU from which a prior is positive, 0..1.
        negative: IoU below which a prior is negative; between the two it is not learned from.
        low_quality: every object also gets the priors that overlap it most, however little (but more than nothing),
            so that no object is left out. Such a prior learns the object that *it* overlaps most, as in torchvision.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative.

    Source: Faster R-CNN, 2015, arXiv:1506.01497; thresholds of RetinaNet, 2017, arXiv:1708.02002
        (torchvision's Matcher)
    """

    def __init__(
        self, positive: float = 0.5, negative: float = 0.4, low_quality: bool = True, ignore_overlap: float = 0.5
    ):
        super().__init__()
        if not 0 <= negative <= positive <= 1:
            raise ValueError(f"0 <= negative <= positive <= 1 expected, got negative={negative}, positive={positive}")
        self.positive, self.negative = positive, negative
        self.low_quality, self.ignore_overlap = low_quality, ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        priors, boxes = output.priors, targets.boxes.to(output.priors.dtype)
        shape = (len(boxes), len(priors))
        best = priors.new_full(shape, -1.0)  # [B, P]
        index = torch.zeros(shape, dtype=torch.int64, device=priors.device)
        forced = torch.zeros(shape, dtype=torch.bool, device=priors.device)
        ignored = torch.zeros(shape, dtype=torch.bool, device=priors.device)
        prior_area = area(priors)
        # Counted in chunks, the last one open: so the compiler keeps a graph a number of chunks, not of objects.
        chunks = -(-boxes.shape[1] // CHUNK)
        for chunk in range(chunks):
            start = chunk * CHUNK
            rows = slice(start, start + CHUNK if chunk < chunks - 1 else None)
            shared = _intersection(boxes[:, rows], priors)  # [B, m, P]
            union = (area(boxes[:, rows])[..., None] + prior_area - shared).clamp(min=torch.finfo(shared.dtype).tiny)
            overlap = (shared / union).masked_fill_(~targets.valid[:, rows, None], -1)
            value, place = overlap.max(dim=1)
            index = torch.where(value > best, place + start, index)
            best = torch.maximum(best, value)
            if self.low_quality:
                top = overlap.amax(dim=2, keepdim=True)
                forced |= ((overlap == top) & (top > 0)).any(dim=1)
            inside = shared / prior_area.clamp(min=torch.finfo(shared.dtype).tiny) >= self.ignore_overlap
            ignored |= (inside & targets.ignore[:, rows, None]).any(dim=1)
        positive = (best >= self.positive) | forced
        negative = (best < self.negative) & ~positive & ~ignored
        return Assignment(torch.where(positive, index, 0), positive, negative)


def _intersection(boxes: Tensor, priors: Tensor) -> Tensor:
    """Shared area of ``boxes [B, m, 4]`` and ``priors [P, 4]``: ``[B, m, P]``."""
    a = boxes[:, :, None]
    width = torch.minimum(a[..., 2], priors[:, 2]) - torch.maximum(a[..., 0], priors[:, 0])
    height = torch.minimum(a[..., 3], priors[:, 3]) - torch.maximum(a[..., 1], priors[:, 1])
    return width.clamp_(min=0).mul_(height.clamp_(min=0))
