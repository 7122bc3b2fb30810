"""A whole detector out of ordinary constructors, and two steps of training without anything hidden.

Run it anywhere: ``python examples/detector_by_hand.py``
"""

from __future__ import annotations

import tempfile
from itertools import islice

import torch

from torso.assigners import MaxIoU
from torso.backbones import Tiny
from torso.boxes.coders import Delta
from torso.boxes.priors import Anchors
from torso.boxes.suppress import BatchedNMS
from torso.criteria import DenseCriterion
from torso.data import digits, open_index
from torso.data.loader import Loader
from torso.data.transforms import HorizontalFlip
from torso.heads import Retina
from torso.losses import Focal, GIoU
from torso.models import Detector
from torso.necks import FPN

torch.manual_seed(0)

backbone = Tiny(widths=(16, 32, 64, 64), levels=(3, 4))
neck = FPN(backbone.channels, backbone.strides, channels=32, extra=0)
anchors = Anchors(neck.strides)
head = Retina(neck.channels, num_classes=10, num_priors=anchors.per_cell, depth=1)
coder = Delta()
criterion = DenseCriterion(MaxIoU(), Focal(), GIoU(), coder)
model = Detector(backbone, neck, head, anchors, coder, criterion, BatchedNMS(), num_classes=10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

with tempfile.TemporaryDirectory() as folder:
    digits.make(folder, count=16, size=96)
    loader = Loader(open_index(folder), [HorizontalFlip()], size=(96, 96), batch=4, workers=0, seed=0, shuffle=True)
    for batch in islice(loader.epoch(0), 2):
        losses = model.losses(batch)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        print({name: round(loss.item(), 3) for name, loss in losses.items()})
    found = model.eval().predict(batch.images)

print("boxes", tuple(found.boxes.shape), "scores", tuple(found.scores.shape))
