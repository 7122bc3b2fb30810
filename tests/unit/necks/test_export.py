"""Necks behind a backbone, exported for pictures of any size, and compiled; with ``TORSO_SLOW=1`` all of them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torso.backbones import BACKBONES
from torso.necks import NECKS

SMALL: dict[str, dict[str, Any]] = {
    "asff": {},
    "bifpn": {"channels": 4, "repeats": 1},
    "channel_mapper": {"channels": 4, "extra": 1},
    "fpn": {"channels": 4},
    "full_fpn": {"channels": 4, "repeats": 1},
    "nasfpn": {"channels": 4, "repeats": 1},
    "pan": {"channels": 4, "extra": 1},
    "spp": {},
    "yolov3": {},
    "yolov4": {},
}


class Body(nn.Module):
    def __init__(self, name: str, **options: Any):
        super().__init__()
        self.backbone = BACKBONES["tiny"](widths=[2, 2, 4, 4], levels=[3, 4])
        self.neck = NECKS[name](self.backbone.channels, self.backbone.strides, **options)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.neck(self.backbone(images))


SLOW = pytest.mark.skipif(not os.environ.get("TORSO_SLOW"), reason="seconds for each: TORSO_SLOW=1")
CASES = [(name, options, name) for name, options in SMALL.items()]
CASES.append(("pan", {"fusion": "concat", "channels": None}, "pan-concat"))
QUICK = {"bifpn", "channel_mapper", "fpn", "nasfpn", "pan", "spp", "yolov4"}  # the others are made of the same pieces
ALL = pytest.mark.parametrize(
    ("name", "options"),
    [pytest.param(*case, id=key, marks=() if key in QUICK else SLOW) for *case, key in CASES],
)


@pytest.mark.part("neck/bifpn", "neck/channel_mapper", "neck/fpn", "neck/nasfpn", "neck/pan", "neck/spp", "neck/yolov4")
@ALL
def test_one_exported_graph_takes_any_size_and_number_of_pictures(name, options):
    model = Body(name, **options).eval()
    size = {0: torch.export.Dim("batch", max=64)} | {i: 64 * torch.export.Dim(f"d{i}", max=64) for i in (2, 3)}
    program = torch.export.export(model, (torch.rand(2, 3, 384, 256),), dynamic_shapes=(size,), strict=False).module()
    for shape in ((2, 3, 384, 256), (1, 3, 256, 512)):
        images = torch.rand(shape)
        for exported, eager in zip(program(images), model(images), strict=True):
            torch.testing.assert_close(exported, eager)


@SLOW
@pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES], ids=[case[2] for case in CASES])
def test_the_compiled_neck_says_the_same(name, options):
    torch.compiler.reset()  # it counts how often a function was compiled, whatever the object
    model = Body(name, **options).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for shape in ((2, 3, 96, 64), (1, 3, 100, 72)):
        images = torch.rand(shape)
        for fast, eager in zip(compiled(images), model(images), strict=True):
            torch.testing.assert_close(fast, eager)
