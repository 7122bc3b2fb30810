"""The dense CRF against mean field pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torso.boxes import crf
from torso.boxes.suppress import DenseCRF


def mean_field(logits: Tensor, image: Tensor, part: DenseCRF) -> Tensor:
    """Algorithm 1 of the paper for one picture, as a loop over all pairs of pixels."""
    classes, height, width = logits.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    now = {p: logits[:, p[0], p[1]].softmax(0) for p in pixels}
    for _ in range(part.iterations):
        then = {}
        for y, x in pixels:
            heard = torch.zeros(classes, dtype=torch.float64)
            for v, u in pixels:
                if (v, u) == (y, x):
                    continue
                place = (y - v) ** 2 + (x - u) ** 2
                look = ((image[:, y, x] - image[:, v, u]) ** 2).sum().item()
                kernel = part.appearance * math.exp(-place / (2 * part.spread**2) - look / (2 * part.colour**2))
                kernel += part.smoothness * math.exp(-place / (2 * part.smooth_spread**2))
                heard += kernel * now[v, u]
            # Potts: every class pays for what is said for the others.
            compatible = torch.stack([heard.sum() - heard[c] for c in range(classes)])
            then[y, x] = (logits[:, y, x] - compatible).softmax(0)
        now = then
    return torch.stack([now[p] for p in pixels], dim=1).reshape(classes, height, width)


def case(batch: int = 2, classes: int = 3, height: int = 5, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, height, width, generator=generator, dtype=torch.float64)
    images = torch.randint(0, 256, (batch, 3, height, width), generator=generator).double()
    return logits, images


@pytest.mark.part("suppress/dense_crf")
@pytest.mark.parametrize("iterations", [0, 1, 4])
@pytest.mark.parametrize("block", [2**23, 60], ids=["whole", "chunks"])
def test_equals_mean_field_pixel_by_pixel(iterations, block, monkeypatch):
    monkeypatch.setattr(crf, "BLOCK", block)
    part = DenseCRF(iterations, appearance=0.4, spread=3.0, colour=60.0, smoothness=0.2, smooth_spread=1.5)
    logits, images = case()
    found = part(logits, images)
    for i in range(2):
        torch.testing.assert_close(found[i], mean_field(logits[i], images[i], part), rtol=1e-10, atol=1e-12)


@pytest.mark.part("suppress/dense_crf")
def test_a_wrong_pixel_follows_its_like_and_an_edge_stays():
    images = torch.zeros(1, 3, 12, 12)
    images[..., 6:] = 255  # left black, right white
    logits = torch.zeros(1, 2, 12, 12)
    logits[:, 0, :, :6], logits[:, 1, :, 6:] = 1.0, 1.0
    logits[0, :, 3, 2] = torch.tensor([0.0, 1.5])  # a pixel on the left that says right
    logits[0, :, 8, 7] = torch.tensor([0.2, 0.0])
    found = DenseCRF(appearance=1.0, smoothness=0.1)(logits, images).argmax(1)[0]
    assert not found[:, :6].any()
    assert found[:, 6:].all()


@pytest.mark.part("suppress/dense_crf")
def test_probabilities_are_finite_and_sum_to_one_in_one_graph_and_in_an_export():
    part, (logits, images) = DenseCRF(), case()
    logits, images = (logits * 50).float(), images.to(torch.uint8)
    found = part(logits, images)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 5, 6))
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(part, fullgraph=True, backend="eager")(logits, images), found)
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},) * 2
    exported = torch.export.export(part, (logits, images), dynamic_shapes=shapes, strict=False).module()
    torch.testing.assert_close(exported(logits[:1], images[:1]), found[:1])


@pytest.mark.part("suppress/dense_crf")
def test_gradients_reach_the_logits():
    logits, images = case(1, 2, 2, 3)
    part = DenseCRF(2, appearance=0.4, spread=3.0, colour=60.0)
    assert torch.autograd.gradcheck(lambda x: part(x, images), logits.requires_grad_())


@pytest.mark.part("suppress/dense_crf")
def test_maps_beyond_the_bound_are_refused():
    with pytest.raises(ValueError, match="at most 20"):
        DenseCRF(max_pixels=20)(*case())
    with pytest.raises(ValueError, match="one size"):
        DenseCRF()(case()[0], torch.zeros(2, 3, 9, 9))
    with pytest.raises(ValueError, match="widths"):
        DenseCRF(colour=0.0)
    with pytest.raises(ValueError, match="iterations"):
        DenseCRF(-1)
