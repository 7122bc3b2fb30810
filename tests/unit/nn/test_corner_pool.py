"""Corner pooling against plain loops, as running maxima and as the maxima of longer and longer stretches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torso import testing
from torso.nn import corner_pool
from torso.nn.corner_pool import CenterPool, CornerPool, bottom_pool, left_pool, right_pool, top_pool

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "top": top_pool,
    "left": left_pool,
    "bottom": bottom_pool,
    "right": right_pool,
}


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(x: Tensor, side: str) -> Tensor:
    """Figure 3: the largest of what a corner sees in one direction."""
    found = torch.empty_like(x)
    for y in range(x.shape[2]):
        for c in range(x.shape[3]):
            seen = {"top": x[:, :, y:, c], "bottom": x[:, :, : y + 1, c]}
            seen |= {"left": x[:, :, y, c:], "right": x[:, :, y, : c + 1]}
            found[:, :, y, c] = seen[side].amax(dim=-1)
    return found


@pytest.mark.part("head/corner")
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (9, 7)])
@pytest.mark.parametrize("side", sorted(POOLS))
def test_every_cell_has_the_largest_it_sees(side: str, size: tuple[int, int]) -> None:
    x = maps(2, 3, *size)
    assert torch.equal(POOLS[side](x), slow(x, side))
    if min(size) > 1:
        assert torch.autograd.gradcheck(POOLS[side], (maps(1, 2, 3, 4).requires_grad_(),))


@pytest.mark.part("head/corner")
@pytest.mark.parametrize("length", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("dim", [2, 3])
def test_doubling_stretches_say_the_same(dim: int, length: int) -> None:
    x = maps(2, 3, length, length)
    expected = slow(x, "top" if dim == 2 else "left")
    for longest in (length, 32, corner_pool.LONGEST):
        assert torch.equal(corner_pool.onwards_by_doubling(x, dim, longest), expected)
    if length == 17:
        assert not torch.equal(corner_pool.onwards_by_doubling(x, dim, 16), expected), "too few steps are wrong"


class Four(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(pool(x) for pool in POOLS.values())


@pytest.mark.part("head/corner")
def test_onnx_pools_maps_of_any_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "pools.onnx"
    height, width = torch.export.Dim("h", min=1, max=9999), torch.export.Dim("w", min=1, max=9999)
    shapes = {"x": {2: height, 3: width}}
    exported = torch.export.export(Four(), (maps(2, 3, 6, 5).float(),), dynamic_shapes=shapes)
    torch.onnx.export(exported, dynamo=True, verbose=False, input_names=["x"]).save(str(path))
    session = onnxruntime.InferenceSession(str(path))
    for size in ((6, 5), (1, 33), (70, 9)):
        x = maps(2, 3, *size).float()
        for found, side in zip(session.run(None, {"x": x.numpy()}), POOLS, strict=True):
            np.testing.assert_array_equal(found, slow(x, side).numpy())


@pytest.mark.part("head/corner", "head/corner_triplets")
@pytest.mark.parametrize("corner", ["top_left", "bottom_right"])
@pytest.mark.parametrize("cascade", [False, True])
def test_a_corner_looks_along_both_of_its_sides(corner: str, cascade: bool) -> None:
    """Figures of the papers, step by step."""
    torch.manual_seed(0)
    pool = CornerPool(4, corner, pooled=3, cascade=cascade).double().eval()
    x = maps(2, 4, 6, 7)
    vertical, horizontal = pool.vertical(x), pool.horizontal(x)
    down, across = ("top", "left") if corner == "top_left" else ("bottom", "right")
    if cascade:
        vertical = pool.after_across(vertical + slow(pool.look_across(x), across))
        horizontal = pool.after_down(horizontal + slow(pool.look_down(x), down))
    pooled = slow(vertical, down) + slow(horizontal, across)
    both = (pool.joined.pooled(pooled) + pool.joined.shortcut(x)).relu()
    torch.testing.assert_close(pool(x), pool.joined.last(both))


@pytest.mark.part("head/corner_triplets")
def test_a_centre_sees_its_row_and_its_column() -> None:
    torch.manual_seed(0)
    pool = CenterPool(4, pooled=3).double().eval()
    x = maps(2, 4, 6, 7)
    column = slow(slow(pool.vertical(x), "top"), "bottom")
    row = slow(slow(pool.horizontal(x), "left"), "right")
    both = (pool.joined.pooled(column + row) + pool.joined.shortcut(x)).relu()
    torch.testing.assert_close(pool(x), pool.joined.last(both))


@pytest.mark.part("head/corner", "head/corner_triplets")
@pytest.mark.parametrize("cascade", [False, True])
def test_pooling_learns_and_is_one_graph(cascade: bool) -> None:
    testing.check_module(CornerPool(4, "top_left", 3, cascade), lambda: (torch.randn(2, 4, 6, 7),))
    testing.check_module(CenterPool(4, 3), lambda: (torch.randn(2, 4, 6, 7),))


@pytest.mark.part("head/corner")
def test_there_is_no_other_corner() -> None:
    with pytest.raises(ValueError, match="top_left or bottom_right, got 'top'"):
        CornerPool(4, "top")  # type: ignore[arg-type]
