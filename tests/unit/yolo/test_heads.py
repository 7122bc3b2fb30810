"""The heads of the YOLO family: rows are the priors' rows, and what each layer says is what the sources say."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from torso.boxes.clusters import Grid, KMeans
from torso.heads import HEADS
from torso.heads.yolo import YOLO, AddCoordinates
from torso.heads.yolov1 import LocallyConnected, YOLOv1
from torso.heads.yolox import YOLOX

STRIDES, SIZES = [8, 16], [(6, 4), (3, 2)]
BRANCHES = ["objectness", "iou", "variance"]
OPTIONS = {"yolo": {"depth": 0}, "yolox": {"channels": 8, "depth": 0}, "yolov1": {"hidden": 8, "dropout": 0.0}}


def outputs(head: nn.Module, features: list[Tensor]) -> dict[str, Tensor]:
    logits, deltas, extra = head.eval()(features)
    return {"logits": logits, "deltas": deltas, **extra}


@pytest.mark.part("head/yolo", "head/yolox", "head/yolov1")
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_is_said_of_a_cell_stands_in_the_rows_of_its_priors(name: str) -> None:
    """An impulse in one cell changes the rows of the priors around that cell, and no others."""
    torch.manual_seed(0)
    prior = KMeans(STRIDES, "yolov2_coco")  # three on the finer level, two on the coarser one
    head = HEADS[name]([5, 5], 4, prior.per_cell, 4, BRANCHES, **OPTIONS[name]).double()
    boxes, strides = prior(SIZES)
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 / strides).floor()  # [P, 2] x, y
    start = 0
    for level, (height, width) in enumerate(SIZES):
        count = height * width * prior.per_cell[level]
        for y, x in ((0, 0), (height - 1, 0), (1, width - 1)):
            features = [torch.zeros(1, 5, *size, dtype=torch.float64) for size in SIZES]
            before = outputs(head, features)
            features[level][0, :, y, x] = torch.randn(5, dtype=torch.float64) * 9
            expected = torch.zeros(len(boxes), dtype=torch.bool)
            expected[start : start + count] = (cells[start : start + count] == torch.tensor([x, y])).all(dim=1)
            assert expected.sum() == prior.per_cell[level]
            for key, value in outputs(head, features).items():
                changed = (value != before[key])[0].reshape(len(boxes), -1).any(dim=1)
                assert torch.equal(changed, expected), key
        start += count


@pytest.mark.part("head/yolo", "head/yolox", "head/yolov1")
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_is_said_of_a_slot_stands_in_the_rows_of_that_slot(name: str) -> None:
    head = HEADS[name]([5], 4, [3], 4, BRANCHES, **OPTIONS[name])
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    for key, layer in head.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels % 3 == 0 and "class" not in key:
            layer.bias.data = torch.arange(3).repeat_interleave(layer.out_channels // 3).float()
    slot = torch.arange(3).repeat(6).float()  # six cells
    for key, value in outputs(head, [torch.zeros(1, 5, 2, 3)]).items():
        if key != "logits":
            assert (value[0].reshape(18, -1) == slot[:, None]).all(), key


@pytest.mark.part("head/yolo", "recipe/yolov3")
def test_separate_layers_are_one_layer_of_darknet() -> None:
    """YOLOv3: ``3 * (4 + 1 + 80)`` channels a cell, of which each prior has a row: box, objectness, classes."""
    torch.manual_seed(0)
    head = YOLO([8], 80, [3], 4, ["objectness"], depth=1).eval().double()
    said = head.predictions
    parts = [(said.box_deltas[0], 4), (said.branches[0]["objectness"], 1), (said.class_logits[0], 80)]
    whole = nn.Conv2d(16, 255, 1).double()
    for name in ("weight", "bias"):
        rows = [getattr(layer, name).unflatten(0, (3, size)) for layer, size in parts]
        getattr(whole, name).data = torch.cat(rows, dim=1).flatten(0, 1)
    x = torch.randn(2, 8, 13, 13, dtype=torch.float64)
    darknet = whole(head.towers[0](x)).reshape(2, 3, 85, 13, 13).permute(0, 3, 4, 1, 2).reshape(2, 507, 85)
    logits, deltas, extra = head([x])
    torch.testing.assert_close(torch.cat([deltas, extra["objectness"][..., None], logits], dim=-1), darknet)


@pytest.mark.part("head/yolox")
def test_yolox_decouples_classes_from_boxes_and_objectness() -> None:
    torch.manual_seed(0)
    head = YOLOX([6], 3, [1], 4, ["objectness"], channels=8)
    x = torch.randn(2, 6, 4, 4)
    towers = {"class": head.class_towers, "box": head.box_towers}
    for said, tower in (("logits", "class"), ("deltas", "box"), ("objectness", "box")):
        head.zero_grad()
        logits, deltas, extra = head([x])
        {"logits": logits, "deltas": deltas, "objectness": extra["objectness"]}[said].square().sum().backward()
        for name, layers in towers.items():
            learns = [bool(p.grad is not None and p.grad.any()) for p in layers.parameters()]
            assert all(learns) if name == tower else not any(learns), (said, name)


@pytest.mark.part("head/yolov1")
def test_slots_of_a_cell_share_its_classes_and_nothing_else() -> None:
    torch.manual_seed(0)
    head = YOLOv1([6], 3, [2], 4, ["objectness"], grid=(4, 5), hidden=16).eval()
    logits, deltas, extra = head([torch.randn(2, 6, 4, 5)])
    slots = logits.reshape(2, 20, 2, 3)
    assert torch.equal(slots[:, :, 0], slots[:, :, 1])
    assert len(slots[0, :, 0].unique(dim=0)) == 20
    for value in (deltas.reshape(2, 20, 2, 4), extra["objectness"].reshape(2, 20, 2)):
        assert (value[:, :, 0] != value[:, :, 1]).all()
    assert head.cells[0].class_logits.out_features + 20 * 2 * 5 == 4 * 5 * (2 * 5 + 3)  # S x S x (B * 5 + C)


@pytest.mark.part("head/yolov1")
def test_every_cell_sees_the_whole_picture_where_layers_are_fully_connected() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 4, 4, requires_grad=True)
    head = YOLOv1([6], 3, [1], grid=(4, 4), hidden=64).eval()
    head([x]).logits[0, 5].sum().backward()
    assert x.grad is not None
    assert x.grad.all()


@pytest.mark.part("head/yolov1")
def test_another_grid_is_refused_in_words() -> None:
    head = YOLOv1([6], 3, [2], grid=(7, 7), hidden=8)
    with pytest.raises(ValueError, match="a grid of 7 x 7 cells, but the picture gives 6 x 7"):
        head([torch.zeros(1, 6, 6, 7)])
    with pytest.raises(ValueError, match="single level, got 2"):
        YOLOv1([6, 6], 3, [2, 2], grid=(7, 7))


@pytest.mark.part("head/yolov1")
def test_the_locally_connected_layer_is_a_loop_over_cells() -> None:
    torch.manual_seed(0)
    layer = LocallyConnected(3, 5, (4, 6)).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    around = nn.functional.pad(x, (1, 1, 1, 1))
    found = layer(x)
    for row in range(4):
        for column in range(6):
            weight = layer.weight[row * 6 + column].T.reshape(5, 3, 3, 3)
            cell = (around[:, None, :, row : row + 3, column : column + 3] * weight).sum((2, 3, 4))
            torch.testing.assert_close(found[:, :, row, column], cell + layer.bias[:, row, column])
    head = YOLOv1([3], 2, [2], grid=(4, 6), first="local", hidden=5).double()
    assert head([x]).logits.shape == (2, 48, 2)


@pytest.mark.part("head/yolo", "head/yolox", "head/yolov1")
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_other_classes_leave_all_else(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name]([5, 5], 4, [2, 2], 4, BRANCHES, **OPTIONS[name])
    features = [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)]
    before = outputs(head, features)
    head.reset_classes(7)
    after = outputs(head, features)
    assert after.pop("logits").shape == (1, 40, 7)
    for key, value in after.items():
        assert torch.equal(value, before[key])


@pytest.mark.part("head/yolo")
def test_coordinates_are_two_channels_from_left_to_right_and_from_top_to_bottom() -> None:
    x, y = AddCoordinates()(torch.zeros(1, 1, 2, 4))[0, 1:]
    assert x.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert y.tolist() == [[-0.5] * 4, [0.5] * 4]
    torch.manual_seed(0)
    for coordinates, depends in ((False, False), (True, True)):
        head = YOLO([4], 2, [1], coordinates=coordinates).eval()
        logits = head([torch.ones(1, 4, 9, 9)]).logits.reshape(9, 9, 2)
        assert torch.allclose(logits[3, 3], logits[5, 5], atol=1e-7) != depends


@pytest.mark.part("head/yolo", "recipe/yolov4", "recipe/pp_yolo")
def test_what_comes_in_is_dropped_while_it_learns_only() -> None:
    torch.manual_seed(0)
    head = YOLO([4], 2, [1], depth=0, drop=partial(nn.Dropout, 0.5))
    x = [torch.ones(1, 4, 16, 16)]
    assert len(head.train()(x).logits.unique(dim=1)[0]) > 1
    assert len(head.eval()(x).logits.unique(dim=1)[0]) == 1


@pytest.mark.part("prior/grid", "head/yolox")
def test_a_grid_with_one_slot_fits_the_decoupled_head() -> None:
    prior = Grid(STRIDES)
    head = YOLOX([4, 4], 3, prior.per_cell, channels=4).eval()
    rows = head([torch.zeros(1, 4, 6, 4), torch.zeros(1, 4, 3, 2)]).logits.shape[1]
    assert rows == len(prior(SIZES).boxes) == 30
