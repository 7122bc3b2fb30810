"""torchvision's own transforms on a batch that is on the device already."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torso.config import TorsoError
from torso.data.draws import generator_of
from torso.structures import Batch, Targets

Arguments = dict[str, Any]


class OnDevice(nn.Module):
    """Runs torchvision v2 transforms on a batch where it lives; boxes, masks, keypoints and segments follow.

    For what the loader's views cannot do, or where the device has time and the processor has none. Pictures are
    transformed one after another, since torchvision draws once for all that it is given at a time; each has its own
    seed, and the global streams of random numbers stay as they were. It is no member of a loader's list: call it on
    what the loader gives. The way back to the files (``to_source``) is not kept up: use it for training only.

    Args:
        steps: names of classes of torchvision.transforms.v2 and their arguments, in order
            (``{ColorJitter: {hue: 0.1}, RandomHorizontalFlip: {}}``).
        seed: of the run.

    Raises:
        ValueError: torchvision has no such transform, or it does not take such arguments.

    Source: torchvision v2 with tv_tensors.
    """

    def __init__(self, steps: dict[str, Arguments], seed: int = 0) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_made(name, arguments) for name, arguments in steps.items())
        self.seed = seed

    @torch.no_grad()
    def forward(self, batch: Batch, epoch: int = 0) -> Batch:
        """The batch after all steps; a pure function of (seed, epoch, row).

        Raises:
            TorsoError: a step changes the size.
        """
        images, found = [], []
        for i, row in enumerate(batch.index.tolist()):
            with _own_stream(generator_of(self.seed, epoch, row).initial_seed(), batch.images.device):
                image, shown = self._one(batch.images[i], _row(batch.targets, i))
            images.append(image)
            found.append(shown)
        pixels = torch.stack(images).contiguous(memory_format=torch.channels_last)
        return replace(batch, images=pixels, targets=_joined(batch.targets, found))

    def _one(self, image: Tensor, shown: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        from torchvision import tv_tensors

        size = (image.shape[-2], image.shape[-1])
        wrapped: dict[str, Tensor] = {}
        for name, value in shown.items():
            boxes = _around(value) if name == "keypoints" else value
            if name in ("boxes", "keypoints"):
                mode = "soft" if name == "boxes" else None
                wrapped[name] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size, clamping_mode=mode)
            else:
                wrapped[name] = tv_tensors.Mask(value)
        sample: Any = (tv_tensors.Image(image), wrapped)
        for step in self.steps:
            sample = step(*sample)
        if sample[0].shape != image.shape:
            raise TorsoError(
                f"on_device: the steps turn pictures of {tuple(image.shape)} into {tuple(sample[0].shape)}; "
                "only steps that leave the size are allowed"
            )
        after = {name: value.as_subclass(Tensor) for name, value in sample[1].items()}
        if "keypoints" in after:
            middles = after["keypoints"].unflatten(-1, (2, 2)).mean(-2).view_as(shown["keypoints"][..., :2])
            visible = shown["keypoints"][..., 2:]
            after["keypoints"] = torch.cat([middles * (visible > 0), visible], -1)
        return sample[0].as_subclass(Tensor), after


def _around(keypoints: Tensor) -> Tensor:
    """Boxes of one pixel about keypoints: torchvision's own flips count keypoints from centres, its turns do not."""
    middles = keypoints[..., :2].flatten(0, -2)
    return torch.cat([middles - 0.5, middles + 0.5], -1)


def _made(name: str, arguments: Arguments) -> nn.Module:
    from torchvision.transforms import v2

    known = {
        key: value for key, value in vars(v2).items() if isinstance(value, type) and issubclass(value, v2.Transform)
    }
    if name not in known:
        raise ValueError(f"torchvision.transforms.v2 has no transform {name!r}")
    try:
        return known[name](**arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


_FOLLOW = ("boxes", "masks", "keypoints", "segments")


def _row(targets: Targets, i: int) -> dict[str, Tensor]:
    """What picture ``i`` shows and where."""
    rows = {name: getattr(targets, name) for name in _FOLLOW}
    return {name: value[i] for name, value in rows.items() if value is not None}


def _joined(targets: Targets, found: list[dict[str, Tensor]]) -> Targets:
    """The targets with what came out; objects that left the canvas are padding."""
    moved = {name: torch.stack([shown[name] for shown in found]) for name in found[0]}
    sides = moved["boxes"][..., 2:] - moved["boxes"][..., :2]
    there = (sides > 1).all(-1)
    moved["boxes"] = moved["boxes"] * there[..., None]
    return replace(targets, **moved, valid=targets.valid & there, ignore=targets.ignore & there)


def _own_stream(seed: int, device: torch.device) -> AbstractContextManager[None]:
    """Global random numbers from a seed, inside a ``with`` only: torchvision takes no generator."""
    from contextlib import contextmanager

    @contextmanager
    def forked() -> Any:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    return forked()
