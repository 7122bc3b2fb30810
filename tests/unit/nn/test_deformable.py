"""Multi-scale deformable attention against transformers' and against a slow reference."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from tests.unit.nn.same import check_exports, transfer
from torso import testing
from torso.nn.deformable import DeformableAttention, sample

SIZES = [(7, 5), (4, 3), (2, 2), (1, 1)]
CELLS = sum(height * width for height, width in SIZES)
pytestmark = pytest.mark.part("attention/deformable")


def theirs(channels: int, heads: int, levels: int, points: int) -> nn.Module:
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

    config = DeformableDetrConfig(d_model=channels, num_feature_levels=levels, disable_custom_kernels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like a power of two for its own kernels
        return DeformableDetrMultiscaleDeformableAttention(config, heads, points)


def inputs(numbers: int, channels: int = 12, levels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    make = {"generator": generator, "dtype": torch.float64}
    query = torch.randn(2, 6, channels, **make)
    # Some references lie outside, where the map reads as 0.
    reference = torch.rand(2, 6, levels, numbers, **make) * 1.2 - 0.1
    return query, reference, torch.randn(2, CELLS, channels, **make)


@pytest.mark.parametrize("numbers", [2, 4])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("heads", "points"), [(3, 4), (1, 1)])
def test_deformable_attention_equals_transformers(numbers: int, padded: bool, heads: int, points: int) -> None:
    ours, other = DeformableAttention(12, heads, 4, points).double(), theirs(12, heads, 4, points).double()
    transfer(ours, other)
    assert list(ours.state_dict()) == list(other.state_dict()), "transformers' weights load as they are"
    valid = torch.rand(2, CELLS, generator=torch.Generator().manual_seed(3)) > 0.3 if padded else None
    shapes = torch.tensor(SIZES)
    results = []
    for module in (ours, other):
        query, reference, value = (x.requires_grad_() for x in inputs(numbers))
        if module is ours:
            output = ours(query, reference, value, SIZES, valid)
        else:
            output, _ = other(
                query,
                attention_mask=valid,
                encoder_hidden_states=value,
                reference_points=reference,
                spatial_shapes=shapes,
                spatial_shapes_list=SIZES,
            )
        weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
        leaves = [query, reference, value, *module.parameters()]
        results.append([output, *torch.autograd.grad((output * weight).sum(), leaves)])
    for mine, their in zip(*results, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-9, atol=1e-9)


def by_hand(value: Tensor, sizes: list[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """Number after number: bilinear between the centres of cells, 0 outside."""
    batch, queries, heads, levels, points = weights.shape
    out = torch.zeros(batch, queries, heads, value.shape[-1], dtype=value.dtype)
    for b, q, h, level, p in torch.cartesian_prod(*map(torch.arange, (batch, queries, heads, levels, points))).tolist():
        height, width = sizes[level]
        start = sum(a * c for a, c in sizes[:level])
        x, y = (places[b, q, h, level, p] * torch.tensor([width, height]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[b, q, h, level, p]
                    out[b, q, h] += share * value[b, start + row * width + column, h]
    return out.flatten(2)


def test_sampling_equals_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, CELLS, 2, 3, generator=generator, dtype=torch.float64)
    places = torch.rand(2, 3, 2, 4, 2, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    places[0, 0, 0, :, 0] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 1.0], [-3.0, 9.0]], dtype=torch.float64)
    weights = torch.rand(2, 3, 2, 4, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(sample(value, SIZES, places, weights), by_hand(value, SIZES, places, weights))


def test_a_map_that_is_the_same_everywhere_is_seen_as_it_is() -> None:
    """Weights sum to 1 over levels and points, so a query well inside sees the constant."""
    attention = DeformableAttention(8, 2, 4, 2).double()
    for layer in (attention.value_proj, attention.output_proj):
        nn.init.eye_(layer.weight)
    sizes = [(64, 48), (48, 40), (32, 32), (16, 20)]
    value = torch.arange(8.0, dtype=torch.float64).expand(1, sum(h * w for h, w in sizes), 8)
    query = torch.randn(1, 3, 8, dtype=torch.float64)
    reference = torch.full((1, 3, 4, 2), 0.5, dtype=torch.float64)
    torch.testing.assert_close(attention(query, reference, value, sizes), value[:, :3])


def test_it_begins_like_the_paper() -> None:
    """Heads look in different directions, each point one cell farther, as transformers initialises it."""
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrPreTrainedModel

    ours, other = DeformableAttention(16, 8, 2, 3), theirs(16, 8, 2, 3)
    DeformableDetrPreTrainedModel._init_weights(DeformableDetrPreTrainedModel(DeformableDetrConfig()), other)
    for name, value in ours.state_dict().items():
        if name not in {"value_proj.weight", "output_proj.weight"}:
            torch.testing.assert_close(value, other.state_dict()[name])
    offsets = ours.sampling_offsets.bias.view(8, 2, 3, 2)
    torch.testing.assert_close(offsets[0, :, :, 0], torch.tensor([[1.0, 2.0, 3.0]] * 2))
    torch.testing.assert_close(offsets[2, :, :, 1], torch.tensor([[1.0, 2.0, 3.0]] * 2))
    for layer in (ours.value_proj, ours.output_proj):
        assert layer.weight.abs().max() <= math.sqrt(6 / 32), "Xavier"


class Fixed(nn.Module):
    """With sizes as part of the layer, as an exported model has them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = DeformableAttention(12, 3)

    def forward(self, query: Tensor, reference: Tensor, value: Tensor) -> Tensor:
        return self.attention(query, reference, value, SIZES)


@pytest.mark.parametrize("numbers", [2, 4])
def test_it_keeps_the_contract_and_exports(numbers: int) -> None:
    module = Fixed()
    testing.check_module(module, lambda: tuple(x.float() for x in inputs(numbers)))
    check_exports(module, *(x.float() for x in inputs(numbers)))


def test_pictures_and_queries_do_not_see_each_other() -> None:
    module = DeformableAttention(12, 3).double()
    query, reference, value = inputs(2)
    together = module(query, reference, value, SIZES)
    for picture in range(2):
        for number in (0, 5):
            rows = slice(picture, picture + 1), slice(number, number + 1)
            alone = module(query[rows], reference[rows], value[rows[:1]], SIZES)
            torch.testing.assert_close(together[rows], alone)


def test_what_does_not_fit_is_told() -> None:
    module = DeformableAttention(12, 3).double()
    query, reference, value = inputs(2)
    with pytest.raises(ValueError, match="got 3 numbers and 4 sizes"):
        module(query, torch.rand(2, 6, 4, 3), value, SIZES)
    with pytest.raises(ValueError, match="there must be 4 sizes, got 2 numbers and 3 sizes"):
        module(query, reference, value, SIZES[:3])
    with pytest.raises(ValueError, match="make 52 cells, but value has 51"):
        module(query, reference, value[:, 1:], SIZES)
    with pytest.raises(ValueError, match="got 5 heads for 12 channels"):
        DeformableAttention(12, 5)
