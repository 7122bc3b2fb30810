"""Necks beside their closest library parts: ``OMP_NUM_THREADS=1 python benchmarks/parts_necks.py``.

``PAIRS``: name -> (ours, theirs, inputs); both modules are called with the inputs, forward and backward are timed.
Peak memory is that of a process of its own for each, above what it had before its first step.
"""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    import measure  # before torch: it sets the number of threads

import torch
from torch import Tensor, nn

Inputs = tuple[list[Tensor]]
Pair = tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Inputs]]

STRIDES, LITE, RESNET = [8, 16, 32], [40, 112, 320], [512, 1024, 2048]


class TheirFPN(nn.Module):
    """torchvision's, called with a list."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        self.neck = FeaturePyramidNetwork(RESNET, 256, extra_blocks=LastLevelP6P7(256, 256))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return list(self.neck(OrderedDict(zip("345", features, strict=True))).values())


class TheirBiFPN(nn.Module):
    """effdet's for EfficientDet-D0, which changes the list that it gets."""

    def __init__(self) -> None:
        super().__init__()
        from effdet.config import get_efficientdet_config
        from effdet.efficientdet import BiFpn

        info = [{"num_chs": c, "reduction": s} for c, s in zip(LITE, STRIDES, strict=True)]
        self.neck = BiFpn(get_efficientdet_config("efficientdet_d0"), info)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return self.neck(list(features))


class TheirSPP(nn.Module):
    """timm's bottleneck on the last level."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.cspnext import SPPBottleneck

        self.block = SPPBottleneck(RESNET[-1], RESNET[-1])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return [*features[:-1], self.block(features[-1])]


def our_fpn() -> nn.Module:
    from torso.necks import FPN

    return FPN(RESNET, STRIDES)


def our_bifpn() -> nn.Module:
    from torso.necks import BiFPN

    return BiFPN(LITE, STRIDES)


def our_spp() -> nn.Module:
    from torso.necks import SPP

    return SPP(RESNET, STRIDES, activation=nn.SiLU)


def levels(channels: list[int], side: int) -> Callable[[], Inputs]:
    return lambda: ([torch.randn(2, c, side // s, side // s) for c, s in zip(channels, STRIDES, strict=True)],)


PAIRS: dict[str, Pair] = {
    "neck/fpn": (our_fpn, TheirFPN, levels(RESNET, 320)),
    "neck/bifpn": (our_bifpn, TheirBiFPN, levels(LITE, 512)),
    "neck/spp": (our_spp, TheirSPP, levels(RESNET, 512)),
}


def step(module: nn.Module, inputs: Inputs) -> Callable[[], None]:
    """Forward and backward, with gradients of the inputs as in the middle of a network."""
    (features,) = inputs
    features = [x.detach().requires_grad_() for x in features]

    def run() -> None:
        torch.autograd.backward([x.sum() for x in module(features)])

    return run


def peak(name: str, which: int) -> float:
    """Megabytes that three steps add to the largest size of a process."""
    made = subprocess.run([sys.executable, __file__, "--peak", name, str(which)], capture_output=True, check=True)
    return float(made.stdout.split()[-1])


def _peak_here(name: str, which: int) -> float:
    ours, theirs, inputs = PAIRS[name]
    run = step((ours, theirs)[which](), inputs())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: the largest size begins anew
    before = _kilobytes("VmRSS")
    for _ in range(3):
        run()
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field))


def compared(name: str, count: int) -> dict[str, Any]:
    """Seconds and peak memory of ours, of theirs, and their ratios."""
    ours, theirs, inputs = PAIRS[name]
    torch.manual_seed(0)
    given = inputs()
    seconds = measure.rounds({"torso": step(ours(), given), "library": step(theirs(), given)}, count)
    ours_mb, theirs_mb = peak(name, 0), peak(name, 1)
    return {
        "torso_ms": measure.milliseconds(seconds["torso"]),
        "library_ms": measure.milliseconds(seconds["library"]),
        "ratio": measure.ratio(seconds, "torso", "library"),
        "torso_mb": round(ours_mb, 1),
        "library_mb": round(theirs_mb, 1),
        "memory_ratio": round(ours_mb / theirs_mb, 4),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(_peak_here(sys.argv[2], int(sys.argv[3])))
        sys.exit()
    chosen = [name for name in PAIRS if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    for name in chosen:
        print(name, compared(name, 11), flush=True)
