"""The branch of masks: what it learns from, and from what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from torso.assigners.draw import Drawn
from torso.boxes.roi import RoIAlign
from torso.config import ModelError
from torso.heads import RoIMask
from torso.losses import L1, BinaryCrossEntropy
from torso.models.masks import MaskBranch
from torso.structures import Features, Targets
from torso.testing import check_module


def branch(count: int = 6, weight: float = 1.0) -> MaskBranch:
    torch.manual_seed(0)
    head = RoIMask([8, 8], 3, channels=6, depth=1)
    return MaskBranch(RoIAlign([4, 8], size=5), head, BinaryCrossEntropy(), 4, count, weight).double()


def case(objects: int = 4, regions: int = 12, side: int = 64) -> tuple[Features, Drawn, Targets]:
    generator = torch.Generator().manual_seed(objects)
    features = [torch.randn(2, 8, side // s, side // s, generator=generator, dtype=torch.float64) for s in (4, 8)]
    low = torch.rand(2, objects, 2, generator=generator, dtype=torch.float64) * 30
    boxes = torch.cat([low, low + 6 + torch.rand(2, objects, 2, generator=generator, dtype=torch.float64) * 24], dim=-1)
    masks = torch.rand(2, objects, side, side, generator=generator) > 0.5
    valid = torch.ones(2, objects, dtype=torch.bool)
    labels = torch.randint(0, 3, (2, objects), generator=generator)
    matched = torch.randint(0, objects, (2, regions), generator=generator)
    drawn = boxes.gather(1, matched.unsqueeze(-1).expand(-1, -1, 4))
    drawn = drawn + torch.randn(drawn.shape, generator=generator, dtype=torch.float64)
    positive = torch.arange(regions).expand(2, -1) < torch.tensor([[5], [2]])
    targets = Targets(boxes, labels, valid, ~valid, masks)
    return features, Drawn(drawn, torch.ones_like(positive), matched, positive), targets


@pytest.mark.part("head/roi_mask")
def test_the_loss_is_the_mean_over_all_cells_of_positive_regions() -> None:
    """Against the plain way: region by region, the object's own class, torchvision's crop of its mask."""
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    features, drawn, targets = case()
    model = branch(weight=2.0)
    (loss,) = model.losses(features, drawn, targets).values()
    costs = []
    for i in range(2):
        for j in torch.nonzero(drawn.positive[i]).flatten().tolist():
            row, box = drawn.matched[i, j], drawn.boxes[i, j]
            logits = model.head(model.roi([x[i : i + 1] for x in features], box[None, None]))[0, 0]
            wanted = project_masks_on_boxes(targets.masks[i], box[None], row[None], 10)[0]
            said = logits[targets.labels[i, row]].sigmoid()
            costs.append(-(wanted * said.log() + (1 - wanted) * (1 - said).log()))
    assert len(costs) == 7
    torch.testing.assert_close(loss, 2 * torch.stack(costs).mean())


@pytest.mark.part("head/roi_mask")
def test_no_positive_region_costs_nothing_and_teaches_nothing() -> None:
    features, drawn, targets = case()
    model = branch()
    nothing = drawn._replace(positive=torch.zeros_like(drawn.positive))
    (loss,) = model.losses(features, nothing, targets).values()
    loss.backward()
    assert loss == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.part("head/roi_mask")
@pytest.mark.parametrize("objects", [1, 10, 300])
def test_any_number_of_objects_is_finite(objects: int) -> None:
    features, drawn, targets = case(objects)
    model = branch()
    (loss,) = model.losses(features, drawn, targets).values()
    loss.backward()
    assert 0.3 < loss.item() < 3
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_no_object_at_all_is_finite() -> None:
    features, drawn, targets = case()
    empty = Targets(*(x[:, :0] for x in (targets.boxes, targets.labels, targets.valid, targets.ignore, targets.masks)))
    nobody = drawn._replace(matched=torch.zeros_like(drawn.matched), positive=torch.zeros_like(drawn.positive))
    assert branch().losses(features, nobody, empty.with_a_row())["mask"] == 0


def test_only_so_many_regions_learn() -> None:
    features, drawn, targets = case()
    few = drawn._replace(positive=drawn.positive & (torch.arange(12) < 3))
    a, b = (branch(count).losses(features, which, targets)["mask"] for count, which in ((3, drawn), (6, few)))
    torch.testing.assert_close(a, b)


def test_objects_of_mixed_pictures_count_what_they_weigh() -> None:
    features, drawn, targets = case()
    half = replace(targets, weights=torch.full((2, 4), 0.5))
    model = branch()
    torch.testing.assert_close(
        model.losses(features, drawn, half)["mask"] * 2, model.losses(features, drawn, targets)["mask"]
    )


def test_masks_of_every_so_many_pixels_teach_almost_the_same() -> None:
    features, drawn, targets = case()
    blots = torch.nn.functional.interpolate(torch.rand(2, 4, 5, 5), size=64, mode="bicubic") > 0.5
    model = branch()
    losses = [
        model.losses(features, drawn, replace(targets, masks=blots[..., s // 2 :: s, s // 2 :: s]))["mask"].item()
        for s in (1, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.part("head/roi_mask")
def test_the_head_keeps_the_contract_of_parts() -> None:
    check_module(RoIMask([8], 3, channels=6, depth=1), lambda: (torch.rand(2, 3, 8, 4, 4),))
    assert RoIMask([8], 3, channels=6, depth=0)(torch.rand(2, 3, 8, 4, 4)).shape == (2, 3, 3, 8, 8)


@pytest.mark.part("head/roi_mask")
def test_other_classes_leave_the_rest_as_it_is() -> None:
    head = RoIMask([8], 3, channels=6, depth=2)
    before = {name: x.clone() for name, x in head.state_dict().items()}
    head.reset_classes(5)
    assert head(torch.rand(1, 2, 8, 4, 4)).shape == (1, 2, 5, 8, 8)
    after = head.state_dict()
    assert [name for name in before if before[name].shape != after[name].shape] == [
        "class_masks.weight",
        "class_masks.bias",
    ]
    assert all(torch.equal(x, after[name]) for name, x in before.items() if "class_masks" not in name)


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    features, drawn, targets = case()
    with pytest.raises(ModelError, match=r"set data\.masks=true"):
        branch().losses(features, drawn, replace(targets, masks=None))
    head: RoIMask = RoIMask([8, 8], 3, channels=6, depth=1)
    with pytest.raises(ValueError, match="a loss of scores such as binary_cross_entropy"):
        MaskBranch(RoIAlign([4, 8]), head, L1(), 4)
    with pytest.raises(ValueError, match="a head of masks such as roi_mask"):
        MaskBranch(RoIAlign([4, 8]), torch.nn.Identity(), BinaryCrossEntropy(), 4)
    with pytest.raises(ValueError, match="1 region of a picture or more"):
        MaskBranch(RoIAlign([4, 8]), head, BinaryCrossEntropy(), 4, count=0)


def test_the_branch_is_one_graph() -> None:
    features, drawn, targets = case(300)
    model = branch()

    def both(features: Features, boxes: Tensor) -> Tensor:
        said = model(features, boxes, targets.labels[:, :12])
        return model.losses(features, drawn._replace(boxes=boxes), targets)["mask"] + said.sum()

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(features, drawn.boxes), both(features, drawn.boxes))
