"""Necks behind a backbone, exported for pictures of any size."""

from __future__ import annotations

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


@pytest.mark.part(
    "neck/asff", "neck/bifpn", "neck/channel_mapper", "neck/fpn", "neck/full_fpn", "neck/nasfpn", "neck/pan", "neck/spp"
)
@pytest.mark.part("neck/yolov3", "neck/yolov4")
@pytest.mark.parametrize(
    ("name", "options"), [*SMALL.items(), ("pan", {"fusion": "concat", "channels": None})], ids=[*SMALL, "pan-concat"]
)
def test_one_exported_graph_takes_any_size_and_number_of_pictures(name, options):
    model = Body(name, **options).eval()
    size = {0: torch.export.Dim("batch", max=64)} | {i: 64 * torch.export.Dim(f"d{i}", max=64) for i in (2, 3)}
    program = torch.export.export(model, (torch.rand(2, 3, 384, 256),), dynamic_shapes=(size,), strict=False).module()
    for shape in ((2, 3, 384, 256), (1, 3, 256, 512)):
        images = torch.rand(shape)
        for exported, eager in zip(program(images), model(images), strict=True):
            torch.testing.assert_close(exported, eager)
