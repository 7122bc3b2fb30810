"""The channel mapper against the input projection of Deformable DETR."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from transformers import DeformableDetrConfig, DeformableDetrModel, ResNetConfig

from tests.unit.necks.pyramids import compare, copy_in_order, pyramid, randomise
from torso.necks.channel_mapper import ChannelMapper
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 8, 10], [8, 16, 32]


def without_biases(theirs: nn.Module) -> nn.Module:
    """Its convolutions have biases although a norm follows; ours have none there."""
    others = copy.deepcopy(theirs)
    for mine, other in zip(theirs.modules(), others.modules(), strict=True):
        if isinstance(mine, nn.Conv2d):
            nn.init.zeros_(mine.bias)
            other.bias = None
    return others


@pytest.mark.part("neck/channel_mapper")
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_it_is_deformable_detrs_input_projection(extra):
    backbone = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, *CHANNELS], depths=[1] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )
    config = DeformableDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=64,
        num_feature_levels=3 + extra, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
        encoder_attention_heads=2, decoder_attention_heads=2, num_queries=2,
    )  # fmt: skip
    theirs = DeformableDetrModel(config).input_proj.double()
    ours = ChannelMapper(CHANNELS, STRIDES, 64, extra=extra, norm=partial(nn.GroupNorm, 32)).double()
    randomise(theirs)
    copy_in_order(without_biases(theirs), ours)

    def projected(features: list[Tensor]) -> list[Tensor]:
        levels = [theirs[i](x) for i, x in enumerate(features)]
        for i in range(extra):
            levels.append(theirs[3 + i](levels[-1] if i else features[-1]))
        return levels

    compare(ours, projected, pyramid(CHANNELS, STRIDES, (72, 104)))
    assert (ours.channels, ours.strides) == ([64] * (3 + extra), [8, 16, 32, 64, 128][: 3 + extra])


@pytest.mark.part("neck/channel_mapper")
def test_levels_do_not_see_each_other():
    neck = ChannelMapper(CHANNELS, STRIDES, [3, 4, 5], kernel=3).double()
    features = [x.requires_grad_() for x in pyramid(CHANNELS, STRIDES)]
    for i, output in enumerate(neck(features)):
        gradients = torch.autograd.grad(output.sum(), features, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [j == i for j in range(3)]
        assert output.shape[1] == neck.channels[i]


@pytest.mark.part("neck/channel_mapper")
def test_it_keeps_the_contract():
    check_neck(lambda c, s: ChannelMapper(c, s, 8, 3, extra=1, norm=nn.BatchNorm2d, activation=nn.ReLU))
    with pytest.raises(ValueError, match="odd kernel, got 0 and 2"):
        ChannelMapper(CHANNELS, STRIDES, kernel=2)
    with pytest.raises(ValueError, match=r"2 channels \[4, 6\] for 3 levels"):
        ChannelMapper(CHANNELS, STRIDES, [4, 6])
