"""RoI Align of 1024 boxes, 256 channels, 7 x 7 bins: one level of 80 x 80, and a pyramid, against torchvision.

Features lie in memory as ``[B, C, H, W]`` or channels-last, and boxes are those of a picture of 640 pixels, of all
sizes. Answers and gradients are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import milliseconds, ratio, rounds, write
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from torso.boxes.roi import RoIAlign

ROUNDS, SIDE, COUNT, CHANNELS, SIZE = 7, 640, 1024, 256, 7
CASES = {"one level": [8], "pyramid": [4, 8, 16, 32]}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}

Call = Callable[[], Tensor]


def scene() -> Tensor:
    """Boxes ``[R, 4]``, their sides spread evenly over octaves from 16 to 512 pixels."""
    generator = torch.Generator().manual_seed(0)
    half = 2 ** (3 + 5 * torch.rand(COUNT, 1, generator=generator)) * (
        0.7 + 0.6 * torch.rand(COUNT, 2, generator=generator)
    )
    centre = torch.rand(COUNT, 2, generator=generator) * SIDE
    return torch.cat([centre - half, centre + half], dim=1).clamp(0, SIDE)


def calls(strides: list[int], features: list[Tensor], boxes: Tensor) -> dict[str, Call]:
    """Both, features of boxes ``[R, C, S, S]``."""
    ours = RoIAlign(strides, SIZE, ratio=2)
    if len(strides) == 1:
        rows = torch.cat([torch.zeros(COUNT, 1), boxes], dim=1)
        return {
            "torso": lambda: ours(features, boxes[None])[0],
            "torchvision": lambda: roi_align(features[0], rows, SIZE, 1 / strides[0], 2),
        }
    names = [str(stride) for stride in strides]
    theirs, levels = MultiScaleRoIAlign(names, SIZE, 2), dict(zip(names, features, strict=True))
    return {
        "torso": lambda: ours(features, boxes[None])[0],
        "torchvision": lambda: theirs(levels, [boxes], [(SIDE, SIDE)]),
    }


def measured(strides: list[int], layout: torch.memory_format) -> dict[str, object]:
    torch.manual_seed(0)
    features = [torch.randn(1, CHANNELS, SIDE // s, SIDE // s).contiguous(memory_format=layout) for s in strides]
    for each in features:
        each.requires_grad_()
    pair, weight = calls(strides, features, scene()), torch.randn(COUNT, CHANNELS, SIZE, SIZE)

    def learned(call: Call) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(), features, weight)

    ours, theirs = (learned(call) for call in pair.values())
    torch.testing.assert_close(pair["torso"](), pair["torchvision"](), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)  # sums of thousands of float32
    tasks: dict[str, Callable[[], object]] = {f"{name} forward": call for name, call in pair.items()}
    tasks |= {f"{name} forward and backward": (lambda call=call: learned(call)) for name, call in pair.items()}
    seconds = rounds(tasks, ROUNDS)
    return {"milliseconds": {name: milliseconds(each) for name, each in seconds.items()}} | {
        f"ratio {kind}": ratio(seconds, f"torso {kind}", f"torchvision {kind}")
        for kind in ("forward", "forward and backward")
    }


def main() -> None:
    torch.set_num_threads(1)
    results = {
        case: {name: measured(strides, layout) for name, layout in LAYOUTS.items()} for case, strides in CASES.items()
    }
    write("roi", rounds=ROUNDS, boxes=COUNT, channels=CHANNELS, size=SIZE, cases=results)


if __name__ == "__main__":
    main()
