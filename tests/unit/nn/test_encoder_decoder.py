"""Encoder and decoder layers against torch's (without positions) and transformers' (with them)."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from torso import testing
from torso.nn.encoder_decoder import DecoderLayer, EncoderLayer

pytestmark = pytest.mark.part("attention/encoder_decoder")
RULES = {
    r"^look\.": "multihead_attn.",
    r"^attention\.": "self_attn.",
    r"^feed\.0\.": "linear1.",
    r"^feed\.3\.": "linear2.",
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_name(name: str) -> str:
    name = re.sub(r"^norms\.(\d)\.", lambda found: f"norm{int(found[1]) + 1}.", name)
    for ours, theirs in RULES.items():
        name = re.sub(ours, theirs, name)
    return name


def randomised(layer: nn.Module) -> nn.Module:
    """In float64, with norms and biases that are not 1 and 0."""
    layer = layer.double()
    for i, parameter in enumerate(layer.parameters()):
        if parameter.ndim == 1:
            parameter.data += random(*parameter.shape, seed=i) * 0.3
    return layer


def check_same(ours: nn.Module, theirs: nn.Module, mine: Tensor, other: Tensor, leaves: list[Tensor]) -> None:
    """Equal answers, and equal gradients of what came in and of all parameters."""
    torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    weight = torch.linspace(-1, 1, mine.numel(), dtype=torch.float64).view(mine.shape)
    parameters = dict(ours.named_parameters())
    there = dict(theirs.named_parameters())
    first = torch.autograd.grad((mine * weight).sum(), [*leaves, *parameters.values()])
    second = torch.autograd.grad((other * weight).sum(), [*leaves, *(there[torch_name(name)] for name in parameters)])
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("norm_first", [False, True])
def test_layers_without_positions_are_torchs(norm_first: bool) -> None:
    x, memory = random(2, 7, 16).requires_grad_(), random(2, 9, 16, seed=1).requires_grad_()
    padding = torch.arange(9) >= torch.tensor([[5], [9]])
    ours = randomised(EncoderLayer(16, 4, 24, 0.0, norm_first))
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, batch_first=True, norm_first=norm_first).double()
    theirs.load_state_dict({torch_name(name): value for name, value in ours.state_dict().items()})
    check_same(ours, theirs, ours(memory, padding=padding), theirs(memory, src_key_padding_mask=padding), [memory])
    ours = randomised(DecoderLayer(16, 4, 24, 0.0, norm_first))
    other = nn.TransformerDecoderLayer(16, 4, 24, 0.0, batch_first=True, norm_first=norm_first).double()
    other.load_state_dict({torch_name(name): value for name, value in ours.state_dict().items()})
    mine, expected = ours(x, memory, padding=padding), other(x, memory, memory_key_padding_mask=padding)
    check_same(ours, other, mine, expected, [x, memory])


def in_transformers(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of ours under the names of transformers' layers."""
    last = "final_layer_norm"
    for ours, theirs in {
        "attention.": "self_attn.",
        "look.": "encoder_attn.",
        "feed.0.": "mlp.fc1.",
        "feed.3.": "mlp.fc2.",
        "norms.0.": "self_attn_layer_norm.",
        "norms.1.": "encoder_attn_layer_norm.",
        "norms.2.": f"{last}.",
        "out_proj": "o_proj",
    }.items():
        name = name.replace(ours, theirs)
    if "in_proj_" not in name:
        return {name: tensor}
    return {name.replace("in_proj_", f"{part}_proj."): x for part, x in zip("qkv", tensor.chunk(3), strict=True)}


def test_positions_are_told_to_queries_and_keys_alone_as_in_transformers() -> None:
    from transformers import DetrConfig
    from transformers.models.detr.modeling_detr import DetrDecoderLayer, DetrEncoderLayer

    config = DetrConfig(d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, dropout=0.0)
    config.encoder_attention_heads = config.decoder_attention_heads = 4
    config._attn_implementation = "eager"
    x, memory = random(2, 7, 16), random(2, 9, 16, seed=1)
    places, position = random(1, 7, 16, seed=2), random(2, 9, 16, seed=3)
    padding = torch.arange(9) >= torch.tensor([[5], [9]])
    mask = torch.zeros(2, 1, 1, 9, dtype=torch.float64).masked_fill(padding[:, None, None], -1e30)
    for ours, theirs, arguments in (
        (EncoderLayer(16, 4, 24, 0.0), DetrEncoderLayer(config), (memory, mask, position)),
        (DecoderLayer(16, 4, 24, 0.0), DetrDecoderLayer(config), (x, None, position, places, memory, mask)),
    ):
        randomised(ours)
        state: dict[str, Tensor] = {}
        for name, value in ours.state_dict().items():
            own = name.replace("norms.1.", "norms.2.") if isinstance(ours, EncoderLayer) else name
            state |= in_transformers(own, value)
        theirs.double().load_state_dict(state)
        mine = ours(memory, position, padding) if len(arguments) == 3 else ours(x, memory, places, position, padding)
        torch.testing.assert_close(mine, theirs(*arguments), rtol=1e-10, atol=1e-10)


def test_with_norms_first_positions_are_added_to_what_is_normalised() -> None:
    x, memory, places, position = (
        random(2, 5, 8),
        random(2, 6, 8, seed=1),
        random(1, 5, 8, seed=2),
        random(1, 6, 8, seed=3),
    )
    layer = randomised(DecoderLayer(8, 2, 12, 0.0, norm_first=True))
    assert isinstance(layer, DecoderLayer)
    first, second, third = layer.norms
    y = first(x)
    after = x + layer.attention(y + places, y + places, y)[0]
    after = after + layer.look(second(after) + places, memory + position, memory)[0]
    after = after + layer.feed(third(after))
    torch.testing.assert_close(layer(x, memory, places, position), after)
    encoder = randomised(EncoderLayer(8, 2, 12, 0.0, norm_first=True))
    assert isinstance(encoder, EncoderLayer)
    y = encoder.norms[0](memory)
    after = memory + encoder.attention(y + position, y + position, y)[0]
    torch.testing.assert_close(encoder(memory, position), after + encoder.feed(encoder.norms[1](after)))


def test_nobody_looks_at_padding() -> None:
    memory, x = random(2, 9, 16), random(2, 4, 16, seed=1)
    padding = torch.arange(9) >= torch.tensor([[5], [8]])
    other = torch.where(padding[..., None], 1e3 * random(2, 9, 16, seed=2), memory)
    encoder, decoder = randomised(EncoderLayer(16, 4, 24, 0.0)), randomised(DecoderLayer(16, 4, 24, 0.0))
    kept = ~padding
    torch.testing.assert_close(encoder(memory, None, padding)[kept], encoder(other, None, padding)[kept])
    torch.testing.assert_close(decoder(x, memory, padding=padding), decoder(x, other, padding=padding))
    assert not torch.allclose(decoder(x, memory), decoder(x, other))


@pytest.mark.parametrize("norm_first", [False, True])
def test_layers_keep_the_contract(norm_first: bool) -> None:
    padding = torch.arange(9) >= torch.tensor([[5], [8]])
    testing.check_module(
        EncoderLayer(16, 4, 24, norm_first=norm_first), lambda: (torch.randn(2, 9, 16), torch.randn(1, 9, 16), padding)
    )
    testing.check_module(
        DecoderLayer(16, 4, 24, norm_first=norm_first),
        lambda: (torch.randn(2, 4, 16), torch.randn(2, 9, 16), torch.randn(4, 16), torch.randn(1, 9, 16), padding),
    )
