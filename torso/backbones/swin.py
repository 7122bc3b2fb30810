"""Swin Transformer for pictures of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torso.backbones.timm import Timm


def swin(
    size: Literal["tiny", "small", "base", "large"] = "tiny",
    window: Literal[7, 12] = 7,
    levels: Sequence[int] = (2, 3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    drop_path: float = 0.0,
) -> Timm:
    """Swin Transformer: attention inside windows that shift from block to block, for pictures of any size.

    The picture is padded to whole patches of 4 px, every stage to whole windows; the features are cut to the picture.

    Args:
        size: ``tiny`` (28.288 M parameters with its classifier) to ``large`` (196.532 M).
        window: side of a window in cells; 12 (``base`` and ``large``) is what the models for 384 px were trained with.
        levels: levels to return; level ``l`` (2 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``swin_tiny_patch4_window7_224`` (...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the patch embedding and the first ``n`` stages.
        drop_path: rate of stochastic depth; the paper's are 0.2 to 0.5 from ``tiny`` up.

    Raises:
        ModelError: a size and window that do not go together, a level it does not have, weights that do not fit.

    Source: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021, arXiv:2103.14030 (timm's
        implementation)
    """
    model = f"swin_{size}_patch4_window{window}_{224 if window == 7 else 384}"
    options: dict[str, bool | int | float | str] = {"strict_img_size": False}
    return Timm(model, levels, weights, frozen_stages, drop_path=drop_path, options=options)
