"""Priors and coders by hand, at their edges, and as an exported program sees them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torso.boxes.coders import Delta
from torso.boxes.priors import Anchors


@pytest.mark.part("prior/anchors")
def test_gold_counts():
    """38 x 38 x 9 = 12,996 anchors at stride 16 of a picture of 600 px; on every pixel 3,240,000."""
    anchors = Anchors([16])
    assert anchors.per_cell == [9]
    assert len(anchors([(38, 38)]).boxes) == 12_996
    assert len(Anchors([1])([(600, 600)]).boxes) == 3_240_000


@pytest.mark.part("prior/anchors")
def test_sizes_are_octaves_of_the_stride():
    anchors = Anchors([8, 16], scale=4, octaves=3, ratios=(1.0,), rounded=False)([(1, 1), (1, 1)]).boxes
    side = anchors[:, 2] - anchors[:, 0]
    expected = [s * 2 ** (i / 3) for s in (32, 64) for i in range(3)]
    torch.testing.assert_close(side, torch.tensor(expected))
    torch.testing.assert_close(anchors[:, :2], -anchors[:, 2:])


@pytest.mark.part("prior/anchors")
def test_ratio_is_height_by_width_and_keeps_the_area():
    anchors = Anchors([10], scale=2, octaves=1, ratios=(0.25, 1, 4), rounded=False)([(1, 1)]).boxes
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    torch.testing.assert_close(height / width, torch.tensor([0.25, 1, 4]))
    torch.testing.assert_close(height * width, torch.full((3,), 400.0))


@pytest.mark.part("prior/anchors")
def test_order_is_level_row_column_and_then_the_cell():
    anchors = Anchors([8, 32], offset=0.5)([(2, 3), (1, 2)]).boxes
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [(4, 4), (12, 4), (20, 4), (4, 12), (12, 12), (20, 12), (16, 16), (48, 16)]
    torch.testing.assert_close(centre, torch.tensor(expected).float().repeat_interleave(9, dim=0))


@pytest.mark.part("prior/anchors")
def test_sizes_must_fit_the_levels():
    with pytest.raises(ValueError, match="as many sizes on each of the 2 levels"):
        Anchors([8, 16], sizes=[[8, 16], [32]])
    with pytest.raises(ValueError, match="as many sizes on each of the 2 levels"):
        Anchors([8, 16], sizes=[[8, 16]])


@pytest.mark.part("prior/anchors", "coder/delta")
def test_exported_with_any_picture_size():
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prior, self.coder = Anchors([8]), Delta()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            priors = self.prior([(x.shape[-2], x.shape[-1])]).boxes
            return self.coder.decode(priors * 0.01, priors)

    height, width = torch.export.Dim("height", max=64), torch.export.Dim("width", max=64)
    module = Boxes()
    program = torch.export.export(module, (torch.rand(1, 3, 6, 9),), dynamic_shapes=({2: height, 3: width},))
    for size in ((6, 9), (13, 5), (7, 31)):
        x = torch.rand(1, 3, *size)
        assert torch.equal(program.module()(x), module(x))


@pytest.mark.part("coder/delta")
def test_deltas_by_hand():
    prior = torch.tensor([0.0, 0, 10, 20])
    box = torch.tensor([5.0, 5, 25, 15])  # centre (15, 10), 20 x 10
    expected = torch.tensor([1.0, 0, 2, 0.5]).log()
    expected[:2] = torch.tensor([1.0, 0])
    torch.testing.assert_close(Delta().encode(box, prior), expected)
    torch.testing.assert_close(Delta((10, 10, 5, 5)).encode(box, prior), expected * torch.tensor([10.0, 10, 5, 5]))
    torch.testing.assert_close(Delta((10, 10, 5, 5)).decode(expected * torch.tensor([10.0, 10, 5, 5]), prior), box)


@pytest.mark.part("coder/delta")
def test_wild_deltas_and_boxes_without_area_stay_finite():
    prior = torch.tensor([0.0, 0, 16, 16])
    deltas = torch.tensor([[0.0, 0, 1e6, 1e6]], requires_grad=True)
    decoded = Delta(max_ratio=8).decode(deltas, prior)
    torch.testing.assert_close(decoded, torch.tensor([[-56.0, -56, 72, 72]]))
    decoded.sum().backward()
    assert deltas.grad.isfinite().all()
    assert Delta().encode(torch.tensor([3.0, 3, 3, 3]), prior).isfinite().all()
