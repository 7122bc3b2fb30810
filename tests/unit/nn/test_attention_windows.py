"""Shifted-window attention against torchvision's and timm's Swin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.nn.same import check, compare
from torso.nn.windows import WindowAttention


def as_torchvision(named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the index, and in our order."""
    order = ["relative_position_bias_table", "qkv.weight", "qkv.bias", "proj.weight", "proj.bias"]
    return {name: named[name] for name in order if name in named}


@pytest.mark.part("attention/shifted_window")
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 7), (4, 11), (3, 3)])
def test_windows_equal_torchvision_at_any_size(height: int, width: int, shift: int) -> None:
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    theirs = ShiftedWindowAttention(8, [4, 4], [shift, shift], 2)
    compare(WindowAttention(8, 2, 4, shift), theirs, 2, height, width, 8, convert=as_torchvision)


@pytest.mark.part("attention/shifted_window")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shift", [0, 3])
def test_windows_equal_timm_where_they_divide_the_map(shift: int, bias: bool) -> None:
    from timm.models.swin_transformer import SwinTransformerBlock

    block = SwinTransformerBlock(12, (14, 21), 3, window_size=7, shift_size=shift, qkv_bias=bias).double()

    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.block = block.attn, [block]  # the norms and the MLP around it are not compared

    def run(x: torch.Tensor) -> torch.Tensor:
        return block._attn(x)

    ours = WindowAttention(12, 3, 7, shift, bias)
    compare(ours, Theirs(), 2, 14, 21, 12, run=run)
    assert list(ours.state_dict()) == list(block.attn.state_dict()), "timm's weights load as they are"


@pytest.mark.part("attention/shifted_window")
def test_windows_keep_the_contract() -> None:
    check(WindowAttention(8, 2, 4, 2), 2, 9, 7, 8)


@pytest.mark.part("attention/shifted_window")
def test_a_cell_sees_its_window_and_nothing_else() -> None:
    """Shifted by 2: rows 0-1, 2-5, 6-9 and 10-11 of 12 are windows; the first and the last are rolled together."""
    attention = WindowAttention(4, 1, 4, 2).double()
    windows = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    x = torch.randn(1, 12, 12, 4, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (3, 11), (11, 5), (11, 11)):
        (seen,) = torch.autograd.grad(attention(x)[0, row, column].sum(), x)
        expected = (windows == windows[row])[:, None] & (windows == windows[column])[None]
        assert torch.equal(seen[0].ne(0).any(-1), expected)


@pytest.mark.part("attention/shifted_window")
def test_a_shift_lets_windows_hear_of_each_other() -> None:
    plain, shifted = WindowAttention(4, 1, 4).double(), WindowAttention(4, 1, 4, 2).double()
    x = torch.randn(1, 12, 12, 4, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(shifted(plain(x))[0, 4, 4].sum(), x)
    assert seen[0].ne(0).any(-1)[:8, :8].all()


@pytest.mark.part("attention/shifted_window")
@pytest.mark.parametrize(("heads", "shift"), [(3, 0), (2, 4), (2, -1)])
def test_heads_and_shifts_that_cannot_be_are_told(heads: int, shift: int) -> None:
    with pytest.raises(ValueError, match=rf"got {heads} heads for 8 channels and shift {shift} for window 4"):
        WindowAttention(8, heads, 4, shift)
