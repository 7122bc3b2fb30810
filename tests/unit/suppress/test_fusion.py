"""Fusion, ensembles and voting: by cases worked by hand and plain loops. Fusion is compared with its authors' too."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.unit.suppress.scenes import greedy, iou_of, rows, smooth
from torso.boxes.suppress import BatchedNMS, Ensemble, VarianceVoting, WeightedFusion, candidates
from torso.structures import Detections


def said(*found: tuple[list[float], float, int], size: int = 4) -> Detections:
    """The answer of one model about one picture."""
    boxes, scores, labels = torch.zeros(1, size, 4), torch.zeros(1, size), torch.zeros(1, size, dtype=torch.int64)
    for i, (box, score, label) in enumerate(found):
        boxes[0, i], scores[0, i], labels[0, i] = torch.tensor(box), score, label
    return Detections(boxes, scores, labels, scores > 0)


@pytest.mark.part("suppress/weighted_fusion")
def test_two_models_that_agree_are_one_box_between_them():
    first, second = said(([0, 0, 10, 10], 0.9, 1)), said(([0, 0, 12, 10], 0.3, 1), ([40, 40, 50, 50], 0.8, 1))
    found = rows(WeightedFusion(weights=(1, 1), max_detections=4).fuse([first, second]))
    assert found[0] == pytest.approx([0, 0, 10.5, 10, 0.6, 1])
    assert found[1] == pytest.approx([40, 40, 50, 50, 0.4, 1])  # one of two models saw it


@pytest.mark.part("suppress/weighted_fusion")
def test_classes_are_not_fused():
    found = WeightedFusion(weights=(1, 1)).fuse([said(([0, 0, 9, 9], 0.9, 1)), said(([0, 0, 9, 9], 0.9, 2))])
    assert sorted(row[5] for row in rows(found)) == [1, 2]


@pytest.mark.part("suppress/weighted_fusion")
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_touches_nothing_comes_through_to_the_bit(seed):
    boxes, scores, labels = smooth(1, 10, seed, torch.float32)
    boxes = boxes + torch.arange(10.0)[:, None] * 3
    order = scores[0].argsort(descending=True)
    found = WeightedFusion(max_detections=10)(boxes, scores, labels)
    assert torch.equal(found.boxes, boxes[:, order])
    assert torch.equal(found.scores, scores[:, order])


@pytest.mark.part("suppress/weighted_fusion")
def test_fusion_refuses_what_makes_no_sense():
    for arguments in ({"confidence": "sum"}, {"weights": (1.0, 0.0)}, {"overlap": 2.0}, {"topk": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            WeightedFusion(**arguments)
    with pytest.raises(ValueError, match="2 answers"):
        WeightedFusion().fuse([said(), said()])


class Guess(nn.Module):
    """A detector that says the same of every picture: at eight priors in two levels."""

    num_classes = 3

    def __init__(self, seed: int, priors: int = 8):
        super().__init__()
        boxes, _, _ = smooth(1, priors, seed=0)
        generator = torch.Generator().manual_seed(seed)
        self.boxes = boxes + torch.rand(boxes.shape, generator=generator, dtype=torch.float64) * 0.01
        self.scores = torch.rand(1, priors, 3, generator=generator, dtype=torch.float64)
        self.counts = (priors - 2, 2)

    def score(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        size = images.shape[0]
        return self.scores.expand(size, -1, -1), self.boxes.expand(size, -1, -1), self.counts

    def choose(self, scores: Tensor, boxes: Tensor, counts: tuple[int, ...], size: object = None) -> Detections:
        return BatchedNMS(max_detections=20)(*candidates(scores, boxes, counts, topk=10))

    def predict(self, images: Tensor) -> Detections:
        return self.choose(*self.score(images))


IMAGES = torch.zeros(2, 3, 8, 8)


def assert_same(found: Detections, expected: Detections) -> None:
    for one, other in zip(found[:4], expected[:4], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.part("suppress/ensemble")
@pytest.mark.parametrize("how", ["scores", "logits", "serial"])
def test_a_detector_with_itself_is_itself(how):
    model = Guess(1)
    assert_same(Ensemble([model, model], how, max_detections=20).predict(IMAGES), model.predict(IMAGES))


@pytest.mark.part("suppress/ensemble")
def test_means_are_of_scores_or_of_their_logits():
    models = [Guess(1), Guess(2)]
    boxes = 0.25 * models[0].boxes + 0.75 * models[1].boxes
    one, two = (model.scores for model in models)
    odds = (one / (1 - one)) ** 0.25 * (two / (1 - two)) ** 0.75
    for how, mean in (("scores", 0.25 * one + 0.75 * two), ("logits", odds / (1 + odds))):
        expected = models[0].choose(mean.expand(2, -1, -1), boxes.expand(2, -1, -1), models[0].counts)
        assert_same(Ensemble(models, how, weights=[1, 3])(IMAGES), expected)


@pytest.mark.part("suppress/ensemble")
def test_fusion_of_detectors_is_the_fusion_of_their_answers():
    models = [Guess(1), Guess(2, priors=11)]
    expected = WeightedFusion(0.6, weights=[2, 1], max_detections=30).fuse([model.predict(IMAGES) for model in models])
    assert_same(Ensemble(models, weights=[2, 1], overlap=0.6, max_detections=30)(IMAGES), expected)


@pytest.mark.part("suppress/ensemble")
def test_one_after_another_leaves_what_all_have_seen():
    first = said(([0, 0, 10, 10], 0.4, 1), ([20, 20, 30, 30], 0.9, 1), ([40, 40, 50, 50], 0.81, 2))
    second = said(([0, 0, 10, 11], 0.9, 1), ([20, 20, 30, 30], 0.9, 2), ([40, 40, 50, 50], 0.49, 2))
    ensemble = Ensemble([Guess(1), Guess(2)], "serial", max_detections=5)
    found = rows(ensemble.confirm([first, second]))
    assert found[0] == pytest.approx((40, 40, 50, 50, 0.63, 2))
    assert found[1] == pytest.approx((0, 0, 10, 10, 0.6, 1))
    assert len(found) == 2


@pytest.mark.part("suppress/ensemble")
def test_an_ensemble_says_what_does_not_fit():
    other = Guess(2)
    other.num_classes = 4
    with pytest.raises(ValueError, match="same classes"):
        Ensemble([Guess(1), other])
    with pytest.raises(ValueError, match="equal priors"):
        Ensemble([Guess(1), Guess(2, priors=9)], "scores")(IMAGES)
    with pytest.raises(ValueError, match="needs models"):
        Ensemble([])
    with pytest.raises(ValueError, match="weight"):
        Ensemble([Guess(1)], weights=[1, 2])
    with pytest.raises(ValueError, match="how"):
        Ensemble([Guess(1)], "stacked")


@pytest.mark.part("suppress/ensemble")
@pytest.mark.parametrize("how", ["logits", "serial"])  # the loop of fusion is compiled in test_contract
def test_an_ensemble_is_one_graph(how):
    torch.compiler.reset()
    ensemble = Ensemble([Guess(1), Guess(2)], how, max_detections=20)
    compiled = torch.compile(ensemble, fullgraph=True, backend="eager")
    assert_same(compiled(IMAGES), ensemble(IMAGES))


@pytest.mark.part("suppress/variance_voting")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), edges=st.booleans(), both=st.booleans())
def test_voting_equals_the_plain_loop(seed, edges, both):
    boxes, scores, labels = smooth(1, 30, seed)
    generator = torch.Generator().manual_seed(seed)
    variance = torch.randn(1, 30, 4, generator=generator, dtype=torch.float64)
    kept = greedy(boxes[0], scores[0], labels[0], lambda a, b: iou_of(a, b) > 0.4, per_class=both)
    part = VarianceVoting(0.4, 0.1, 40, per_class=both, deltas="edges" if edges else "centre")
    found = rows(part(torch.cat([boxes, variance], dim=-1), scores, labels))
    assert [row[4:] for row in found] == [(scores[0, i].item(), labels[0, i].item()) for i in kept]
    plain, log = boxes[0].tolist(), variance[0].tolist()
    for row, j in zip(found, kept, strict=True):
        for edge in range(4):
            top, bottom = 0.0, 0.0
            for i in range(30):
                overlap = iou_of(plain[i], plain[j])
                if overlap > 0 and (not both or labels[0, i] == labels[0, j]):
                    side = plain[i][2 + edge % 2] - plain[i][edge % 2]
                    one = (
                        math.exp(log[i][edge])
                        if edges
                        else math.exp(log[i][edge % 2]) + math.exp(log[i][2 + edge % 2]) / 4
                    )
                    weight = math.exp(-((1 - overlap) ** 2) / 0.1) / (side**2 * one)
                    top, bottom = top + weight * plain[i][edge], bottom + weight
            assert row[edge] == pytest.approx(top / bottom, rel=1e-9)


@pytest.mark.part("suppress/variance_voting")
def test_the_surer_box_draws_the_edge():
    # The better score is unsure of its right edge; the other one is sure of it.
    boxes = torch.tensor([[[0.0, 0, 10, 10, 0, 0, 8, 0], [0, 0, 12, 10, 0, 0, -8, 0]]])
    scene = boxes, torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, dtype=torch.int64)
    (row,) = rows(VarianceVoting(0.5, deltas="edges", max_detections=4)(*scene))
    assert row[2] > 11.9
    assert row[3] == 10


@pytest.mark.part("suppress/variance_voting")
def test_voting_survives_variances_of_any_size():
    boxes, scores, labels = smooth(1, 40, dtype=torch.float32)
    for size in (-300.0, 300.0):
        found = VarianceVoting()(torch.cat([boxes, torch.full((1, 40, 4), size)], dim=-1), scores, labels)
        assert found.boxes.isfinite().all()
        plain = VarianceVoting()(torch.cat([boxes, torch.zeros(1, 40, 4)], dim=-1), scores, labels)
        torch.testing.assert_close(found.boxes, plain.boxes, rtol=1e-4, atol=1e-5)  # a common factor cancels


@pytest.mark.part("suppress/variance_voting")
def test_variances_of_edges_are_those_of_the_deltas_through_the_coder():
    """With the coder itself: draw deltas, decode them, and look how far the edges spread."""
    from torso.boxes.coders import Delta

    generator = torch.Generator().manual_seed(0)
    log = torch.tensor([-8.0, -7.0, -7.5, -9.0], dtype=torch.float64)
    deltas = torch.randn(200_000, 4, generator=generator, dtype=torch.float64) * (log / 2).exp()
    prior = torch.tensor([[10.0, 20, 50, 100]], dtype=torch.float64)
    spread = Delta().decode(deltas, prior).var(dim=0)
    said = VarianceVoting()._of_edges(prior[None], log[None, None])[0, 0].exp()
    torch.testing.assert_close(said, spread, rtol=0.02, atol=0)


@pytest.mark.part("suppress/variance_voting")
def test_voting_refuses_what_makes_no_sense():
    for arguments in ({"deltas": "corners"}, {"sigma": 0.0}, {"topk": 0}, {"overlap": -0.1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            VarianceVoting(**arguments)
