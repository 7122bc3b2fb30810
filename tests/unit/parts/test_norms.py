"""Norms worked by hand."""

from __future__ import annotations

import pytest
import torch

from torso.nn.norms import NORMS, Group


@pytest.mark.part("norm/batch")
def test_batch_norm_by_hand():
    """Values 1, 2, 3, 6: mean 3, biased variance 3.5 to normalise, unbiased 14 / 3 for the running statistics."""
    norm = NORMS["batch"](1).double()
    x = torch.tensor([1.0, 2, 3, 6], dtype=torch.float64).reshape(2, 1, 1, 2)
    expected = (x - 3) / (3.5 + 1e-5) ** 0.5
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)
    assert float(norm.running_mean) == pytest.approx(0.1 * 3, rel=1e-12)
    assert float(norm.running_var) == pytest.approx(0.9 * 1 + 0.1 * 14 / 3, rel=1e-12)
    norm.eval()
    torch.testing.assert_close(norm(x), (x - 0.3) / (0.9 + 1.4 / 3 + 1e-5) ** 0.5, rtol=1e-12, atol=1e-12)


@pytest.mark.part("norm/group")
def test_group_norm_by_hand():
    """32 channels are two groups of 16; each picture and group by itself, with the biased variance."""
    norm = NORMS["group"](32).double()
    x = torch.randn(2, 32, 3, 5, dtype=torch.float64)
    found = norm(x)
    for image in range(2):
        for rows in (slice(0, 16), slice(16, 32)):
            values = x[image, rows]
            mean = values.sum() / 240
            variance = ((values - mean) ** 2).sum() / 240
            torch.testing.assert_close(found[image, rows], (values - mean) / (variance + 1e-5) ** 0.5)
    assert not torch.allclose(found[0, 16:], (x[0, 16:] - x[0].mean()) / x[0].var(correction=0) ** 0.5)


@pytest.mark.part("norm/group")
@pytest.mark.parametrize(
    ("channels", "asked", "groups"), [(64, 16, 4), (16, 16, 1), (8, 16, 1), (24, 16, 2), (17, 16, 17), (48, 8, 6)]
)
def test_groups_of_a_number_of_channels(channels, asked, groups):
    norm = Group(channels, asked)
    assert norm.num_groups == groups
    assert norm(torch.rand(1, channels, 2, 2)).shape == (1, channels, 2, 2)
