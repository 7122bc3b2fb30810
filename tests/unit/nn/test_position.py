"""Positions against transformers' DETR and timm's vision transformers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.unit.nn.same import check, check_exports
from torso.nn.position import LearnedPosition, SinePosition, resample_position, sincos_position, sines


def padding() -> Tensor:
    """Two pictures of 9 x 7 cells: one whole, one of 5 x 6 with padding at the right and at the bottom."""
    valid = torch.ones(2, 9, 7, dtype=torch.bool)
    valid[1, 5:], valid[1, :, 6:] = False, False
    return valid


@pytest.mark.part("position/sine")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sines_equal_detr_and_deformable_detr(normalize: bool, masked: bool, dtype: torch.dtype) -> None:
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrSinePositionEmbedding
    from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

    features = torch.zeros(2, 3, 9, 7, dtype=dtype)
    valid = padding() if masked else None
    for offset, make in ((0.0, DetrSinePositionEmbedding), (-0.5, DeformableDetrSinePositionEmbedding)):
        theirs = make(16, temperature=20, normalize=normalize)
        ours = SinePosition(32, temperature=20, normalize=normalize, offset=offset if normalize else 0.0)
        expected = theirs(features.shape, features.device, dtype, valid)
        got = ours(features, valid)
        assert got.shape == ((2 if masked else 1), 32, 9, 7)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(got.expand_as(expected), expected, rtol=0, atol=tolerance)


@pytest.mark.part("position/sine")
def test_a_picture_has_the_same_positions_however_it_is_padded() -> None:
    sine = SinePosition(16)
    padded = sine(torch.zeros(2, 3, 9, 7), padding())
    torch.testing.assert_close(padded[1:, :, :5, :6], sine(torch.zeros(1, 3, 5, 6)))
    torch.testing.assert_close(padded[:1], sine(torch.zeros(1, 3, 9, 7)))


@pytest.mark.part("position/sine")
def test_a_position_is_the_formula_of_attention_is_all_you_need() -> None:
    encoding = SinePosition(16, normalize=False)(torch.zeros(1, 1, 4, 5, dtype=torch.float64))[0]
    for row in range(4):
        for column in range(5):
            for channel in range(16):
                place = (row if channel < 8 else column) + 1
                angle = place / 10000 ** (channel % 8 // 2 * 2 / 8)
                expected = math.cos(angle) if channel % 2 else math.sin(angle)
                assert float(encoding[channel, row, column]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.part("position/sine")
def test_moving_by_a_cell_turns_every_pair_by_the_same_angle() -> None:
    """Why sines: the encoding of a neighbour is a rotation of the own one."""
    encoding = SinePosition(16, normalize=False)(torch.zeros(1, 1, 1, 30, dtype=torch.float64))[0, 8:, 0]
    sine, cosine = encoding[0::2], encoding[1::2]
    angle = (1 / 10000 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8))[:, None]
    torch.testing.assert_close(sine[:, 1:], sine[:, :-1] * angle.cos() + cosine[:, :-1] * angle.sin())


@pytest.mark.part("position/sine")
def test_half_precision_counts_exactly_and_the_layer_exports() -> None:
    sine = SinePosition(16)
    wide = torch.zeros(1, 1, 2, 600)
    half = sine(wide.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, sine(wide).bfloat16())
    check_exports(sine, torch.zeros(2, 3, 9, 7), padding())
    compiled = torch.compile(sine, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.zeros(2, 3, 9, 7), padding()), sine(torch.zeros(2, 3, 9, 7), padding()))


@pytest.mark.part("position/sine")
@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 9)])
def test_fixed_positions_equal_timm(height: int, width: int) -> None:
    from timm.layers import build_sincos2d_pos_embed

    theirs = build_sincos2d_pos_embed([height, width], 16, temperature=100)
    torch.testing.assert_close(sincos_position(height, width, 16, 100), theirs, rtol=0, atol=1e-6)


@pytest.mark.part("position/sine")
def test_channels_that_do_not_divide_by_four_are_told() -> None:
    with pytest.raises(ValueError, match=r"channels must divide by 4 .* got 6"):
        SinePosition(6)
    with pytest.raises(ValueError, match=r"channels must divide by 4 .* got 6"):
        sincos_position(3, 3, 6)


@pytest.mark.part("position/learned")
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("size", [(7, 5), (14, 9), (3, 4), (5, 7)])
def test_resampling_equals_timm(prefix: int, size: tuple[int, int]) -> None:
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, prefix + 35, 6, generator=torch.Generator().manual_seed(0))
    theirs = resample_abs_pos_embed(table, list(size), [7, 5], prefix)
    ours = resample_position(table, size, (7, 5), prefix)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert ours.shape[1] == prefix + size[0] * size[1]
    half = resample_position(table.bfloat16(), size, (7, 5), prefix)
    torch.testing.assert_close(half, resample_abs_pos_embed(table.bfloat16(), list(size), [7, 5], prefix))


@pytest.mark.part("position/learned")
def test_tokens_of_a_vision_transformer_equal_timm() -> None:
    from timm.models.vision_transformer import VisionTransformer

    for height, width in ((4, 6), (5, 3)):
        theirs = VisionTransformer((32, 48), 8, 3, embed_dim=12, depth=1, num_heads=2, dynamic_img_size=True)
        ours = LearnedPosition(12, (4, 6), prefix=1)
        with torch.no_grad():
            ours.table.copy_(theirs.pos_embed.normal_())
            ours.tokens.copy_(theirs.cls_token.normal_())
        patches = torch.randn(2, height, width, 12)
        torch.testing.assert_close(ours(patches), theirs._pos_embed(patches))


@pytest.mark.part("position/learned")
@pytest.mark.parametrize("prefix", [0, 1])
def test_learned_positions_keep_the_contract(prefix: int) -> None:
    check(LearnedPosition(8, (4, 4), prefix), 2, 5, 3, 8)
    module = LearnedPosition(8, (4, 4), prefix)
    assert module(torch.randn(2, 5, 3, 8)).shape == (2, prefix + 15, 8)
    with torch.no_grad():
        module.table.zero_()
    x = torch.randn(2, 4, 4, 8)
    assert torch.equal(module(x)[:, prefix:], x.flatten(1, 2))


@pytest.mark.part("position/learned")
def test_learned_positions_begin_small() -> None:
    module = LearnedPosition(64, (14, 14), prefix=1)
    assert float(module.table.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert module.tokens.abs().max() < 1e-4


def test_sines_of_places_are_those_of_cells() -> None:
    """The middle of cell ``i`` of ``n`` is the place ``(i + 0.5) / n``, with the bands of Deformable DETR's cells."""
    of_cells = SinePosition(16, offset=-0.5)(torch.zeros(1, 1, 4, 5, dtype=torch.float64))
    middles = (torch.arange(4, dtype=torch.float64) + 0.5) / (4 + 1e-6)
    torch.testing.assert_close(sines(middles, 8), of_cells[0, :8, :, 0].T)
