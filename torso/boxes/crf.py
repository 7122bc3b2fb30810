"""A fully connected CRF: class maps follow the edges of the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Numbers of one block of a picture's kernel: 32 MB of float32. A graph must not divide by the number of pictures.
BLOCK = 2**23


class DenseCRF(nn.Module):
    """Mean field of a CRF in which every pixel speaks with every other: those near by and of like colour agree.

    The energy of two pixels of different classes is
    ``appearance * exp(-d^2 / 2 spread^2 - c^2 / 2 colour^2) + smoothness * exp(-d^2 / 2 smooth_spread^2)`` with their
    distance ``d`` in pixels and ``c`` in colour (0..255). Kernels are not normalised, as in the paper's equations (its
    code can do both), and compatibility is Potts' model. Exact, no filtering: a step costs ``(H W)^2`` kernel values,
    so maps are small; enlarge the answer rather than the question.

    Args:
        iterations: steps of mean field.
        appearance: weight of the kernel of place and colour.
        spread: its width in pixels.
        colour: its width in colour, 0..255.
        smoothness: weight of the kernel of place alone.
        smooth_spread: its width in pixels.
        max_pixels: ``H W`` of the largest map taken; 128 x 128 pixels are 2.7e8 kernel values a step.

    Raises:
        ValueError: a width that is not above 0, or a map that is too large or not of the picture's size.

    Source: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, 2011, arXiv:1210.5644
    """

    def __init__(
        self,
        iterations: int = 5,
        *,
        appearance: float = 10.0,
        spread: float = 80.0,
        colour: float = 13.0,
        smoothness: float = 3.0,
        smooth_spread: float = 3.0,
        max_pixels: int = 128 * 128,
    ):
        super().__init__()
        if not min(spread, colour, smooth_spread) > 0:
            raise ValueError(f"widths of kernels must be above 0, got {spread}, {colour} and {smooth_spread}")
        if iterations < 0:
            raise ValueError(f"iterations must be at least 0, got {iterations}")
        self.iterations, self.max_pixels = iterations, max_pixels
        self.appearance, self.spread, self.colour = appearance, spread, colour
        self.smoothness, self.smooth_spread = smoothness, smooth_spread

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Class logits ``[B, C, H, W]`` and pictures ``[B, 3, H, W]`` in 0..255 to probabilities ``[B, C, H, W]``."""
        height, width = logits.shape[-2:]
        if images.shape[-2:] != logits.shape[-2:]:
            raise ValueError(f"picture and class map need one size, got {list(images.shape)} and {list(logits.shape)}")
        if height * width > self.max_pixels:
            raise ValueError(
                f"a dense CRF of {height} x {width} pixels: at most {self.max_pixels} are taken (max_pixels), because "
                "every pixel speaks with every other"
            )
        unary = logits.flatten(2)  # [B, C, N]
        place, look = self._features(images.to(unary.dtype))
        now = unary.softmax(dim=1)
        for _ in range(self.iterations):
            now = (unary + self._messages(now, place, look)).softmax(dim=1)
        return now.reshape(logits.shape)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """In units of the kernels' widths: the place ``[1, 2, N]``, and place and colour ``[B, 5, N]``."""
        height, width = images.shape[-2:]
        y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None].expand(height, width)
        x = torch.arange(width, device=images.device, dtype=images.dtype)[None, :].expand(height, width)
        place = torch.stack([x, y]).flatten(1).unsqueeze(0)
        look = [place.expand(images.shape[0], -1, -1) / self.spread, images.flatten(2) / self.colour]
        return place / self.smooth_spread, torch.cat(look, dim=1)

    def _messages(self, now: Tensor, place: Tensor, look: Tensor) -> Tensor:
        """What the others say to each pixel, ``[B, C, N]``, a block of listeners at a time."""
        count = now.shape[2]
        heard = []
        step = max(1, BLOCK // count)
        for start in range(0, count, step):
            block = slice(start, start + step)
            kernel = self.appearance * _gaussian(look[..., block], look)  # [B, n, N]
            kernel = kernel + self.smoothness * _gaussian(place[..., block], place)
            heard.append(torch.einsum("bij,bcj->bci", kernel, now))
        # Nobody speaks with himself, and the distance to himself is 0.
        return torch.cat(heard, dim=2) - (self.appearance + self.smoothness) * now

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"iterations={self.iterations}, appearance={self.appearance}, smoothness={self.smoothness}"


def _gaussian(some: Tensor, others: Tensor) -> Tensor:
    """``exp(-|f_i - f_j|^2 / 2)`` of features ``[B, F, n]`` and ``[B, F, N]``: ``[B, n, N]``."""
    # Difference by difference: |a|^2 + |b|^2 - 2ab would lose what is near, which is what counts.
    distance = torch.zeros_like(some[:, 0].unsqueeze(-1) * others[:, 0].unsqueeze(-2))
    for a, b in zip(some.unbind(1), others.unbind(1), strict=True):
        distance = distance + (a.unsqueeze(-1) - b.unsqueeze(-2)).square()
    return torch.exp(-0.5 * distance)
