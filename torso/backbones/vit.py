"""The plain Vision Transformer with a pyramid made from its one map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from torso.backbones.levels import chosen
from torso.backbones.padding import cut
from torso.backbones.timm import create, freeze
from torso.backbones.weights import body_weights
from torso.config import ModelError
from torso.nn.norms import Layer
from torso.structures import Features
from torso.weights import safe_load

PATCH, GRID = 16, 14  # pixels a patch; patches a side of the 224 px picture that most were trained with


class ViT(nn.Module):
    """A plain ViT with patches of 16 px, and the simple feature pyramid of ViTDet made from its last map.

    The transformer keeps one map of stride 16 from bottom to top. Transposed 2x2 convolutions make strides 8 and 4 of
    it, 2x2 max pooling stride 32; a 1x1 and a 3x3 convolution, each with a layer norm over the channels, end a level.
    Pictures of any size: they are padded to whole patches, and the position embeddings are resampled (bicubic) from the
    grid of the weights to that of the picture. Attention is global, so its cost grows with the square of the pixels.

    Args:
        size: ``tiny`` (192 channels, 12 blocks), ``small`` (384, 12), ``base`` (768, 12) or ``large`` (1024, 24).
        levels: levels to return, of 2 to 5; level ``l`` has stride ``2 ** l``.
        channels: channels of every level; ``None`` leaves out the convolutions that end a level: the levels then have a
            quarter, half, all and all of the transformer's channels.
        weights: path of a weight file of the whole timm model (``vit_base_patch16_224``, or one of another picture
            size), or ``None``. The class token stays in; the final norm and the classifier are left out, as in ViTDet.
        frozen_stages: 0 trains everything; ``n`` freezes the embeddings and the first ``n`` blocks.
        drop_path: rate of stochastic depth; ViTDet's is 0.1 for ``base``.

    Raises:
        ModelError: a level it does not have, weights that do not fit, more frozen stages than blocks.

    Source: An Image is Worth 16x16 Words, 2020, arXiv:2010.11929 (timm's implementation); the pyramid from Exploring
        Plain Vision Transformer Backbones for Object Detection, 2022, arXiv:2203.16527
    """

    def __init__(
        self,
        size: Literal["tiny", "small", "base", "large"] = "base",
        levels: Sequence[int] = (2, 3, 4, 5),
        channels: int | None = 256,
        weights: str | None = None,
        frozen_stages: int = 0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        levels = chosen(levels, range(2, 6), "vit")
        model = f"vit_{size}_patch16_224"
        self.body = create(
            model,
            drop_path_rate=drop_path,
            num_classes=0,
            global_pool="",
            img_size=PATCH * (grid_of(weights) if weights is not None else GRID),
            dynamic_img_size=True,
            dynamic_img_pad=True,
        )
        self.body.norm = nn.Identity()
        if weights is not None:
            self.body.load_state_dict(body_weights(weights, model, self.body.state_dict()))
        self.mean, self.std = self.body.pretrained_cfg["mean"], self.body.pretrained_cfg["std"]
        self.pyramid = SimplePyramid(self.body.embed_dim, levels, channels)
        self.channels, self.strides = self.pyramid.channels, [2**level for level in levels]
        depth = len(self.body.blocks)
        if not 0 <= frozen_stages <= depth:
            raise ModelError(f"frozen_stages={frozen_stages}, but {model} has {depth} blocks: choose 0 to {depth}")
        freeze(self.body, f"blocks.{frozen_stages - 1}" if frozen_stages else None, norms=False)

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        return cut(self.pyramid(self.trunk(images)), self.strides, *images.shape[-2:])

    def trunk(self, images: Tensor) -> Tensor:
        """What the last block gives for the patches: ``[B, C, ceil(H / 16), ceil(W / 16)]``."""
        height, width = (-(-side // PATCH) for side in images.shape[-2:])
        tokens = self.body.forward_features(images)[:, self.body.num_prefix_tokens :]  # [B, H W, C]
        features: Tensor = tokens.transpose(1, 2).unflatten(2, (height, width))
        return features


class SimplePyramid(nn.Module):
    """One map of stride 16 to maps of strides 4 to 32, each from that map alone: no top-down path.

    Args:
        in_channels: channels of the map.
        levels: levels to make, of 2 to 5.
        channels: channels of every level, or ``None`` for maps that are only resampled.

    Source: Exploring Plain Vision Transformer Backbones for Object Detection, 2022, arXiv:2203.16527
    """

    def __init__(self, in_channels: int, levels: Sequence[int], channels: int | None):
        super().__init__()
        resample: dict[int, list[nn.Module]] = {
            2: [
                nn.ConvTranspose2d(in_channels, in_channels // 2, 2, 2),
                Layer(in_channels // 2),
                nn.GELU(),
                nn.ConvTranspose2d(in_channels // 2, in_channels // 4, 2, 2),
            ],
            3: [nn.ConvTranspose2d(in_channels, in_channels // 2, 2, 2)],
            4: [],
            5: [nn.MaxPool2d(2, 2, ceil_mode=True)],
        }
        widths = {2: in_channels // 4, 3: in_channels // 2, 4: in_channels, 5: in_channels}
        self.channels = [channels or widths[level] for level in levels]
        self.levels = nn.ModuleList()
        for level in levels:
            layers = resample[level]
            if channels is not None:
                layers += [nn.Conv2d(widths[level], channels, 1, bias=False), Layer(channels)]
                layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), Layer(channels)]
            self.levels.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Features:
        """``[B, in_channels, h, w]`` to a map a level, of ``4 h`` to ``h / 2`` rows."""
        return [level(x) for level in self.levels]


def grid_of(weights: str) -> int:
    """Patches a side of the pictures that the position embeddings in a weight file are for.

    Raises:
        ModelError: the file cannot be read, or holds no position embeddings of a square grid and a class token.
    """
    # In a run of torso it is called backbone.body.pos_embed.
    positions = [x for name, x in safe_load(weights).items() if name.rpartition(".")[2] == "pos_embed"]
    tokens = int(positions[0].shape[1]) - 1 if positions else 0
    grid = math.isqrt(max(tokens, 0))
    if tokens < 1 or grid * grid != tokens:
        raise ModelError(f"weights {weights!r} hold no pos_embed of a ViT with a class token: they are another model's")
    return grid
